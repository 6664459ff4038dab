//! Errors of the driver, the compiler and allocations, as messages.

use std::collections::TryReserveError;

use cudarc::driver::result::DriverError;
use cudarc::driver::sys;

use crate::memory::NO_MEMORY;

/// Why something failed: a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is not enough memory, on the host or on a device.
    Memory(String),
    /// Anything else.
    Other(String),
}

/// A result of what a driver, a compiler or an allocator does.
pub type Result<T> = std::result::Result<T, Error>;

impl From<String> for Error {
    fn from(message: String) -> Error {
        Error::Other(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Error {
        Error::Other(message.into())
    }
}

impl From<TryReserveError> for Error {
    fn from(_: TryReserveError) -> Error {
        Error::Memory(NO_MEMORY.into())
    }
}

/// Describes a driver error: its name, and what was being done.
pub(super) fn describe(doing: impl std::fmt::Display) -> impl FnOnce(DriverError) -> Error {
    move |error| {
        let words = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
            text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let message = format!("{doing}: CUDA error {} ({})", words(error.error_name()), words(error.error_string()));
        use sys::CUresult::*;
        match error.0 {
            CUDA_ERROR_OUT_OF_MEMORY => Error::Memory(message),
            // After these every call of the process fails.
            CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_ECC_UNCORRECTABLE => {
                Error::Other(format!("{message}; something before it has failed on the GPU: restart the process"))
            }
            _ => Error::Other(message),
        }
    }
}
