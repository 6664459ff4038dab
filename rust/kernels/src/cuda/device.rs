//! The CUDA driver: devices, memory, streams, and kernels that are compiled on first use. Knows no rule.
//!
//! It uses a device's primary context, as CuPy, PyTorch and JAX do, and restores the calling thread's context afterwards. The
//! driver's library is located before any call into it, so a machine without it gets an error.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::cache;
use super::error::{Result, describe};
use super::nvrtc::{self, OPTIONS};
use super::source::Unit;
use super::streams::Event;

/// Loads the driver; returns its version, such as 12080 for 12.8.
///
/// # Errors
/// There is no driver, or it finds no GPU that it can use.
pub fn driver() -> Result<i32> {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: loading NVIDIA's driver runs only its own initializers.
    if !*PRESENT.get_or_init(|| unsafe { sys::is_culib_present() }) {
        return Err("the NVIDIA driver's library (libcuda.so.1) is not on this machine".into());
    }
    result::init().map_err(describe("the NVIDIA driver does not start"))?;
    let mut version = 0;
    // SAFETY: writes the number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(describe("asking for the driver's version"))?;
    Ok(version)
}

/// CUDA's legacy default stream. It waits for all blocking streams.
pub(super) const LEGACY: u64 = 1;

/// The least architecture that the kernels compile for, such as 90 for sm_90.
const LEAST_ARCH: i32 = 70;

/// A device's architecture.
fn arch_of(device: sys::CUdevice) -> std::result::Result<i32, DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: the driver has found the device.
    unsafe { Ok(result::device::get_attribute(device, MAJOR)? * 10 + result::device::get_attribute(device, MINOR)?) }
}

/// The least architecture among the devices that can be used; the greatest number if there is none.
///
/// # Errors
/// There is no driver.
pub fn least_arch() -> Result<i32> {
    driver()?;
    let arch = |ordinal| arch_of(result::device::get(ordinal)?);
    let archs = || (0..result::device::get_count()?).map(arch).collect::<std::result::Result<Vec<_>, _>>();
    let archs = archs().map_err(describe("asking devices for their architecture"))?;
    Ok(archs.into_iter().filter(|&arch| arch >= LEAST_ARCH).min().unwrap_or(i32::MAX))
}

/// The device on which memory is allocated, or `None` when the driver does not know the pointer or it is host memory.
///
/// # Errors
/// There is no driver, or it has failed before.
pub fn device_of(pointer: u64) -> Result<Option<i32>> {
    driver()?;
    let mut found = [0u32; 2];
    let wanted = [
        sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
    ];
    for (value, attribute) in found.iter_mut().zip(wanted) {
        // SAFETY: both attributes are four bytes.
        let status = unsafe { sys::cuPointerGetAttribute((value as *mut u32).cast(), attribute, pointer) };
        if status == sys::CUresult::CUDA_ERROR_INVALID_VALUE {
            return Ok(None);
        }
        status.result().map_err(describe("asking where an array is"))?;
    }
    Ok((found[0] == sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32).then_some(found[1] as i32))
}

/// The kernels of a unit, by name.
pub(super) type Functions = HashMap<String, sys::CUfunction>;

/// A device that has been used; never released.
pub struct Device {
    /// Its number.
    pub ordinal: i32,
    /// Its architecture, such as 90 for sm_90.
    pub arch: i32,
    context: sys::CUcontext,
    units: Mutex<HashMap<Unit, Functions>>,
}

// SAFETY: contexts and functions may be used from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.ordinal)
    }
}

