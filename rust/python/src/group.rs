//! A group of parameters in the kernels' form: its values as Python lays them out, its rules, and its arrays. Knows no step.

use std::collections::{HashMap, TryReserveError};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use schuss::level::{self, Level};
use schuss::rule::{Rule, Scope, State};
use schuss::{Array, Common, CompiledRule, Decay, Dtype, Matrix, StateFormat, optimizers};

use crate::memory::{collect, no_memory};
use crate::pinned::Pinned;

/// Minimum elements of a step for releasing the GIL.
pub const RELEASE_GIL: usize = 16_384;

/// The largest number of steps that a state may have; counters stay there.
pub const MOST_STEPS: u64 = i64::MAX as u64;

/// A rule with the values of a group. A group has one for each rule that its arrays use.
pub struct Entry {
    pub rule: &'static CompiledRule,
    pub values: Py<PyArray1<f64>>,
    /// The group that it belongs to.
    pub group: usize,
}

impl Entry {
    pub fn new(name: &str, values: Bound<'_, PyArray1<f64>>, group: usize) -> PyResult<Entry> {
        let rule = find_rule(name, values.len()?)?;
        Ok(Entry { rule, values: values.unbind(), group })
    }

    pub fn values(&self, py: Python<'_>) -> GroupValues<'_> {
        // SAFETY: Python creates this array, contiguous and float64, writes to it only under the GIL, which is held, and never
        // resizes it.
        GroupValues(unsafe {
            let values = self.values.bind(py);
            std::slice::from_raw_parts(values.data(), values.len().unwrap_or(0))
        })
    }
}

/// The entry of a set of scalars, and the number of missed steps.
type ScalarSet = (usize, u64);

/// Which scalars each array has: arrays of one entry share them if they have missed as many steps for lack of a gradient.
#[derive(Default)]
pub struct ScalarSets {
    /// The entry of each array.
    pub entry_of: Vec<usize>,
    /// First come all entries, with no missed steps.
    pub sets: Vec<ScalarSet>,
}

impl ScalarSets {
    /// The sets for these numbers of missed steps, and the place of each array's among them.
    pub fn formed(&self, entries: usize, missed: &[u64]) -> Result<(Vec<ScalarSet>, Vec<usize>), TryReserveError> {
        let mut sets = schuss::try_collect((0..entries).map(|entry| (entry, 0)))?;
        let (mut places, mut of_arrays) = (HashMap::new(), Vec::new());
        places.try_reserve(entries)?;
        places.extend(sets.iter().enumerate().map(|(place, &set)| (set, place)));
        of_arrays.try_reserve_exact(missed.len())?;
        for set in self.entry_of.iter().copied().zip(missed.iter().copied()) {
            sets.try_reserve(1)?;
            places.try_reserve(1)?;
            of_arrays.push(*places.entry(set).or_insert_with(|| {
                sets.push(set);
                sets.len() - 1
            }));
        }
        Ok((sets, of_arrays))
    }

    /// Fills the scalars of each set for the next step of its entry, for which `of` has the rule, the values and the steps taken.
    /// Of those that may lead it returns the one with the largest learning rate.
    pub fn fill<'a>(
        &self,
        scalars: &mut [Vec<f64>],
        factor: f64,
        of: impl Fn(usize) -> (&'static CompiledRule, GroupValues<'a>, u64),
        may_lead: impl Fn(usize) -> bool,
    ) -> usize {
        let (mut lead, mut largest) = (0, f64::NEG_INFINITY);
        for (i, (&(entry, missed), scalars)) in self.sets.iter().zip(scalars).enumerate() {
            let (rule, values, steps) = of(entry);
            values.scalars(rule, steps.saturating_sub(missed) + 1, factor, scalars);
            if values.rate() > largest && may_lead(i) {
                (lead, largest) = (i, values.rate());
            }
        }
        lead
    }
}

/// Zeros in the place of each set's scalars.
pub fn zeros(sets: &[ScalarSet], rule: impl Fn(usize) -> &'static CompiledRule) -> PyResult<Vec<Vec<f64>>> {
    let of = |&(entry, _): &ScalarSet| schuss::try_collect(rule(entry).rule.scalars.iter().map(|_| 0.0));
    collect(sets.iter().map(|set| of(set).map_err(no_memory)))
}

