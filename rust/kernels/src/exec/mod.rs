//! Drivers: many arrays, their stages, and threads. Treats rules and kernels as data, and knows no optimizer by name.

mod array;
mod backup;
mod driver;
mod extend;
mod followers;
mod from_memory;
mod item;
mod matrix;
mod norm;
mod operands;
mod partition;
mod passes;
mod peers;
mod plan;
mod pool;
mod quantized;
mod reductions;
mod rows;
mod scalars;
mod scratch;
mod shards;
mod stages;
mod stretches;
mod tiles;
mod vectors;
mod work_list;

pub use array::Array;
pub use backup::Backup;
pub use driver::Step;
pub use followers::Follower;
#[cfg(feature = "cuda")]
pub(crate) use matrix::Cells;
pub use matrix::Matrix;
pub use peers::{Combine, Peers, cut_size};
#[cfg(unix)]
pub use pool::pthread_atfork;
pub use pool::{in_parallel, num_threads, set_num_threads};
#[cfg(feature = "cuda")]
pub(crate) use reductions::{by_cells, form};
pub use rows::{RowGradients, RowStep};
pub use shards::{LocalSum, Shards, padded_length};
pub use work_list::WorkList;
