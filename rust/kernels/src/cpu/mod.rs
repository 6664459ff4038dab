//! The CPU: instruction-set levels and prefetching. Knows nothing else of the crate.

pub mod level;
mod prefetch;

pub(crate) use level::{LEVELS, Level, each, rows};
pub use prefetch::prefetch;
pub(crate) use prefetch::{DISTANCE, PREFETCH_BATCH, prefetch_batch, prefetch_lines};
