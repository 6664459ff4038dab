//! A safe optimizer for Rust programs: a rule, its hyperparameters, and the state of a list of slices.

use crate::level;
use crate::pool;
use crate::rule::{Common, MAX_STATES, Rule};
use crate::segment::{After, Segment};
use crate::small::{Form, Noise};
use crate::storage::Storage;
use crate::worklist::{Step, WorkList};

/// What went wrong; nothing has been changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Error(message)
    }
}

/// An optimizer over slices of `P` (`f32`, `f64`, [`half::f16`] or [`half::bf16`]), with its state.
///
/// ```
/// use schuss::{Common, Optimizer, rules};
///
/// // Minimize (x - 3)^2 with Adam.
/// let mut x = [0.0f32];
/// let hypers = [("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8), ("bias_correction", 1.0), ("keras_eps", 0.0)];
/// let mut adam = Optimizer::new(rules::adam::adam(), &hypers, Common { lr: 0.1, ..Common::default() })?;
/// for _ in 0..500 {
///     let gradient = [2.0 * (x[0] - 3.0)];
///     adam.step(&mut [&mut x], &[&gradient])?;
/// }
/// assert!((x[0] - 3.0).abs() < 1e-2);
/// # Ok::<(), schuss::Error>(())
/// ```
pub struct Optimizer<P: Storage> {
    /// Learning rate and the other hyperparameters that every rule has; may be changed between steps.
    pub common: Common,
    rule: &'static Rule,
    hypers: Vec<f64>,
    /// By array, then by state, in the order of [`Rule::states`].
    states: Vec<Vec<Vec<P::Compute>>>,
    steps: u64,
}

impl<P: Storage> Optimizer<P> {
    /// An optimizer with zero state, which is made at the first step.
    ///
    /// # Errors
    /// A hyperparameter of the rule is missing or unknown: the message lists those it has.
    pub fn new(rule: &'static Rule, hypers: &[(&str, f64)], common: Common) -> Result<Self, Error> {
        let values: Option<Vec<f64>> = rule
            .hypers
            .iter()
            .map(|name| hypers.iter().find(|(given, _)| given == name).map(|&(_, value)| value))
            .collect();
        match values {
            Some(values) if values.len() == hypers.len() => {
                Ok(Optimizer { common, rule, hypers: values, states: Vec::new(), steps: 0 })
            }
            _ => Err(Error(format!("{} takes the hyperparameters {:?}, each once", rule.name, rule.hypers))),
        }
    }

    /// Updates the parameters in place. The lists must have the lengths of the first step's.
    ///
    /// # Errors
    /// The lists or their slices have other lengths than before or than each other, or the environment asks for a CPU
    /// level that this machine lacks.
    pub fn step<G>(&mut self, params: &mut [&mut [P]], grads: &[&[G]]) -> Result<(), Error>
    where
        G: Storage,
    {
        let (level, threads) = (level::in_use()?, pool::num_threads()?);
        if params.len() != grads.len() {
            return Err(Error(format!("{} parameters but {} gradients", params.len(), grads.len())));
        }
        for (i, (p, g)) in params.iter().zip(grads).enumerate() {
            if p.len() != g.len() {
                return Err(Error(format!("parameter {i} has {} elements, its gradient {}", p.len(), g.len())));
            }
        }
        if self.steps > 0 {
            let mut before = self.states.iter().flat_map(|s| s.first()).map(Vec::len);
            let same = self.states.len() == params.len()
                && (self.rule.states.is_empty() || params.iter().all(|p| before.next() == Some(p.len())));
            if !same {
                return Err(Error("the parameters have other lengths than at the first step".into()));
            }
        } else {
            let zero = <P::Compute as crate::math::Real>::from_f64(0.0);
            let states = |p: &&mut [P]| vec![vec![zero; p.len()]; self.rule.states.len()];
            self.states = params.iter().map(states).collect();
        }
        let mut work = WorkList::default();
        work.extend(params.iter_mut().zip(grads).zip(&mut self.states).map(|((param, grad), own)| {
            let mut states = [std::ptr::null_mut(); MAX_STATES];
            for (pointer, state) in states.iter_mut().zip(own) {
                *pointer = state.as_mut_ptr().cast();
            }
            Segment {
                rule: self.rule,
                group: 0,
                len: param.len(),
                param_type: <P as Storage>::DTYPE,
                param: param.as_mut_ptr().cast(),
                states,
                grad_type: G::DTYPE,
                grad: grad.as_ptr().cast_mut().cast(),
                center: None,
                form: Form::default(),
            }
        }));
        let scalars = self.rule.scalars(&self.common, &self.hypers, self.steps + 1, 1.0);
        // SAFETY: slices of checked lengths, the mutable ones exclusively borrowed; gradients are not written.
        unsafe { work.run(&Step { level, threads, scalars: &[scalars], after: After::Keep, noise: &Noise::Nearest }) };
        self.steps += 1;
        Ok(())
    }
}
