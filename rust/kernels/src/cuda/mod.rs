//! The rules on NVIDIA GPUs, with the CPU's bits.
//!
//! [`source`] makes CUDA C++ of the rules' trees, [`nvrtc`] compiles it when it is first needed, [`plan`] says what a program
//! launches, [`Work`] does it. Driver and compiler are loaded at run time; what lacks them is told so by an error.

mod cache;
mod device;
pub mod nvrtc;
pub mod plan;
pub mod source;
pub mod stages;
mod structures;
mod tables;
mod translate;
mod work;

pub use device::{Block, Device, Event, Result, count, device_of, driver};
pub use work::{DeviceStep, Measured, Outcome, Work};
