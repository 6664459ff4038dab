//! The tables of kernels: which combinations of types have one. Knows no loop.
//!
//! The drivers convert all other types a tile at a time, with the same bits. Kernels exist for common combinations, and for
//! those that would be slower through tiles.

#[cfg(target_arch = "x86_64")]
use half::bf16;

use super::{Kernel, Pass};
use crate::cpu::{self, Level};
#[cfg(target_arch = "x86_64")]
use crate::numeric::Bfloat16State;
use crate::numeric::Dtype;

/// The types of parameters, gradients and states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    pub param: Dtype,
    pub grad: Dtype,
    pub states: States,
}

/// The storage format of states, as far as kernels distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum States {
    Compute,
    Bfloat16,
}

/// The kernels of a pass, by CPU level: those of the first few combinations, in the order of `place`. What AVX-512 lacks it takes
/// from AVX2: the same speed for bfloat16 gradients, 0.83 of it for bfloat16 states, and a fifth less code in all.
pub(crate) struct Table {
    baseline: [Kernel; 2],
    #[cfg(target_arch = "x86_64")]
    avx2: [Kernel; COMBINATIONS],
    #[cfg(target_arch = "x86_64")]
    avx512: [Kernel; 3],
}

#[cfg(target_arch = "x86_64")]
const COMBINATIONS: usize = 5;

/// The index of a combination among a level's kernels; the compute types come first.
fn place(types: Types) -> Option<usize> {
    use Dtype::{Bf16, F32, F64};
    match (types.param, types.grad, types.states) {
        (F32, F32, States::Compute) => Some(0),
        (F64, F64, States::Compute) => Some(1),
        (Bf16, Bf16, States::Compute) => Some(2),
        (F32, Bf16, States::Compute) => Some(3),
        (F32, F32, States::Bfloat16) => Some(4),
        _ => None,
    }
}

/// The kernel in a table for these types, if there is one.
pub(crate) fn find(table: &Table, level: Level, types: Types) -> Option<Kernel> {
    let place = place(types)?;
    match level {
        Level::Baseline => table.baseline.get(place).copied(),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Some(table.avx2[place]),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => table.avx512.get(place).or(table.avx2.get(place)).copied(),
        #[cfg(not(target_arch = "x86_64"))]
        _ => table.baseline.get(place).copied(),
    }
}

/// All kernels of a pass.
pub(crate) const fn table<R: Pass>() -> Table {
    Table {
        baseline: [super::baseline::kernel::<R, f32, f32, f32>, super::baseline::kernel::<R, f64, f64, f64>],
        #[cfg(target_arch = "x86_64")]
        avx2: [
            super::avx2::kernel::<R, f32, f32, f32>,
            super::avx2::kernel::<R, f64, f64, f64>,
            super::avx2::kernel::<R, bf16, bf16, f32>,
            super::avx2::kernel::<R, f32, bf16, f32>,
            super::avx2::kernel::<R, f32, f32, Bfloat16State<false>>,
        ],
        #[cfg(target_arch = "x86_64")]
        avx512: [
            super::avx512::kernel::<R, f32, f32, f32>,
            // Where the divider takes the time, AVX-512 is no faster for float64.
            if R::DIVIDES {
                super::avx2::kernel::<R, f64, f64, f64>
            } else {
                super::avx512::kernel::<R, f64, f64, f64>
            },
            super::avx512::kernel::<R, bf16, bf16, f32>,
        ],
    }
}

/// Kernels of the compute types alone, float32 and float64: of a stage over rows or columns, or of a pass for one row.
pub(crate) type VectorTable = [[Kernel; 2]; cpu::LEVELS];

/// The kernel of a vector table for a compute type.
pub(crate) fn find_vector(table: &VectorTable, level: Level, compute: Dtype) -> Kernel {
    table[level as usize][compute as usize]
}

/// All kernels of a stage over rows or columns.
pub(crate) const fn vector_table<R: Pass>() -> VectorTable {
    // Rows and columns are few elements, so AVX-512 takes AVX2's kernels.
    macro_rules! row {
        (avx512) => {
            row!(avx2)
        };
        ($level:ident) => {
            [super::$level::kernel::<R, f32, f32, f32>, super::$level::kernel::<R, f64, f64, f64>]
        };
    }
    cpu::rows!(row)
}

/// All kernels of a pass for elements of one row.
pub(crate) const fn row_table<R: Pass>() -> VectorTable {
    macro_rules! row {
        ($level:ident) => {
            [super::$level::kernel::<R, f32, f32, f32>, super::$level::kernel::<R, f64, f64, f64>]
        };
    }
    cpu::rows!(row)
}