impl Device {
    /// The device of this number.
    ///
    /// # Errors
    /// There is no driver or no such device.
    pub fn get(ordinal: i32) -> Result<&'static Device> {
        static DEVICES: Mutex<Vec<&'static Device>> = Mutex::new(Vec::new());
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&device) = devices.iter().find(|device| device.ordinal == ordinal) {
            return Ok(device);
        }
        driver()?;
        let open = || {
            let device = result::device::get(ordinal as c_int)?;
            Ok((device, arch_of(device)?))
        };
        let opening = || describe(format_args!("opening device {ordinal}").to_string());
        let (device, arch) = open().map_err(opening())?;
        if arch < LEAST_ARCH {
            let (major, minor) = (arch / 10, arch % 10);
            return Err(
                format!("device {ordinal} has compute capability {major}.{minor}; schuss needs 7.0 or more").into()
            );
        }
        // SAFETY: the device was just found; its context is never released.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(opening())?;
        let device = Box::leak(Box::new(Device { ordinal, arch, context, units: Mutex::default() }));
        devices.push(device);
        Ok(device)
    }

    /// Runs `f` with this device's context current, and restores the previous one.
    pub(super) fn with<T>(&self, doing: &str, f: impl FnOnce() -> std::result::Result<T, DriverError>) -> Result<T> {
        let mut before = std::ptr::null_mut();
        // SAFETY: the context is never released; the one that is restored was current before.
        unsafe {
            sys::cuCtxGetCurrent(&mut before).result().map_err(describe(doing))?;
            if before == self.context {
                return f().map_err(describe(doing));
            }
            result::ctx::set_current(self.context).map_err(describe(doing))?;
            let done = f().map_err(describe(doing));
            result::ctx::set_current(before).map_err(describe(doing))?;
            done
        }
    }

    /// The kernels of a unit: from memory, from the cache on disk, or compiled now.
    ///
    /// # Errors
    /// NVRTC is not loaded, or the driver rejects its output.
    pub(super) fn kernels(&self, unit: Unit) -> Result<Functions> {
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = units.get(&unit) {
            return Ok(found.clone());
        }
        let nvrtc = nvrtc::loaded().ok_or("NVRTC, the CUDA compiler, has not been loaded")?;
        let (target, source) = (nvrtc.target(self.arch), unit.source());
        let (major, minor) = nvrtc.version;
        let own = env!("CARGO_PKG_VERSION");
        let key = format!("{own} NVRTC {major}.{minor} {target} {}\n{source}", OPTIONS.join(" "));
        // PTX may have been compiled for another driver; only machine code is cached.
        let keep = target.starts_with("sm_");
        if keep && let Some(found) = cache::read(&key).and_then(|code| self.load(unit, code).ok()) {
            units.insert(unit, found.clone());
            return Ok(found);
        }
        let code = nvrtc.compile(&source, &target)?;
        let found = self.load(unit, code.clone())?;
        if keep {
            cache::write(&key, &code);
        }
        units.insert(unit, found.clone());
        Ok(found)
    }

    fn load(&self, unit: Unit, mut code: Vec<u8>) -> Result<Functions> {
        code.push(0); // PTX is zero-terminated
        self.with("loading a kernel", || {
            // SAFETY: the image is complete: the compiler made it, or its checksum matched; the module stays loaded.
            unsafe {
                let module = result::module::load_data(code.as_ptr().cast())?;
                let named = unit.kernels().into_iter().map(|kernel| {
                    let name = kernel.to_string();
                    let symbol = CString::new(name.as_str()).expect("kernels have plain names");
                    Ok((name, result::module::get_function(module, symbol)?))
                });
                named.collect()
            }
        })
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// The function belongs to this device and takes one structure of these words, whose pointers must be valid until the
    /// stream has run it.
    pub(super) unsafe fn launch(
        &self,
        function: sys::CUfunction,
        blocks: u32,
        threads: u32,
        argument: &[u64],
        stream: u64,
    ) -> Result<()> {
        let mut parameters = [argument.as_ptr().cast_mut().cast::<c_void>()];
        self.with("starting a kernel", || {
            // SAFETY: upheld by the caller; the call copies the argument.
            unsafe {
                result::launch_kernel(
                    function,
                    (blocks, 1, 1),
                    (threads, 1, 1),
                    0,
                    stream as sys::CUstream,
                    &mut parameters,
                )
            }
        })
    }

    /// Copies bytes between host or device memory, in stream order.
    ///
    /// # Safety
    /// Both ranges have this many bytes and stay valid until the stream has run the copy.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: upheld by the caller.
        self.with("copying", || unsafe { sys::cuMemcpyAsync(to, from, bytes, stream as sys::CUstream).result() })
    }

    /// Fills device memory with a byte, in stream order.
    ///
    /// # Safety
    /// The range has this many bytes and stays valid until the stream has run the fill.
    pub unsafe fn fill(&self, to: u64, byte: u8, bytes: usize, stream: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: upheld by the caller.
        self.with("filling memory", || unsafe { result::memset_d8_async(to, byte, bytes, stream as sys::CUstream) })
    }

    /// Waits until a stream has run all its work.
    pub fn synchronize(&self, stream: u64) -> Result<()> {
        // SAFETY: a stream of the caller; an invalid one is a driver error.
        self.with("waiting for a stream", || unsafe { result::stream::synchronize(stream as sys::CUstream) })
    }

    /// Raises if a stream records its work into a CUDA graph: a replay would repeat the same step count and rate.
    pub(super) fn refuse_capture(&self, stream: u64) -> Result<()> {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        self.with("asking whether a stream is captured", || {
            // SAFETY: writes the status; an invalid stream is a driver error.
            unsafe { sys::cuStreamIsCapturing(stream as sys::CUstream, &mut status) }.result()
        })?;
        if status == sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return Ok(());
        }
        Err("the current stream is captured into a CUDA graph, which would repeat one step's count and rates; step outside".into())
    }

    /// Makes a stream wait for all work so far submitted to another. The host does not wait.
    pub fn order(&'static self, first: u64, then: u64) -> Result<()> {
        if first == then {
            return Ok(());
        }
        let event = Event::new(self)?;
        event.record(first)?;
        event.hold(then) // an event may be destroyed while streams still wait for it
    }
}

