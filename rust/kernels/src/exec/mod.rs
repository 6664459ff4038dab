//! Drivers: many arrays, their stages, and threads. Knows rules and kernels as data, and no optimizer by name.

mod array;
mod driver;
mod matrix;
mod pack;
mod partition;
mod plan;
mod pool;
mod quantized;
mod reductions;
mod scratch;
mod stages;
mod tiles;
mod work_list;

pub use array::Array;
pub use driver::Step;
pub use matrix::Matrix;
pub use pack::{pack, padded_length, unpack};
pub use pool::{in_parallel, num_threads, set_num_threads};
pub use work_list::WorkList;
