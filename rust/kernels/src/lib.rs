//! Gradient-descent optimizers that update slices in place, at the speed of memory.
//!
//! A rule is written once ([`rules`]) and becomes SIMD kernels for every CPU level and storage type. Results have the
//! same bits on every level, any number of threads and any cut of the work. [`Optimizer`] is the safe front; bindings
//! build on [`Segment`] and [`WorkList`] instead.

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

#[cfg(feature = "cuda")]
pub mod cuda;
mod exchange;
mod fetch;
mod fpenv;
mod kernel;
pub mod level;
pub mod math;
mod norm;
mod numbers;
mod optimizer;
mod pool;
mod rows;
pub mod rule;
pub mod rules;
mod segment;
mod small;
mod storage;
mod tile;
mod worklist;

pub use exchange::{exchange, room};
#[doc(hidden)]
pub use fetch::fetch;
pub use norm::{clip_factor, unscale_factor};
pub use optimizer::{Error, Optimizer};
#[doc(hidden)]
pub use pool::in_parallel;
pub use pool::{num_threads, set_num_threads};
pub use rows::Rows;
pub use rule::{Common, Decay, Rule};
pub use segment::{After, Segment};
pub use small::{Aside, CODED, Form, Noise, SCALES_ALIGN, StateType};
pub use storage::{Dtype, Storage};
pub use worklist::{Step, WorkList};