/// A value that groups do not agree on, with its name: of what a rule's states of scope `all` are computed from, which
/// [`schuss::rule::Rule::all_depends_on`] lists. A learning rate may also be 0.
pub fn disagreement(
    rule: &Rule,
    (hypers, by_rate): &(Vec<usize>, bool),
    values: &[&[f64]],
) -> Option<(&'static str, f64, f64)> {
    /// The first value, and the first other one.
    fn two(mut all: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
        let first = all.next()?;
        all.find(|&other| other != first).map(|other| (first, other))
    }
    let rates = values.iter().map(|values| GroupValues(values).rate()).filter(|&rate| *by_rate && rate != 0.0);
    let named = |name, found: Option<(f64, f64)>| found.map(|(first, other)| (name, first, other));
    let of = |k: usize| values.iter().map(move |values| values[GroupValues::COMMON + k]);
    named("lr", two(rates)).or_else(|| hypers.iter().find_map(|&k| named(rule.hypers[k], two(of(k)))))
}

/// Values: scheduled, lr, initial_lr, weight_decay, decay, maximize, then the rule's hyperparameters.
pub struct GroupValues<'a>(pub &'a [f64]);

impl GroupValues<'_> {
    pub const COMMON: usize = 6;

    pub fn scheduled(&self) -> bool {
        self.0[0] != 0.0
    }

    pub fn rate(&self) -> f64 {
        self.0[1]
    }

    pub fn scalars(&self, rule: &CompiledRule, t: u64, gradient_factor: f64, into: &mut Vec<f64>) {
        let common = Common {
            lr: self.0[1],
            initial_lr: self.0[2],
            weight_decay: self.0[3],
            decay: match self.0[4] {
                1.0 => Decay::Decoupled,
                2.0 => Decay::Independent,
                3.0 => Decay::Own,
                _ => Decay::L2,
            },
            maximize: self.0[5] != 0.0,
        };
        rule.rule.scalars(&common, &self.0[Self::COMMON..], t, gradient_factor, into);
    }
}

pub fn find_rule(name: &str, values: usize) -> PyResult<&'static CompiledRule> {
    let rule = optimizers::find(name).ok_or_else(|| PyValueError::new_err(format!("no rule {name:?}")))?;
    if values != GroupValues::COMMON + rule.rule.hypers.len() {
        return Err(PyValueError::new_err(format!("{name} needs {:?}", rule.rule.hypers)));
    }
    Ok(rule)
}

/// A matrix as Python describes it: batch, rows and columns in memory order, whether rows are columns of the array, and the
/// number of interleaved matrices.
pub type MatrixShape = (usize, usize, usize, bool, usize);

/// A matrix as the driver describes it.
pub fn matrix((batch, rows, cols, transposed, interleaved): MatrixShape) -> Matrix {
    Matrix { batch, rows, cols, transposed, interleaved }
}

/// The matrix shape of an array of `len` elements, which a rule with rows or columns needs.
pub fn matrix_of(rule: &CompiledRule, shape: Option<MatrixShape>, len: usize) -> PyResult<Option<Matrix>> {
    let matrix = shape.map(matrix);
    let fits = |matrix: Matrix| {
        let whole = matrix.interleaved > 0 && matrix.cols.is_multiple_of(matrix.interleaved);
        whole && product([matrix.batch, matrix.rows, matrix.cols]) == Some(len)
    };
    if matrix.map_or(rule.rule.needs_matrix(), |matrix| !fits(matrix)) {
        return Err(PyTypeError::new_err("the matrix does not fit the parameter"));
    }
    Ok(matrix)
}

/// The product; None if that of all factors but zeros is too large for an array.
fn product(factors: [usize; 3]) -> Option<usize> {
    let all = factors.iter().try_fold(1_usize, |product, &factor| product.checked_mul(factor.max(1)))?;
    if factors.contains(&0) { Some(0) } else { Some(all) }
}

/// A group's state format, and whether the states of a parameter of 16 bits are followed by a float32 copy of it, which is updated
/// in its place.
#[derive(Clone, Copy)]
pub struct Format {
    pub states: StateFormat,
    pub master: bool,
}

