//! The table of a rule's kernels: which types have one, at which place. Knows no loop.

use half::{bf16, f16};

use super::{Arity, Kernel, Loop};
use crate::level::{self, LEVELS, Level};
use crate::rule::{Reach, Update};
use crate::small::{Half, StateType};
use crate::storage::{DTYPES, Dtype, Storage};

/// Hands a macro the combinations of parameter and gradient type that have kernels: the compute type beside each storage
/// type, and each storage type beside itself; other gradients are converted tile by tile on the way.
macro_rules! pairs {
    ($then:ident $($context:tt)*) => {
        $then! {
            ($($context)*)
            (f32, f32) (f64, f64) (f16, f32) (bf16, f32) (f32, f16) (f32, bf16) (f16, f16) (bf16, bf16)
        }
    };
}

/// The same as values.
const PAIRS: &[(Dtype, Dtype)] = {
    macro_rules! values {
        (() $(($param:ty, $grad:ty))*) => {
            &[$((<$param as Storage>::DTYPE, <$grad as Storage>::DTYPE)),*]
        };
    }
    pairs!(values)
};

/// The place of each pair, behind the last where there is no kernel.
const PLACES: [[usize; DTYPES]; DTYPES] = {
    let mut places = [[PAIRS.len(); DTYPES]; DTYPES];
    let mut place = 0;
    while place < PAIRS.len() {
        places[PAIRS[place].0 as usize][PAIRS[place].1 as usize] = place;
        place += 1;
    }
    places
};

/// The ways of keeping states in less memory, beside float32 alone; with other types they are converted tile by tile too.
const KEPT: usize = 3;

/// A rule's kernels, by CPU level and by storage types.
pub(crate) type Table = [[Kernel; PAIRS.len() + KEPT]; LEVELS];

/// The kernel of a table, if this pair of types has one. States have the compute type.
pub(crate) fn find(table: &Table, level: Level, param: Dtype, grad: Dtype) -> Option<Kernel> {
    let place = PLACES[param as usize][grad as usize];
    (place < PAIRS.len()).then(|| table[level as usize][place])
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
    (types == (Dtype::F32, Dtype::F32)).then(|| table[level as usize][PAIRS.len() + way])
}

/// All kernels of the rule that `R` carries that do this.
pub(crate) const fn table<R, const S: usize, const K: usize, const WHAT: u8>() -> Table
where
    R: Update<f32, S, K> + Update<f64, S, K> + Reach,
    Arity: Loop<S>,
{
    macro_rules! row {
        ($level:ident) => {
            pairs!(kernels $level)
        };
    }
    macro_rules! kernels {
        (($level:ident) $(($param:ty, $grad:ty))*) => {
            [
                $(super::$level::kernel::<R, $param, $grad, <$param as Storage>::Compute, S, K, WHAT>,)*
                super::$level::kernel::<R, f32, f32, Half<false>, S, K, WHAT>,
                super::$level::kernel::<R, f32, f32, Half<true>, S, K, WHAT>,
                super::$level::coded::<R, S, K, WHAT>,
            ]
        };
    }
    level::rows!(row)
}
