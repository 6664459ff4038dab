//! What a group is to the kernels: its values as Python lays them out, its rule, and segments over its arrays.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use schuss::rule::{MAX_STATES, Scalars};
use schuss::{Common, Decay, Rows, Rule, Segment};

use crate::arrays::Pinned;

/// Elements from which a step is long enough to let other Python threads run.
pub const RELEASE_GIL: usize = 16_384;

/// A group's values: scheduled, lr, initial_lr, weight_decay, decay, maximize, then the rule's hyperparameters.
pub struct GroupValues<'a>(pub &'a [f64]);

impl GroupValues<'_> {
    pub const COMMON: usize = 6;

    pub fn scheduled(&self) -> bool {
        self.0[0] != 0.0
    }

    pub fn scalars(&self, rule: &Rule, t: u64, gradient_factor: f64) -> Scalars {
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
        rule.scalars(&common, &self.0[Self::COMMON..], t, gradient_factor)
    }
}

pub fn find_rule(name: &str, values: usize) -> PyResult<&'static Rule> {
    let rule = schuss::rules::find(name).ok_or_else(|| PyValueError::new_err(format!("no rule {name:?}")))?;
    if values != GroupValues::COMMON + rule.hypers.len() {
        return Err(PyValueError::new_err(format!("{name} needs {:?}", rule.hypers)));
    }
    Ok(rule)
}

/// A segment over a parameter and its state; the gradient is set at each step, centered by so many rows if any.
pub fn segment(rule: &'static Rule, group: usize, param: &Pinned, states: &[Pinned], rows: usize) -> PyResult<Segment> {
    let fits = |state: &Pinned| state.dtype == param.dtype.compute() && state.congruent(param);
    if states.len() != rule.states.len() || !states.iter().all(fits) {
        return Err(PyTypeError::new_err("states do not fit the rule and the parameter"));
    }
    let mut pointers = [std::ptr::null_mut(); MAX_STATES];
    for (pointer, state) in pointers.iter_mut().zip(states) {
        *pointer = state.data;
    }
    Ok(Segment {
        rule,
        group,
        len: param.len,
        param_type: param.dtype,
        param: param.data,
        states: pointers,
        grad_type: param.dtype,
        grad: std::ptr::null_mut(),
        center: (rows > 0).then(|| Rows { count: rows, strided: param.fortran() }),
    })
}

/// Runs `f` without the GIL if it is worth that.
pub fn detach_if<R: Send>(py: Python<'_>, release: bool, f: impl FnOnce() -> R + Send) -> R {
    if release { py.detach(f) } else { f() }
}
