//! The table of a rule's kernels: which types have one, at which place. Knows no loop.

use half::{bf16, f16};

use super::{Arity, Kernel, Loop};
use crate::level::{self, LEVELS, Level};
use crate::rule::{Reach, Update};
use crate::small::{Half, StateType};
use crate::storage::Dtype;

/// The combinations of parameter and gradient type that have kernels: the compute type beside each storage type, and
/// each storage type beside itself; other gradients are converted tile by tile on the way.
const PAIRS: usize = 8;
/// The ways of keeping states in less memory, beside float32 alone; with other types they are converted tile by tile too.
const KEPT: usize = 3;

/// A rule's kernels, by CPU level and by storage types.
pub(crate) type Table = [[Kernel; PAIRS + KEPT]; LEVELS];

/// The kernel of a table, if this pair of types has one. States have the compute type.
pub(crate) fn find(table: &Table, level: Level, param: Dtype, grad: Dtype) -> Option<Kernel> {
    use Dtype::{Bf16, F16, F32, F64};
    let pair = match (param, grad) {
        (F32, F32) => 0,
        (F64, F64) => 1,
        (F16, F32) => 2,
        (Bf16, F32) => 3,
        (F32, F16) => 4,
        (F32, Bf16) => 5,
        (F16, F16) => 6,
        (Bf16, Bf16) => 7,
        _ => return None,
    };
    Some(table[level as usize][pair])
}

/// The kernel of a table for states in less memory, if these types have one.
pub(crate) fn find_small(
    table: &Table,
    level: Level,
    types: (Dtype, Dtype),
    states: StateType,
    nearest: bool,
) -> Option<Kernel> {
    let way = match states {
        StateType::Bf16 => usize::from(nearest),
        StateType::Int8 => 2,
        StateType::Compute => return None,
    };
    (types == (Dtype::F32, Dtype::F32)).then(|| table[level as usize][PAIRS + way])
}

/// All kernels of the rule that `R` carries that do this.
pub(crate) const fn table<R, const S: usize, const K: usize, const WHAT: u8>() -> Table
where
    R: Update<f32, S, K> + Update<f64, S, K> + Reach,
    Arity: Loop<S>,
{
    macro_rules! row {
        ($level:ident) => {
            [
                super::$level::kernel::<R, f32, f32, f32, S, K, WHAT>,
                super::$level::kernel::<R, f64, f64, f64, S, K, WHAT>,
                super::$level::kernel::<R, f16, f32, f32, S, K, WHAT>,
                super::$level::kernel::<R, bf16, f32, f32, S, K, WHAT>,
                super::$level::kernel::<R, f32, f16, f32, S, K, WHAT>,
                super::$level::kernel::<R, f32, bf16, f32, S, K, WHAT>,
                super::$level::kernel::<R, f16, f16, f32, S, K, WHAT>,
                super::$level::kernel::<R, bf16, bf16, f32, S, K, WHAT>,
                super::$level::kernel::<R, f32, f32, Half<false>, S, K, WHAT>,
                super::$level::kernel::<R, f32, f32, Half<true>, S, K, WHAT>,
                super::$level::coded::<R, S, K, WHAT>,
            ]
        };
    }
    level::rows!(row)
}