/// Device or pinned host memory, freed on drop.
#[derive(Debug)]
pub struct Block {
    device: &'static Device,
    /// Its address.
    pub pointer: u64,
    /// Its length, at least the requested one.
    pub bytes: usize,
    host: bool,
}

impl Block {
    /// Zero-initialized memory on a device.
    pub fn on(device: &'static Device, bytes: usize) -> Result<Block> {
        let bytes = bytes.max(1);
        let pointer = device.with(&format!("allocating {bytes} bytes on device {}", device.ordinal), || {
            // SAFETY: new memory, which is filled before anybody else can access it.
            unsafe {
                let pointer = result::malloc_sync(bytes)?;
                let filled = result::memset_d8_sync(pointer, 0, bytes);
                if let Err(error) = filled.and_then(|()| result::stream::synchronize(std::ptr::null_mut())) {
                    let _ = result::free_sync(pointer);
                    return Err(error);
                }
                Ok(pointer)
            }
        })?;
        Ok(Block { device, pointer, bytes, host: false })
    }

    /// Zero-initialized pinned host memory, which a device can copy from and to asynchronously.
    pub fn pinned(device: &'static Device, bytes: usize) -> Result<Block> {
        let bytes = bytes.max(1);
        // SAFETY: new memory, zeroed before anybody else can access it.
        let pointer = device.with(&format!("pinning {bytes} bytes"), || unsafe {
            let pointer = result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE)?;
            pointer.cast::<u8>().write_bytes(0, bytes);
            Ok(pointer as u64)
        })?;
        Ok(Block { device, pointer, bytes, host: true })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once, when nothing on the device can still use it. At exit the driver may already be
        // unloaded.
        let _ = self.device.with("freeing memory", || unsafe {
            result::ctx::synchronize()?;
            if self.host { result::free_host(self.pointer as *mut c_void) } else { result::free_sync(self.pointer) }
        });
    }
}
