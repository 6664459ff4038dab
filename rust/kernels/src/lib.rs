//! Gradient-descent optimizers that update slices in place, at the speed of memory.
//!
//! A rule is written once ([`optimizers`]) and becomes SIMD kernels for every CPU level and storage type. Results are
//! bit-identical on every level, for any number of threads and any split of the work. [`Optimizer`] is the safe API; bindings
//! build on [`Array`] and [`WorkList`] instead.
//!
//! Modules, each of which may use only those before it: `memory`, `cpu`, `numeric`, `rule`, `kernel`, `optimizers`, `exec`, `cuda`.

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

#[cfg(test)]
extern crate self as schuss; // lets unit tests use the support module of tests/
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod exec;
mod kernel;
mod memory;
mod numeric;
mod optimizer;
pub mod optimizers;
pub mod rule;

pub use cpu::level;
#[doc(hidden)]
pub use cpu::prefetch;
#[doc(hidden)]
pub use exec::in_parallel;
#[cfg(unix)]
#[doc(hidden)]
pub use exec::pthread_atfork;
pub use exec::{
    Array, Backup, Combine, Follower, LocalSum, Matrix, Peers, RowGradients, RowStep, Shards, Step, WorkList, cut_size,
    num_threads, padded_length, set_num_threads,
};
pub use kernel::CompiledRule;
#[doc(hidden)]
pub use memory::{NO_MEMORY, try_collect, try_extend};
pub use numeric::{Dtype, QUANTIZATION_BLOCK, Real, Rounding, SCALES_ALIGN, Squares, StateFormat, Storage};
pub use optimizer::{Error, Optimizer};
pub use optimizers::clip_factor;
pub use rule::{Common, Decay, Rule, unscale_factor};