impl Format {
    pub const PLAIN: Format = Format { states: StateFormat::Compute, master: false };

    pub fn new(states: Option<&str>, master: bool) -> PyResult<Format> {
        let unknown = || PyValueError::new_err(format!("no state type {states:?}"));
        Ok(Format { states: StateFormat::named(states).ok_or_else(unknown)?, master })
    }

    /// Whether an array fits this state of the parameter; an int8 state and its scales share one float32 array.
    fn fits(
        self,
        kind: &State,
        state: &Pinned,
        (param, part): (&Pinned, &Option<Range<usize>>),
        matrix: Option<Matrix>,
    ) -> bool {
        let compute = param.dtype.compute();
        let states = if kind.exact { StateFormat::Compute } else { self.states };
        match (kind.scope, states) {
            (Scope::Element, StateFormat::Compute) => state.dtype == compute && covers(state, param, part),
            (Scope::Element, StateFormat::Bfloat16) => state.dtype == Dtype::Bf16 && covers(state, param, part),
            (Scope::Element, StateFormat::Int8) => {
                state.dtype == Dtype::F32
                    && state.len * 4 == self.states.bytes(compute, part.as_ref().map_or(param.len, Range::len))
            }
            (Scope::Array, _) => state.dtype == Dtype::F64 && state.len == 1,
            (scope, _) => state.dtype == compute && matrix.is_some_and(|matrix| state.len == matrix.vector(scope)),
        }
    }
}

/// Whether a state has the elements of a parameter, or of its part, in its order.
fn covers(state: &Pinned, param: &Pinned, part: &Option<Range<usize>>) -> bool {
    part.as_ref().map_or_else(|| state.congruent(param), |part| state.len == part.len())
}

/// The work list's array of a parameter and its states, which Python gives in the order of the rule's, followed by the float32
/// copy; states that arrays do not own are left out. If processes share the parameter, states have its part. The gradient is set
/// at each step.
pub fn array(
    rule: &'static CompiledRule,
    entry: usize,
    param: &Pinned,
    states: &[Pinned],
    format: Format,
    matrix: Option<MatrixShape>,
    part: Option<Range<usize>>,
) -> PyResult<Array> {
    let wrong = || PyTypeError::new_err("states do not fit the rule and the parameter");
    let matrix = matrix_of(rule, matrix, param.len)?;
    let states_of =
        || rule.rule.states.iter().enumerate().filter(|(_, state)| !matches!(state.scope, Scope::Backup | Scope::All));
    let count = states_of().count();
    let (states, master) = states.split_at(count.min(states.len()));
    let halves = matches!(param.dtype, Dtype::F16 | Dtype::Bf16);
    let copies = |master: &Pinned| master.dtype == Dtype::F32 && covers(master, param, &part);
    if states.len() != count
        || !states_of().zip(states).all(|((_, kind), state)| format.fits(kind, state, (param, &part), matrix))
        || master.len() != usize::from(format.master && halves)
        || !master.iter().all(copies)
    {
        return Err(wrong());
    }
    let updated = master.first().unwrap_or(param);
    let mut array = Array::new(rule, entry, updated.data, updated.dtype, param.len);
    for ((place, _), state) in states_of().zip(states) {
        array.states[place] = state.data;
    }
    array.grad_type = param.dtype;
    array.format = format.states;
    array.rounded = (!master.is_empty()).then_some((param.dtype, param.data));
    array.matrix = matrix;
    array.part = part.unwrap_or(0..param.len);
    Ok(array)
}

/// The CPU level and the number of threads that a step uses.
pub fn level_and_threads() -> PyResult<(Level, usize)> {
    let level = level::in_use().map_err(PyRuntimeError::new_err)?;
    Ok((level, schuss::num_threads().map_err(PyRuntimeError::new_err)?))
}

/// Runs `f`, without the GIL if `release` is set. A panic in it becomes an exception.
pub fn detach_if<R: Send>(py: Python<'_>, release: bool, f: impl FnOnce() -> R + Send) -> PyResult<R> {
    let caught = || catch_unwind(AssertUnwindSafe(f));
    let result = if release { py.detach(caught) } else { caught() };
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        PyRuntimeError::new_err(format!("an internal error of schuss, please report it: {text}"))
    })
}
