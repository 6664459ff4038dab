//! What Python needs of the GPU: memory, streams, the compiler, and work lists on a device. Arrays are pointers here; Python
//! has checked what lies behind them and keeps it alive.

use std::sync::{Mutex, TryLockError};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use schuss::cuda::source::Unit;
use schuss::cuda::{Block, Device, DeviceStep, Event, Measured, Outcome, Work, nvrtc, stages};
use schuss::rule::Scope;
use schuss::{Array, CompiledRule, Dtype, Matrix, optimizers};

use crate::group::{GroupValues, MatrixShape, find_rule};

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

/// Why a rule or tool does not run on a GPU; None where it does.
#[pyfunction]
fn cuda_refuses(rule: &str) -> PyResult<Option<String>> {
    Ok(stages::check(known(rule)?.rule).err())
}

fn known(rule: &str) -> PyResult<&'static CompiledRule> {
    optimizers::find(rule).ok_or_else(|| PyValueError::new_err(format!("no rule {rule:?}")))
}

/// The sources of a program's kernels: its passes for these types, then its texts over arrays; without those that have no
/// kernel.
#[pyfunction]
fn cuda_source(rule: &str, program: &str, param: &str, grad: &str) -> PyResult<Vec<String>> {
    let rule = known(rule)?.rule;
    let Some(program) = rule.program(program) else {
        return Err(PyValueError::new_err(format!("{} has no program {program:?}", rule.name)));
    };
    stages::check(rule).map_err(raised)?;
    let (rule, program) = (rule.name, program.name);
    let passes = Unit::Passes { rule, program, param: dtype(param)?, grad: dtype(grad)? };
    let units = [passes, Unit::Texts { rule, program }];
    Ok(units.iter().filter(|unit| !unit.kernels().is_empty()).map(Unit::source).collect())
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

/// An array of a work list: the place of its rule among its group's; parameter, dtype, elements; its states in the order of the
/// rule's, without backups and those of scope `all`, those of scope `array` being one float64 each; and the matrix that it is.
type Given = (usize, u64, String, usize, Vec<u64>, Option<MatrixShape>);

/// Array and flat index of the first gradient that is not finite, and the norm of the gradients where the host got to know it.
type Answer = (Option<(usize, usize)>, Option<f64>);

struct Inner {
    work: Work,
    /// The rules of each group, with the group's number.
    entries: Vec<(&'static CompiledRule, usize)>,
    groups: usize,
}

impl Inner {
    fn set_gradients(&mut self, grads: Vec<u64>, types: &[String]) -> PyResult<()> {
        if grads.len() != self.work.arrays().len() || types.len() != grads.len() {
            return Err(PyValueError::new_err("there must be as many gradients as there are arrays"));
        }
        for (i, (grad, name)) in grads.into_iter().zip(types).enumerate() {
            self.work.set_gradient(i, grad as *mut u8, dtype(name)?).map_err(raised)?;
        }
        Ok(())
    }
}

/// An array as the work list has it.
fn array(
    (entry, param, param_type, len, own, matrix): Given,
    rules: &[&'static CompiledRule],
    first: usize,
) -> PyResult<Array> {
    let rule = rules.get(entry).ok_or_else(|| PyValueError::new_err("no such rule"))?;
    let kept = || rule.rule.states.iter().enumerate().filter(|(_, s)| !matches!(s.scope, Scope::Backup | Scope::All));
    if own.len() != kept().count() {
        return Err(PyTypeError::new_err("states do not fit the rule"));
    }
    let mut array = Array::new(rule, first + entry, param as *mut u8, dtype(&param_type)?, len);
    for ((place, _), state) in kept().zip(own) {
        array.states[place] = state as *mut u8;
    }
    array.matrix = matrix.map(|(batch, rows, cols, transposed, interleaved)| Matrix {
        batch,
        rows,
        cols,
        transposed,
        interleaved,
    });
    let whole = |m: Matrix| m.batch * m.rows * m.cols == len && m.interleaved > 0 && m.cols % m.interleaved == 0;
    if array.matrix.is_some_and(|matrix| !whole(matrix)) {
        return Err(PyTypeError::new_err("the matrix does not fit the parameter"));
    }
    Ok(array)
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
        Ok(CudaWork(Mutex::new(Inner { work: Work::new(device), entries: Vec::new(), groups: 0 })))
    }

    /// Adds a group of arrays; its rules are given by name, with how many values each takes at a step.
    fn add_group(&self, rules: Vec<(String, usize)>, arrays: Vec<Given>) -> PyResult<()> {
        let rules = rules.iter().map(|(name, values)| find_rule(name, *values)).collect::<PyResult<Vec<_>>>()?;
        self.locked(|inner| {
            let first = inner.entries.len();
            let arrays = arrays.into_iter().map(|given| array(given, &rules, first)).collect::<PyResult<Vec<_>>>()?;
            inner.work.extend(arrays).map_err(PyTypeError::new_err)?;
            inner.entries.extend(rules.into_iter().map(|rule| (rule, inner.groups)));
            inner.groups += 1;
            Ok(())
        })?
    }

    /// Starts a program: array and flat index of the first gradient that is not finite, for a step that is not taken; and the
    /// norm of the gradients where the host got to know it. `values` are those of each rule of each group, `steps` the number of
    /// this step in each group.
    #[allow(clippy::too_many_arguments)] // what a step needs, spelled out by the one caller
    fn step(
        &self,
        py: Python<'_>,
        program: &str,
        values: Vec<Vec<f64>>,
        steps: Vec<u64>,
        grads: Vec<u64>,
        types: Vec<String>,
        grad_scale: f64,
        max_norm: Option<f64>,
        finite: bool,
        zero_grads: bool,
        stream: u64,
    ) -> PyResult<Answer> {
        self.locked(|inner| {
            let fits = |(values, (rule, _)): (&Vec<f64>, &(&CompiledRule, usize))| {
                values.len() == GroupValues::COMMON + rule.rule.hypers.len()
            };
            let alike = values.len() == inner.entries.len() && steps.len() == inner.groups;
            if !alike || !values.iter().zip(&inner.entries).all(fits) {
                return Err(PyValueError::new_err("a step needs the values of each rule, and a number for each group"));
            }
            inner.set_gradients(grads, &types)?;
            let factor = schuss::unscale_factor(grad_scale);
            let mut scalars = vec![Vec::new(); values.len()];
            let (mut lead, mut largest) = (0, f64::NEG_INFINITY);
            for (i, (values, &(rule, group))) in values.iter().zip(&inner.entries).enumerate() {
                let values = GroupValues(values);
                values.scalars(rule, steps[group], factor, &mut scalars[i]);
                if values.rate() > largest {
                    (lead, largest) = (i, values.rate());
                }
            }
            let step = DeviceStep { scalars: &scalars, zero_grads, grad_scale, max_norm, finite, lead, stream };
            // SAFETY: the caller answers for the pointers, as this module says.
            match py.detach(|| unsafe { inner.work.run(program, &step) }).map_err(raised)? {
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
        self.locked(|inner| {
            inner.set_gradients(grads, &types)?;
            let (scalars, lead, zero_grads, finite) = (&[], 0, false, true);
            let step = DeviceStep { scalars, zero_grads, grad_scale, max_norm, finite, lead, stream };
            // SAFETY: the caller answers for the pointers, as this module says.
            py.detach(|| unsafe { inner.work.measure(&step) }).map_err(raised)
        })?
    }

    /// The states that all arrays share; waits for the last step.
    fn shared(&self, py: Python<'_>) -> PyResult<Vec<f64>> {
        self.locked(|inner| py.detach(|| inner.work.shared()))?.map_err(raised)
    }

    /// Sets the states that all arrays share, which are zeros at first; waits for the last step.
    fn set_shared(&self, py: Python<'_>, values: Vec<f64>) -> PyResult<()> {
        self.locked(|inner| py.detach(|| inner.work.set_shared(&values)))?.map_err(raised)
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
    module.add_function(wrap_pyfunction!(cuda_refuses, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_source, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_copy, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_fill, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_stream, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_synchronize, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_order, module)?)
}
