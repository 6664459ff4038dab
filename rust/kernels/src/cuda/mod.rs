//! Runs the rules on NVIDIA GPUs, with the same bits as the CPU. Nothing here knows Python.
//!
//! [`source`] generates CUDA C++ from the rules' trees, [`nvrtc`] compiles it on first use, [`plan`] lists a program's
//! launches, [`Work`] runs them. Driver and compiler are loaded at run time; if one is missing, the error says so.

mod cache;
mod device;
mod error;
mod gradients;
mod norm;
pub mod nvrtc;
pub mod plan;
pub mod source;
pub mod stages;
mod streams;
mod structures;
mod tables;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod translate;
mod work;

pub use device::{Block, Device, device_of, driver, least_arch};
pub use error::{Error, Result};
pub use streams::{Event, Stream};
pub use work::{DeviceStep, Measured, Outcome, Work};
