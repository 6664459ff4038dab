//! An optimizer's arrays on a GPU, for Python. Arrays are pointers here; Python has checked their memory and keeps it alive. Knows
//! no optimizer class.

mod device;

use std::sync::{Mutex, TryLockError};

use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use schuss::cuda::{Device, DeviceStep, Error, Measured, Outcome, Work};
use schuss::rule::Scope;
use schuss::{Array, CompiledRule, Dtype};

use crate::changes::Changes;
use crate::core::Core;
use crate::group::{GroupValues, MatrixShape, ScalarSets, disagreement, find_rule, matrix_of, zeros};
use crate::memory::{List, collect, no_memory};

const DTYPES: [(&str, Dtype); 4] =
    [("float32", Dtype::F32), ("float64", Dtype::F64), ("float16", Dtype::F16), ("bfloat16", Dtype::Bf16)];

fn dtype(name: &str) -> PyResult<Dtype> {
    let found = DTYPES.iter().find(|(known, _)| *known == name);
    found.map(|&(_, dtype)| dtype).ok_or_else(|| PyTypeError::new_err(format!("no dtype {name}")))
}

fn raised(error: impl Into<Error>) -> PyErr {
    match error.into() {
        Error::Memory(message) => PyMemoryError::new_err(message),
        Error::Other(message) => PyRuntimeError::new_err(message),
    }
}

/// An array: the number of its rule in its group, parameter, dtype, elements, states, and its matrix if the rule needs one.
type Given<'py> = (usize, u64, Bound<'py, PyString>, usize, List<u64>, Option<MatrixShape>);

struct Inner {
    work: Work,
    /// Each rule of each group.
    rules: Vec<&'static CompiledRule>,
    sets: ScalarSets,
}

impl Inner {
    fn set_gradients(
        &mut self,
        py: Python<'_>,
        List(grads): List<u64>,
        types: &List<Bound<'_, PyString>>,
    ) -> PyResult<()> {
        let known = |name: &Bound<'_, PyString>| match name.to_str()? {
            "" => Ok(None),
            name => dtype(name).map(Some),
        };
        let types = collect(types.0.iter().map(known))?;
        if grads.len() != self.work.arrays().len() || types.len() != grads.len() {
            return Err(PyValueError::new_err("there must be as many gradients as there are arrays"));
        }
        // Without the GIL: this may wait for the device, and its work may wait for other Python threads.
        let set = |(i, (grad, dtype)): (usize, (u64, Option<Dtype>))| match dtype {
            Some(dtype) => self.work.set_gradient(i, grad as *mut u8, dtype),
            None => self.work.set_absent(i),
        };
        py.detach(|| grads.into_iter().zip(types).enumerate().try_for_each(set)).map_err(raised)
    }
}

/// The arrays of an optimizer on a device.
#[pyclass(frozen, module = "schuss._schuss")]
struct CudaWork(Mutex<Inner>);

impl CudaWork {
    fn locked<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> PyResult<T> {
        let mut inner = match self.0.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(raised("this optimizer is in the middle of a step")),
        };
        Ok(f(&mut inner))
    }
}

#[pymethods]
impl CudaWork {
    #[new]
    fn new(device: i32) -> PyResult<CudaWork> {
        let device = Device::get(device).map_err(raised)?;
        Ok(CudaWork(Mutex::new(Inner { work: Work::new(device), rules: Vec::new(), sets: ScalarSets::default() })))
    }

