//! What a group is to the kernels: its values as Python lays them out, its rule, and segments over its arrays.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use schuss::rule::{MAX_STATES, Scalars};
use schuss::{Common, Decay, Dtype, Form, Rows, Rule, Segment, StateType};

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

/// How a group keeps its states, and whether behind them a master copy of the parameter, which is updated in its place.
#[derive(Clone, Copy)]
pub struct Keeping {
    pub states: StateType,
    pub master: bool,
}

impl Keeping {
    pub const PLAIN: Keeping = Keeping { states: StateType::Compute, master: false };

    pub fn new(states: Option<&str>, master: bool) -> PyResult<Keeping> {
        let unknown = || PyValueError::new_err(format!("no state type {states:?}"));
        Ok(Keeping { states: StateType::named(states).ok_or_else(unknown)?, master })
    }

    /// Whether an array is a state of this parameter; states with scales come as one run of float32.
    fn fits(self, state: &Pinned, param: &Pinned) -> bool {
        let compute = param.dtype.compute();
        match self.states {
            StateType::Compute => state.dtype == compute && state.congruent(param),
            StateType::Bf16 => state.dtype == Dtype::Bf16 && state.congruent(param),
            StateType::Int8 => state.dtype == Dtype::F32 && state.len * 4 == self.states.bytes(compute, param.len),
        }
    }
}

/// A segment over a parameter and its state; the gradient is set at each step, centered by so many rows if any.
pub fn segment(
    rule: &'static Rule,
    group: usize,
    param: &Pinned,
    states: &[Pinned],
    keeping: Keeping,
    rows: usize,
) -> PyResult<Segment> {
    let (states, master) =
        if keeping.master { states.split_at(rule.states.len().min(states.len())) } else { (states, &[][..]) };
    let halves = matches!(param.dtype, Dtype::F16 | Dtype::Bf16);
    let copies = |master: &Pinned| halves && master.dtype == Dtype::F32 && master.congruent(param);
    if states.len() != rule.states.len()
        || !states.iter().all(|state| keeping.fits(state, param))
        || master.len() != usize::from(keeping.master)
        || !master.iter().all(copies)
    {
        return Err(PyTypeError::new_err("states do not fit the rule and the parameter"));
    }
    let mut pointers = [std::ptr::null_mut(); MAX_STATES];
    for (pointer, state) in pointers.iter_mut().zip(states) {
        *pointer = state.data;
    }
    let updated = master.first().unwrap_or(param);
    Ok(Segment {
        rule,
        group,
        len: param.len,
        param_type: updated.dtype,
        param: updated.data,
        states: pointers,
        grad_type: param.dtype,
        grad: std::ptr::null_mut(),
        center: (rows > 0).then(|| Rows { count: rows, strided: param.fortran() }),
        form: Form {
            states: keeping.states,
            rounded: keeping.master.then_some((param.dtype, param.data)),
            aside: None,
        },
    })
}

/// Runs `f` without the GIL if it is worth that.
pub fn detach_if<R: Send>(py: Python<'_>, release: bool, f: impl FnOnce() -> R + Send) -> R {
    if release { py.detach(f) } else { f() }
}
