//! A safe optimizer for Rust programs: a rule, its hyperparameters, and the state of a list of slices. Knows no Python and no
//! GPU.

use std::collections::TryReserveError;

use crate::cpu::level;
use crate::exec::{Array, Step, WorkList, num_threads};
use crate::kernel::CompiledRule;
use crate::memory::try_box;
use crate::numeric::{Real, Storage};
use crate::rule::{Common, Initial, Scope, State};

/// Why a call failed; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<TryReserveError> for Error {
    fn from(error: TryReserveError) -> Self {
        Error(error.to_string())
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Error(message)
    }
}

/// An optimizer over slices of `P` (`f32`, `f64`, [`half::f16`] or [`half::bf16`]), with its state.
///
/// ```
/// use schuss::{Common, Optimizer, optimizers};
///
/// // Minimize (x - 3)^2 with Adagrad.
/// let mut x = [0.0f32];
/// let hypers = [("lr_decay", 0.0), ("eps", 1e-10), ("eps_inside_sqrt", 0.0), ("initial_accumulator_value", 0.0)];
/// let mut adagrad = Optimizer::new(optimizers::adagrad::adagrad(), &hypers, Common { lr: 0.5, ..Common::default() })?;
/// for _ in 0..500 {
///     let gradient = [2.0 * (x[0] - 3.0)];
///     adagrad.step(&mut [&mut x], &[&gradient])?;
/// }
/// assert!((x[0] - 3.0).abs() < 1e-2);
/// # Ok::<(), schuss::Error>(())
/// ```
pub struct Optimizer<P: Storage> {
    /// Learning rate and the other hyperparameters common to all rules; may be changed between steps.
    pub common: Common,
    rule: &'static CompiledRule,
    hypers: Vec<f64>,
    /// By array, then by state, in the order of the rule's states; those of scope `all` are stored separately.
    states: Vec<Vec<Kept<P::Compute>>>,
    shared: Vec<f64>,
    scalars: Vec<Vec<f64>>,
    steps: u64,
}

/// One state of an array.
enum Kept<C> {
    Elements(Vec<C>),
    Number(Box<f64>),
}

impl<P: Storage> Optimizer<P> {
    /// Creates an optimizer; its state is created at the first step.
    ///
    /// # Errors
    /// A hyperparameter of the rule is missing or unknown; the message lists the known ones. Or slices are not enough: the rule
    /// needs matrices, which have a shape, a backup, a program before the step, or it has no step.
    pub fn new(rule: &'static CompiledRule, hypers: &[(&str, f64)], common: Common) -> Result<Self, Error> {
        let descriptor = rule.rule;
        let prepared = |state: &State| state.scope == Scope::Backup || state.scratch;
        if descriptor.needs_matrix() || descriptor.program("step").is_none() || descriptor.states.iter().any(prepared) {
            return Err(Error(format!("{} needs more than slices; use WorkList", descriptor.name)));
        }
        let value = |name: &&str| hypers.iter().find(|(given, _)| given == name).map(|&(_, value)| value);
        let values: Option<Vec<f64>> = descriptor.hypers.iter().map(value).collect();
        let Some(values) = values.filter(|values| values.len() == hypers.len()) else {
            let names = descriptor.hypers;
            return Err(Error(format!("{} takes the hyperparameters {names:?}, each once", descriptor.name)));
        };
        let first = |state: &&State| state.scope == Scope::All;
        let mut made = Optimizer {
            common,
            rule,
            hypers: values,
            states: Vec::new(),
            shared: Vec::new(),
            scalars: vec![Vec::new()],
            steps: 0,
        };
        made.shared = descriptor.states.iter().filter(first).map(|state| made.initial(state, 0.0)).collect();
        Ok(made)
    }

    /// The initial value of a state, where the parameter is `p`.
    fn initial(&self, state: &State, p: f64) -> f64 {
        match state.initial {
            Initial::Number(x) => x,
            Initial::Hyper(name) => {
                let place = self.rule.rule.hypers.iter().position(|&hyper| hyper == name);
                self.hypers[place.expect("the macro has looked it up")]
            }
            Initial::Param => p,
        }
    }

    fn first_states(&self, param: &[P]) -> Result<Vec<Kept<P::Compute>>, TryReserveError> {
        let one = |state: &State| -> Result<_, TryReserveError> {
            if state.scope != Scope::Element {
                return Ok(Kept::Number(try_box(self.initial(state, 0.0))?));
            }
            let mut values = Vec::new();
            values.try_reserve_exact(param.len())?;
            match state.initial {
                Initial::Param => values.extend(param.iter().map(|p| p.load())),
                _ => values.resize(param.len(), P::Compute::from_f64(self.initial(state, 0.0))),
            }
            Ok(Kept::Elements(values))
        };
        let mut states = Vec::new();
        states.try_reserve_exact(self.rule.rule.states.len())?;
        for state in self.rule.rule.states {
            states.push(one(state)?);
        }
        Ok(states)
    }

    /// Updates the parameters in place. The lists must have the same lengths as at the first step.
    ///
    /// # Errors
    /// The lists or their slices differ in length from the first step or from each other, there is not enough memory, or the
    /// environment asks for a CPU level that this machine lacks, or for what is no number of threads.
    pub fn step<G>(&mut self, params: &mut [&mut [P]], grads: &[&[G]]) -> Result<(), Error>
    where
        G: Storage,
    {
        let (level, threads) = (level::in_use()?, num_threads()?);
        if params.len() != grads.len() {
            return Err(Error(format!("{} parameters but {} gradients", params.len(), grads.len())));
        }
        for (i, (p, g)) in params.iter().zip(grads).enumerate() {
            if p.len() != g.len() {
                return Err(Error(format!("parameter {i} has {} elements, its gradient {}", p.len(), g.len())));
            }
        }
        if self.steps == 0 {
            let mut states = Vec::new();
            states.try_reserve_exact(params.len())?;
            for param in params.iter() {
                states.push(self.first_states(param)?);
            }
            self.states = states;
        }
        let fits = |(states, param): (&Vec<Kept<_>>, &&mut [P])| {
            states.iter().all(|state| !matches!(state, Kept::Elements(x) if x.len() != param.len()))
        };
        if self.states.len() != params.len() || !self.states.iter().zip(params.iter()).all(fits) {
            return Err(Error("the parameters have other lengths than at the first step".into()));
        }
        let mut work = WorkList::default();
        work.extend(params.iter_mut().zip(grads).zip(&mut self.states).map(|((param, grad), own)| {
            let mut array = Array::new(self.rule, 0, param.as_mut_ptr().cast(), <P as Storage>::DTYPE, param.len());
            for (pointer, state) in array.states.iter_mut().zip(own) {
                *pointer = match state {
                    Kept::Elements(values) => values.as_mut_ptr().cast(),
                    Kept::Number(value) => std::ptr::from_mut(&mut **value).cast(),
                };
            }
            (array.grad_type, array.grad) = (G::DTYPE, grad.as_ptr().cast_mut().cast());
            array
        }))?;
        self.rule.rule.scalars(&self.common, &self.hypers, self.steps + 1, 1.0, &mut self.scalars[0]);
        let mut step = Step { shared: &mut self.shared, ..Step::new(level, threads, &mut self.scalars) };
        // SAFETY: slices of checked lengths, the mutable ones exclusively borrowed; gradients are not written.
        unsafe { work.run("step", &mut step) };
        self.steps += 1;
        Ok(())
    }
}
