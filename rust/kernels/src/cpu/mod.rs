//! The CPU: instruction-set levels and prefetching. Knows nothing else of the crate.

pub(crate) mod lanes;
pub mod level;
mod prefetch;

pub(crate) use lanes::{LANES, Lanes};
pub(crate) use level::{LEVELS, Level, each, rows};
pub use prefetch::prefetch;
pub(crate) use prefetch::{DISTANCE, PREFETCH_BATCH, prefetch_batch, prefetch_lines};
