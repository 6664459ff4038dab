//! What Python needs of the GPU: memory, streams, the compiler, and work lists on a device. Arrays are pointers here; Python
//! has checked what lies behind them and keeps it alive.

use std::sync::{Mutex, TryLockError};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use schuss::cuda::source::Unit;
use schuss::cuda::{Block, Device, DeviceStep, Event, Measured, Outcome, Work, nvrtc, source};
use schuss::rule::{MAX_SCALARS, MAX_STATES, Scalars};
use schuss::{After, Dtype, Form, Rows, Rule, Segment};

use crate::group::{GroupValues, find_rule};

const DTYPES: [(&str, Dtype); 4] =
    [("float32", Dtype::F32), ("float64", Dtype::F64), ("float16", Dtype::F16), ("bfloat16", Dtype::Bf16)];

fn dtype(name: &str) -> PyResult<Dtype> {
    let found = DTYPES.iter().find(|(known, _)| *known == name);
    found.map(|&(_, dtype)| dtype).ok_or_else(|| PyTypeError::new_err(format!("no dtype {name}")))
}

fn raised(message: String) -> PyErr {
    PyRuntimeError::new_err(message)
}

/// The driver's version, as in 12080 for 12.8.
#[pyfunction]
fn cuda_driver() -> PyResult<i32> {
    schuss::cuda::driver().map_err(raised)
}

/// The number of devices.
#[pyfunction]
fn cuda_count() -> PyResult<i32> {
    schuss::cuda::count().map_err(raised)
}

/// The device on which memory lies, or None for memory of the host.
#[pyfunction]
fn cuda_device_of(pointer: u64) -> PyResult<Option<i32>> {
    schuss::cuda::device_of(pointer).map_err(raised)
}

/// Loads NVRTC from the first of these files or names that is one, of a major version of at most `newest`; its version.
#[pyfunction]
fn cuda_nvrtc(candidates: Vec<String>, newest: i32) -> PyResult<(i32, i32)> {
    nvrtc::load(&candidates, newest).map(|nvrtc| nvrtc.version).map_err(raised)
}

/// Compiles a source with the NVRTC that is loaded: to machine code for sm_90, to PTX for compute_90.
#[pyfunction]
fn cuda_compile<'py>(py: Python<'py>, source: &str, target: &str) -> PyResult<Bound<'py, PyBytes>> {
    let nvrtc = nvrtc::loaded().ok_or_else(|| raised("NVRTC has not been loaded".into()))?;
    let code = py.detach(|| nvrtc.compile(source, target)).map_err(raised)?;
    Ok(PyBytes::new(py, &code))
}

/// The sources of the kernels of a rule for these types, and those of the sums over gradients.
#[pyfunction]
fn cuda_source(rule: &str, param: &str, grad: &str, centered: bool) -> PyResult<[String; 2]> {
    let rule = schuss::rules::find(rule).ok_or_else(|| PyValueError::new_err(format!("no rule {rule:?}")))?.name;
    let (param, grad) = (dtype(param)?, dtype(grad)?);
    let sums = source::Unit::Sums { grad, compute: param.compute() };
    Ok([Unit::Rule { rule, param, grad, centered }.source(), sums.source()])
}

/// Memory on a device, or pinned memory of the host; zeros at first, given back with the object.
#[pyclass(frozen, module = "schuss._schuss")]
struct CudaBlock(Block);

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

/// Copies bytes between any two places in the order of a stream; both must stay until the stream has got there.
#[pyfunction]
fn cuda_copy(py: Python<'_>, device: i32, to: u64, source: u64, bytes: usize, stream: u64) -> PyResult<()> {
    // SAFETY: the caller answers for the places, as this module says.
    py.detach(|| unsafe { Device::get(device)?.copy(to, source, bytes, stream) }).map_err(raised)
}

/// Sets device memory to copies of a byte in the order of a stream.
#[pyfunction]
fn cuda_fill(device: i32, to: u64, byte: u8, bytes: usize, stream: u64) -> PyResult<()> {
    // SAFETY: the caller answers for the place, as this module says.
    Device::get(device).and_then(|device| unsafe { device.fill(to, byte, bytes, stream) }).map_err(raised)
}

/// A new stream, which waits for no other by itself.
#[pyfunction]
fn cuda_stream(device: i32) -> PyResult<u64> {
    Device::get(device).and_then(Device::stream).map_err(raised)
}

/// A point in the order of a stream.
#[pyclass(frozen, module = "schuss._schuss")]
struct CudaEvent(Event);

#[pymethods]
impl CudaEvent {
    #[new]
    fn new(device: i32) -> PyResult<CudaEvent> {
        Device::get(device).and_then(Event::new).map(CudaEvent).map_err(raised)
    }

    /// Puts it behind everything that a stream has been given so far.
    fn record(&self, stream: u64) -> PyResult<()> {
        self.0.record(stream).map_err(raised)
    }

    /// Waits for it.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.wait()).map_err(raised)
    }
}

/// Waits until a stream has run everything.
#[pyfunction]
fn cuda_synchronize(py: Python<'_>, device: i32, stream: u64) -> PyResult<()> {
    py.detach(|| Device::get(device)?.synchronize(stream)).map_err(raised)
}

/// Lets the stream `then` wait for what the stream `first` has been given; the host does not wait.
#[pyfunction]
fn cuda_order(device: i32, first: u64, then: u64) -> PyResult<()> {
    Device::get(device).and_then(|device| device.order(first, then)).map_err(raised)
}

/// An array of a work list: parameter, dtype, elements, states, rows to center by (0 for none) and whether those are strided.
type Given = (u64, String, usize, Vec<u64>, usize, bool);

