//! Python functions for the driver and the compiler: memory, streams and events of a device. Arrays are pointers here. Knows no
//! optimizer.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use schuss::Dtype;
use schuss::cuda::source::{Unit, all_units};
use schuss::cuda::{Block, Device, Event, Stream, nvrtc};

use super::{DTYPES, dtype, raised};

/// The driver's version, as in 12080 for 12.8.
#[pyfunction]
pub fn cuda_driver() -> PyResult<i32> {
    schuss::cuda::driver().map_err(raised)
}

/// The least architecture among the devices that can be used, such as 90 for sm_90.
#[pyfunction]
pub fn cuda_least_arch() -> PyResult<i32> {
    schuss::cuda::least_arch().map_err(raised)
}

/// The device on which memory is allocated, or None for host memory.
#[pyfunction]
pub fn cuda_device_of(pointer: u64) -> PyResult<Option<i32>> {
    schuss::cuda::device_of(pointer).map_err(raised)
}

/// Loads the first of these files or names that is an NVRTC with a major version of at most `newest`; returns its version.
#[pyfunction]
pub fn cuda_nvrtc(candidates: Vec<String>, newest: i32, arch: i32) -> PyResult<(i32, i32)> {
    nvrtc::load(&candidates, newest, arch).map(|nvrtc| nvrtc.version).map_err(raised)
}

/// Compiles a source with the loaded NVRTC: to machine code for sm_90, to PTX for compute_90.
#[pyfunction]
pub fn cuda_compile<'py>(py: Python<'py>, source: &str, target: &str) -> PyResult<Bound<'py, PyBytes>> {
    let nvrtc = nvrtc::loaded().ok_or_else(|| raised("NVRTC has not been loaded"))?;
    let code = py.detach(|| nvrtc.compile(source, target)).map_err(raised)?;
    Ok(PyBytes::new(py, &code))
}

/// A unit of source: rule, program, and the types of parameters and gradients if it has passes over them.
pub type UnitName = (&'static str, &'static str, Option<(&'static str, &'static str)>);

/// The names of all units of source.
#[pyfunction]
pub fn cuda_units() -> Vec<UnitName> {
    let name = |dtype: Dtype| DTYPES.iter().find(|(_, own)| *own == dtype).map_or("", |(name, _)| name);
    let named = |unit: Unit| {
        (unit.rule().name, unit.program().name, unit.types().map(|(param, grad)| (name(param), name(grad))))
    };
    all_units().into_iter().map(named).collect()
}

/// The source of a unit, by its name from [`cuda_units`].
#[pyfunction]
#[pyo3(signature = (rule, program, types=None))]
pub fn cuda_source(rule: &str, program: &str, types: Option<(String, String)>) -> PyResult<String> {
    let unknown = || PyValueError::new_err(format!("no rule {rule:?} with a program {program:?}"));
    let rule = schuss::optimizers::find(rule).ok_or_else(unknown)?.rule;
    let program = rule.program(program).ok_or_else(unknown)?;
    let unit = match types {
        Some((param, grad)) => Unit::Passes { rule, program, param: dtype(&param)?, grad: dtype(&grad)? },
        None => Unit::Texts { rule, program },
    };
    Ok(unit.source())
}

/// Zero-initialized device memory or pinned host memory, freed with the object.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct CudaBlock(Block);

#[pymethods]
impl CudaBlock {
    #[new]
    fn new(py: Python<'_>, device: i32, bytes: usize, pinned: bool) -> PyResult<CudaBlock> {
        let make = || {
            let device = Device::get(device)?;
            if pinned { Block::pinned(device, bytes) } else { Block::on(device, bytes) }
        };
        py.detach(make).map(CudaBlock).map_err(raised)
    }

    #[getter]
    fn pointer(&self) -> u64 {
        self.0.pointer
    }
}

/// Copies bytes between host or device memory, in stream order. Both must stay valid until the stream has run the copy, which
/// `wait` waits for.
#[pyfunction]
#[pyo3(signature = (device, to, source, bytes, stream, wait=false))]
pub fn cuda_copy(
    py: Python<'_>,
    device: i32,
    to: u64,
    source: u64,
    bytes: usize,
    stream: u64,
    wait: bool,
) -> PyResult<()> {
    let copy = || {
        let device = Device::get(device)?;
        // SAFETY: the caller guarantees both ranges, as the documentation of `cuda.rs` says.
        unsafe { device.copy(to, source, bytes, stream)? };
        if wait { device.synchronize(stream) } else { Ok(()) }
    };
    py.detach(copy).map_err(raised)
}

/// Sets device memory to zero, in stream order.
#[pyfunction]
pub fn cuda_zero(device: i32, to: u64, bytes: usize, stream: u64) -> PyResult<()> {
    // SAFETY: the caller guarantees the range, as the documentation of `cuda.rs` says.
    Device::get(device).and_then(|device| unsafe { device.fill(to, 0, bytes, stream) }).map_err(raised)
}

/// A CUDA stream of its own, released with the object; it still runs the work that it has.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct CudaStream(Stream);

#[pymethods]
impl CudaStream {
    #[new]
    fn new(device: i32) -> PyResult<CudaStream> {
        Device::get(device).and_then(Stream::new).map(CudaStream).map_err(raised)
    }

    /// The driver's handle.
    #[getter]
    fn handle(&self) -> u64 {
        self.0.handle()
    }
}

/// A CUDA event: a point in the work of a stream.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct CudaEvent(Event);

#[pymethods]
impl CudaEvent {
    #[new]
    fn new(device: i32) -> PyResult<CudaEvent> {
        Device::get(device).and_then(Event::new).map(CudaEvent).map_err(raised)
    }

    /// Records it after all work submitted to a stream so far.
    fn record(&self, stream: u64) -> PyResult<()> {
        self.0.record(stream).map_err(raised)
    }

    /// Whether it has been reached.
    fn reached(&self) -> bool {
        self.0.reached()
    }

    /// Waits for it.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.wait()).map_err(raised)
    }
}

/// Waits until a stream has run all its work.
#[pyfunction]
pub fn cuda_synchronize(py: Python<'_>, device: i32, stream: u64) -> PyResult<()> {
    py.detach(|| Device::get(device)?.synchronize(stream)).map_err(raised)
}

/// Makes the stream `then` wait for all work submitted to the stream `first`; the host does not wait.
#[pyfunction]
pub fn cuda_order(device: i32, first: u64, then: u64) -> PyResult<()> {
    Device::get(device).and_then(|device| device.order(first, then)).map_err(raised)
}

/// Registers these functions and classes in the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CudaBlock>()?;
    module.add_class::<CudaEvent>()?;
    module.add_class::<CudaStream>()?;
    module.add_function(wrap_pyfunction!(cuda_driver, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_least_arch, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_device_of, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_nvrtc, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_compile, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_units, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_source, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_copy, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_zero, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_synchronize, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_order, module)?)
}
