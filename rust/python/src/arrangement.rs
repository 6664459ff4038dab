//! The native state of an optimizer over given groups of arrays, which Python has checked. Runs no step.

use std::sync::Mutex;

use numpy::{PyArray1, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use schuss::WorkList;
use schuss::rule::{Rule, Scope};

use crate::group::{Entry, Format, MatrixShape, array};
use crate::inner::{Inner, MATRIX_PROGRAMS};
use crate::memory::{List, collect, no_memory, push};
use crate::pinned::{self, Pinned};
use crate::sharded::Shards;
use crate::tree::Tree;

/// A group as Python describes it: its rules with their values, then for each array the number of its rule, the array, its
/// states followed by a float32 copy if it has one, and its matrix shape.
type Given<'py> = (
    List<(String, Bound<'py, PyArray1<f64>>)>,
    List<usize>,
    List<Bound<'py, PyUntypedArray>>,
    List<List<Bound<'py, PyUntypedArray>>>,
    List<Option<MatrixShape>>,
);

/// All groups of an optimizer with their arrays, which Python has checked, ready to be set at once.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Arrangement(Mutex<Option<Box<Inner>>>);

#[pymethods]
impl Arrangement {
    /// `shared` are the states of scope `all`, `missed` the numbers of steps that the first arrays have missed; `shards` says how
    /// processes share the arrays.
    #[new]
    #[pyo3(signature = (groups, tree, state_dtype, master, shared, missed, shards=None))]
    fn new(
        groups: List<Given<'_>>,
        tree: &Bound<'_, PyAny>,
        state_dtype: Option<&str>,
        master: bool,
        shared: Option<Bound<'_, PyArray1<f64>>>,
        missed: List<u64>,
        shards: Option<Bound<'_, Shards>>,
    ) -> PyResult<Arrangement> {
        let format = Format::new(state_dtype, master)?;
        let mut inner = Inner::new();
        if let Some(shards) = shards {
            inner.work = WorkList::shared(Shards::peers(shards.as_unbound(), shards.py()));
            inner.shards = Some(shards.unbind());
        }
        let (mut arrays, mut count) = (Vec::new(), 0);
        for (group, (List(rules), List(rule_of), List(params), List(states), List(matrices))) in
            groups.0.into_iter().enumerate()
        {
            if rule_of.len() != params.len() || states.len() != params.len() || matrices.len() != params.len() {
                return Err(PyRuntimeError::new_err("a rule, states and a matrix are needed for each parameter"));
            }
            let first = inner.entries.len();
            for (name, values) in rules {
                let entry = Entry::new(&name, values, group)?;
                count = count.max(entry.rule.rule.states.iter().filter(|state| state.scope == Scope::All).count());
                push(&mut inner.entries, entry)?;
            }
            for (i, param) in params.iter().enumerate() {
                let param = Pinned::new(param)?;
                if inner.shards.as_ref().is_some_and(|shards| !shards.get().is_at(arrays.len(), param.data)) {
                    return Err(PyRuntimeError::new_err("an array has been re-pointed since it was divided"));
                }
                let own = collect(states[i].0.iter().map(Pinned::new))?;
                let place = first + rule_of[i];
                let entry = inner.entries.get(place).ok_or_else(|| PyRuntimeError::new_err("no such rule"))?;
                push(&mut inner.sets.entry_of, place)?;
                let part = inner.shards.as_ref().map(|shards| shards.get().part(arrays.len()));
                push(&mut arrays, array(entry.rule, place, &param, &own, format, matrices[i], part)?)?;
                push(&mut inner.params, param)?;
                schuss::try_extend(&mut inner.states, own).map_err(no_memory)?;
            }
            push(&mut inner.group_steps, 0)?;
        }
        if count > 0 && shared.as_ref().is_none_or(|shared| shared.len() != count) {
            return Err(PyRuntimeError::new_err("the states that all arrays share do not fit the rule"));
        }
        inner.work.extend(arrays).map_err(no_memory)?;
        let any = |found: fn(&Rule) -> bool| inner.entries.iter().any(|entry| found(entry.rule.rule));
        inner.looks_ahead = any(|rule| rule.states.iter().any(|state| state.scope == Scope::Backup));
        inner.multiplies = any(|rule| MATRIX_PROGRAMS.iter().any(|name| rule.program(name).is_some()));
        inner.shared = shared.map(Bound::unbind);
        let missed = missed.0.into_iter().chain(std::iter::repeat(0)).take(inner.params.len());
        let sharing = inner.sharing(missed)?;
        inner.share(sharing);
        if let Some(entry) = inner.entries.iter().find(|_| count > 0) {
            inner.agreed = entry.rule.rule.all_depends_on();
        }
        inner.tree = Tree::new(tree)?;
        inner.block = pinned::block(tree.py(), &inner.params);
        let all = inner.params.iter().chain(&inner.states);
        let ranges = all.map(Pinned::bytes).filter(|range| range.0 < range.1);
        inner.written = schuss::try_collect(ranges).map_err(no_memory)?;
        inner.written.sort_unstable();
        inner.verified = schuss::try_collect(inner.params.iter().map(|_| None)).map_err(no_memory)?;
        Ok(Arrangement(Mutex::new(Some(Box::new(inner)))))
    }
}

impl Arrangement {
    /// The state, once.
    pub fn take(&self) -> Option<Box<Inner>> {
        self.0.try_lock().ok().and_then(|mut arranged| arranged.take())
    }
}