/// Array and flat index of the first gradient that is not finite, and the norm of the gradients where the host got to know it.
type Answer = (Option<(usize, usize)>, Option<f64>);

struct Inner {
    work: Work,
    rules: Vec<&'static Rule>,
}

/// The arrays of an optimizer on a device.
#[pyclass(frozen, module = "schuss._schuss")]
struct CudaWork(Mutex<Inner>);

impl CudaWork {
    fn locked<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> PyResult<T> {
        let mut inner = match self.0.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(raised("this optimizer is in the middle of a step".into())),
        };
        Ok(f(&mut inner))
    }
}

#[pymethods]
impl CudaWork {
    #[new]
    fn new(device: i32) -> PyResult<CudaWork> {
        let device = Device::get(device).map_err(raised)?;
        Ok(CudaWork(Mutex::new(Inner { work: Work::new(device), rules: Vec::new() })))
    }

    /// Adds a group of arrays, whose values are as many as `values`.
    fn add_group(&self, rule: &str, values: usize, arrays: Vec<Given>) -> PyResult<()> {
        let rule = find_rule(rule, values)?;
        let group = self.locked(|inner| inner.rules.len())?;
        let segment = |(param, param_type, len, own, rows, strided): Given| {
            if own.len() != rule.states.len() {
                return Err(PyTypeError::new_err("states do not fit the rule"));
            }
            let mut states = [std::ptr::null_mut(); MAX_STATES];
            states.iter_mut().zip(own).for_each(|(state, given)| *state = given as *mut u8);
            let param_type = dtype(&param_type)?;
            let center = (rows > 0).then_some(Rows { count: rows, strided });
            let param = param as *mut u8;
            Ok(Segment {
                rule,
                group,
                len,
                param_type,
                param,
                states,
                grad_type: param_type,
                grad: std::ptr::null_mut(),
                center,
                form: Form::default(),
            })
        };
        let segments = arrays.into_iter().map(segment).collect::<PyResult<Vec<_>>>()?;
        self.locked(|inner| {
            inner.rules.push(rule);
            inner.work.extend(segments);
        })
    }

    /// Starts a step: array and flat index of the first gradient that is not finite, for a step that is not taken; and the
    /// norm of the gradients where the host got to know it.
    #[allow(clippy::too_many_arguments)] // what a step needs, spelled out by the one caller
    fn step(
        &self,
        py: Python<'_>,
        values: Vec<Vec<f64>>,
        steps: Vec<u64>,
        grads: Vec<u64>,
        types: Vec<String>,
        grad_scale: f64,
        max_norm: Option<f64>,
        finite: bool,
        after: u8,
        stream: u64,
    ) -> PyResult<Answer> {
        let after = [After::Keep, After::Zero, After::Copy][usize::from(after).min(2)];
        let types = types.iter().map(|name| dtype(name)).collect::<PyResult<Vec<_>>>()?;
        self.locked(|Inner { work, rules }| {
            let arrays = work.segments().len();
            let alike = values.len() == rules.len() && steps.len() == rules.len();
            if !alike || grads.len() != arrays || types.len() != arrays {
                return Err(PyValueError::new_err(
                    "a step needs as many values and gradients as there are groups and arrays",
                ));
            }
            for (i, (grad, dtype)) in grads.into_iter().zip(types).enumerate() {
                work.set_gradient(i, grad as *mut u8, dtype);
            }
            let groups = rules.iter().zip(values.iter().zip(steps));
            let scalars: Vec<Scalars> = groups
                .map(|(rule, (values, t))| GroupValues(values).scalars(rule, t, schuss::unscale_factor(grad_scale)))
                .collect();
            let step = DeviceStep { scalars: &scalars, after, grad_scale, max_norm, finite, stream };
            // SAFETY: the caller answers for the pointers, as this module says.
            match py.detach(|| unsafe { work.run(&step) }).map_err(raised)? {
                Outcome::Taken { norm } => Ok((None, norm)),
                Outcome::NotFinite(place) => Ok((Some(place), None)),
            }
        })?
    }

    /// Sums up the gradients without a step, and waits for it: array and flat index of the first that is not finite, the
    /// norm, and the factor of clipping.
    fn measure(
        &self,
        py: Python<'_>,
        grads: Vec<u64>,
        types: Vec<String>,
        grad_scale: f64,
        max_norm: Option<f64>,
        stream: u64,
    ) -> PyResult<Measured> {
        let types = types.iter().map(|name| dtype(name)).collect::<PyResult<Vec<_>>>()?;
        self.locked(|Inner { work, rules }| {
            if grads.len() != work.segments().len() || types.len() != grads.len() {
                return Err(PyValueError::new_err("there must be as many gradients as there are arrays"));
            }
            for (i, (grad, dtype)) in grads.into_iter().zip(types).enumerate() {
                work.set_gradient(i, grad as *mut u8, dtype);
            }
            let scalars = vec![[0.0; MAX_SCALARS]; rules.len()];
            let step = DeviceStep { scalars: &scalars, after: After::Keep, grad_scale, max_norm, finite: true, stream };
            // SAFETY: the caller answers for the pointers, as this module says.
            py.detach(|| unsafe { work.measure(&step) }).map_err(raised)
        })?
    }

    /// The norm that the last step measured for clipping; waits for it.
    fn norm(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.locked(|inner| py.detach(|| inner.work.norm()))?.map_err(raised)
    }
}

/// Adds all of this to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CudaBlock>()?;
    module.add_class::<CudaEvent>()?;
    module.add_class::<CudaWork>()?;
    module.add_function(wrap_pyfunction!(cuda_driver, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_count, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_device_of, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_nvrtc, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_compile, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_source, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_copy, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_fill, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_stream, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_synchronize, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_order, module)?)
}