    /// Adds a group of arrays, with the names of its rules and how many values each has.
    fn add_group(&self, rules: List<(String, usize)>, arrays: List<Given<'_>>) -> PyResult<()> {
        let rules = collect(rules.0.iter().map(|(name, values)| find_rule(name, *values)))?;
        self.locked(|inner| {
            let first = inner.rules.len();
            let array = |(rule_of, param, param_type, len, List(own), matrix): Given<'_>| {
                let wrong = || PyTypeError::new_err("states do not fit the rule");
                let rule = *rules.get(rule_of).ok_or_else(wrong)?;
                let kept = |scope: Scope| !matches!(scope, Scope::Backup | Scope::All);
                let places = || (0..rule.rule.states.len()).filter(|&k| kept(rule.rule.states[k].scope));
                if own.len() != places().count() {
                    return Err(wrong());
                }
                let mut array = Array::new(rule, first + rule_of, param as *mut u8, dtype(param_type.to_str()?)?, len);
                places().zip(own).for_each(|(place, state)| array.states[place] = state as *mut u8);
                array.matrix = matrix_of(rule, matrix, len)?;
                Ok(array)
            };
            let arrays = collect(arrays.0.into_iter().map(array))?;
            let mut entries = schuss::try_collect(arrays.iter().map(|array| array.group)).map_err(no_memory)?;
            inner.sets.entry_of.try_reserve(entries.len()).map_err(no_memory)?;
            inner.rules.try_reserve(rules.len()).map_err(no_memory)?;
            inner.work.extend(arrays).map_err(|error| match error {
                Error::Other(message) => PyTypeError::new_err(message),
                error => raised(error),
            })?;
            inner.sets.entry_of.append(&mut entries);
            inner.rules.extend(&rules);
            Ok(())
        })?
    }

    /// Adds a group, given as for [`CudaWork::add_group`], when it is set.
    #[setter(_added)]
    fn set_added(&self, group: (List<(String, usize)>, List<Given<'_>>)) -> PyResult<()> {
        self.add_group(group.0, group.1)
    }

    /// What groups with these values do not agree on, although states that they share are computed from it.
    fn disagreement(&self, values: List<List<f64>>) -> PyResult<Option<(&'static str, f64, f64)>> {
        let values = schuss::try_collect(values.0.iter().map(|values| &values.0[..])).map_err(no_memory)?;
        self.locked(|inner| {
            inner.rules.first().and_then(|rule| disagreement(rule.rule, &rule.rule.all_depends_on(), &values))
        })
    }

    /// Starts a step, or another program, and makes the changes `taken` and those that wait for a step of the owner. If the step is
    /// skipped, nothing changes, and it returns array and flat index of the first gradient that is not finite, and the norm. Values
    /// and step counts are those of each rule of each group; `missed` is how many of these steps each array has missed, none if it
    /// is empty. An array whose gradient has the type "" has no gradient.
    #[pyo3(signature = (program, values, steps, missed, grads, types, grad_scale, max_norm, finite, tracked, zero_grads, stream, taken=None, owner=None))]
    #[allow(clippy::too_many_arguments)] // the settings of a step
    fn step(
        &self,
        py: Python<'_>,
        program: &str,
        values: List<List<f64>>,
        steps: List<u64>,
        missed: List<u64>,
        grads: List<u64>,
        types: List<Bound<'_, PyString>>,
        grad_scale: f64,
        max_norm: Option<f64>,
        finite: bool,
        tracked: bool,
        zero_grads: bool,
        stream: u64,
        taken: Option<Py<Changes>>,
        owner: Option<Py<Core>>,
    ) -> PyResult<Option<(usize, usize, f64)>> {
        let (List(values), List(steps), List(missed)) = (values, steps, missed);
        self.locked(|inner| {
            if values.len() != inner.rules.len() || steps.len() != inner.rules.len() {
                return Err(PyValueError::new_err("a step needs values for each rule"));
            }
            inner.set_gradients(py, grads, &types)?;
            let missed = (0..inner.sets.entry_of.len()).map(|i| missed.get(i).copied().unwrap_or(0));
            let missed = schuss::try_collect(missed).map_err(no_memory)?;
            let (sets, groups) = inner.sets.formed(values.len(), &missed).map_err(no_memory)?;
            inner.sets.sets = sets;
            py.detach(|| inner.work.set_groups(&groups)).map_err(raised)?;
            let mut present = schuss::try_collect(inner.sets.sets.iter().map(|_| false)).map_err(no_memory)?;
            let with_gradient = groups.iter().enumerate().filter(|(i, _)| !inner.work.is_absent(*i));
            with_gradient.for_each(|(_, &group)| present[group] = true);
            let mut scalars = zeros(&inner.sets.sets, |entry| inner.rules[entry])?;
            let of = |entry: usize| (inner.rules[entry], GroupValues(&values[entry].0), steps[entry].saturating_sub(1));
            let lead = inner.sets.fill(&mut scalars, schuss::unscale_factor(grad_scale), of, |i| present[i]);
            let step =
                DeviceStep { scalars: &scalars, zero_grads, grad_scale, max_norm, finite, tracked, lead, stream };
            // SAFETY: the caller guarantees the pointers, as this module's documentation says.
            match py.detach(|| unsafe { inner.work.run(program, &step) }).map_err(raised)? {
                Outcome::Taken => Ok(None),
                Outcome::NotFinite { place: (i, at), norm } => Ok(Some((i, at, norm))),
            }
        })?
        .and_then(|skipped| {
            if skipped.is_none() {
                taken.iter().try_for_each(|changes| changes.get().make(py))?;
                let waiting = owner.iter().flat_map(|owner| owner.get().0.waiting.take());
                waiting.into_iter().try_for_each(|changes| changes.get().make(py))?;
            }
            Ok(skipped)
        })
    }

    /// Measures the gradients without a step, and waits for the result: array and flat index of the first that is not finite,
    /// the norm, and the clipping factor.
    fn measure(
        &self,
        py: Python<'_>,
        grads: List<u64>,
        types: List<Bound<'_, PyString>>,
        grad_scale: f64,
        max_norm: Option<f64>,
        stream: u64,
    ) -> PyResult<Measured> {
        self.locked(|inner| {
            inner.set_gradients(py, grads, &types)?;
            let step = DeviceStep {
                scalars: &[],
                zero_grads: false,
                grad_scale,
                max_norm,
                finite: true,
                tracked: true,
                lead: 0,
                stream,
            };
            // SAFETY: the caller guarantees the pointers, as this module's documentation says.
            py.detach(|| unsafe { inner.work.measure(&step) }).map_err(raised)
        })?
    }

    /// Records the end of the work in this stream so far. Later work on these arrays waits for it, in any stream.
    fn mark(&self, stream: u64) -> PyResult<()> {
        self.locked(|inner| inner.work.mark(stream))?.map_err(raised)
    }

    /// Makes a stream wait for the end that was recorded last; a step records its own.
    fn hold(&self, stream: u64) -> PyResult<()> {
        self.locked(|inner| inner.work.hold(stream))?.map_err(raised)
    }

    /// The states of scope `all`; waits for the last step.
    fn shared(&self, py: Python<'_>) -> PyResult<Vec<f64>> {
        self.locked(|inner| py.detach(|| inner.work.shared()))?.map_err(raised)
    }

    /// Sets the states of scope `all`, which are initially zero; waits for the last step.
    fn set_shared(&self, py: Python<'_>, values: List<f64>) -> PyResult<()> {
        self.locked(|inner| py.detach(|| inner.work.set_shared(&values.0)))?.map_err(raised)
    }

    /// The norm that the last step measured for clipping; waits for it.
    fn norm(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.locked(|inner| py.detach(|| inner.work.norm()))?.map_err(raised)
    }
}

/// Registers these functions and classes in the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    device::add_to(module)?;
    module.add_class::<CudaWork>()
}
