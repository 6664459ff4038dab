//! Rules as data, which the macro `rules!` makes from their source. Knows no kernel, driver or optimizer.
//!
//! A rule has programs, a program has stages. A pass states what happens to one element, and may feed reductions; stages
//! between passes run once for each row, column or array, or once for all arrays. Every value has a scope.

mod scalars;
mod tree;

pub use scalars::{Common, DECAY, Decay, L2, PROLOGUE, PROLOGUE_NAMES, PROLOGUE_SCALARS, no_text, unscale_factor};
pub use tree::{Expr, Statement};

/// An optimizer rule, as drivers, bindings and the documentation see it.
pub struct Rule {
    /// Its name, in snake case.
    pub name: &'static str,
    /// Names of its hyperparameters besides [`Common`], in the order of the values given to [`Rule::scalars`].
    pub hypers: &'static [&'static str],
    /// The name of the learning rate in `each_step`.
    pub rate: &'static str,
    /// Its states, in order.
    pub states: &'static [State],
    /// Names of its float64 scalars, in order: the prologue's, those of `each_step`, then of scope `all` and `array`.
    pub scalars: &'static [&'static str],
    /// The index of the first scalar of scope `array`.
    pub array_scalars: usize,
    /// Names of its vectors with one number per row, states first.
    pub rows: &'static [&'static str],
    /// Names of its vectors with one number per column, states first.
    pub cols: &'static [&'static str],
    /// The statements that run once a step, in float64.
    pub each_step: &'static [Statement],
    /// The statements of `each_step` as a function that fills scalars.
    pub(crate) host: fn(&Common, &[f64], f64, &mut [f64]),
    /// Its programs; the first is `step`.
    pub programs: &'static [Program],
}

/// The scope of a value: there is one value for each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An element of an array.
    Element,
    /// A copy of the parameter in its own type, which checkpoints leave out.
    Backup,
    /// A row of the last two axes.
    Row,
    /// A column of the last two axes.
    Col,
    /// The matrix of the last two axes; leading axes are a batch of them.
    Matrix,
    /// An array.
    Array,
    /// All arrays of an optimizer.
    All,
}

impl Scope {
    /// The keyword for it in a rule.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Element => "element",
            Scope::Backup => "backup",
            Scope::Row => "row",
            Scope::Col => "col",
            Scope::Matrix => "matrix",
            Scope::Array => "array",
            Scope::All => "all",
        }
    }

    /// Whether kernels access it as a stream of elements.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Scope::Element | Scope::Backup)
    }
}

/// A state of a rule.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Its name.
    pub name: &'static str,
    /// Its scope: there is one of it for each of these.
    pub scope: Scope,
    /// Whether it is never negative.
    pub nonnegative: bool,
    /// Whether it is never quantized, because small changes of it matter.
    pub exact: bool,
    /// Whether it lives for one step only: programs before the step leave in it what matrix products then change.
    pub scratch: bool,
    /// Its initial value.
    pub initial: Initial,
    /// The index among the rule's scalars of a state of scope `array` or `all`.
    pub scalar: Option<usize>,
}

/// The initial value of a state.
#[derive(Clone, Copy, Debug)]
pub enum Initial {
    /// A number.
    Number(f64),
    /// The value of a hyperparameter.
    Hyper(&'static str),
    /// A copy of the parameter.
    Param,
}

/// A named list of stages: `step`, `look_ahead`, `sync`.
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its stages, in order.
    pub stages: &'static [Stage],
}

/// One stage of a program.
pub struct Stage {
    /// What it runs once for.
    pub kind: Kind,
    /// Its statements.
    pub statements: &'static [Statement],
    /// The reductions at its end.
    pub reductions: &'static [Reduction],
    /// For a stage over an array or all arrays: its statements as a function over the rule's scalars.
    pub(crate) text: fn(&mut [f64]),
}

/// What a stage runs once for.
pub enum Kind {
    /// Every element.
    Pass(Pass),
    /// A stage over rows or columns.
    Vector {
        /// `Row` or `Col`.
        scope: Scope,
        /// The index among the rule's vector kernels.
        kernel: usize,
    },
    /// `Array` or `All`.
    Text(Scope),
}

/// What a pass reads and writes.
pub struct Pass {
    /// The index among the rule's kernels.
    pub kernel: usize,
    /// The index among those for elements of one row, which add up all reductions.
    pub row_kernel: Option<usize>,
    /// Whether it reads the parameter.
    pub reads_param: bool,
    /// Whether it writes the parameter.
    pub writes_param: bool,
    /// Whether it reads the gradient.
    pub reads_grad: bool,
    /// Whether it reads the gradient as it is in memory.
    pub raw: bool,
    /// Whether it saves the parameter to a backup first.
    pub saves: bool,
    /// Whether it restores the parameter from a backup.
    pub restores: bool,
    /// Which element states and backups it reads: a bit mask, in order.
    pub reads: u32,
    /// Which of them it writes.
    pub writes: u32,
    /// The row and column vectors that it reads, in stream order.
    pub operands: &'static [Operand],
    /// Number of streams of terms that it writes for its reductions.
    pub tiles: usize,
    /// The term of an earlier pass that it can reuse instead of computing it again.
    pub recalls: Option<Recall>,
}

/// A term of an earlier pass that a pass can reuse.
pub struct Recall {
    /// The earlier pass's tile with it.
    pub tile: usize,
    /// The pass that reuses it: the same one with the next kernel.
    pub pass: &'static Pass,
}

/// A row or column vector that a pass reads.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// `Row` or `Col`.
    pub scope: Scope,
    /// The index among the rule's vectors of this scope.
    pub place: usize,
    /// Its name.
    pub name: &'static str,
}

/// The operation of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A sum in float64.
    Sum,
    /// A sum with float32 lanes inside a block, if the compute type is float32.
    FastSum,
    /// A mean: a sum in float64, divided by the count.
    Mean,
    /// The largest value; NaN if there is one.
    Max,
}

/// A number computed from all elements of a row, column, matrix or array, or of all arrays.
pub struct Reduction {
    /// The operation.
    pub operation: Operation,
    /// Its scope.
    pub scope: Scope,
    /// Its name.
    pub name: &'static str,
    /// The index of its result among the rule's scalars, or among its row or column vectors.
    pub place: usize,
    /// Whether the kernel of the pass adds it up; else it is reduced from memory.
    pub(crate) fused: bool,
    pub(crate) left: Factor,
    pub(crate) right: Right,
    /// The expression for one element's value.
    pub value: Expr,
}

/// A factor of a reduction's value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor {
    /// The tile into which the kernel writes it.
    pub tile: usize,
    /// The stream that already holds it, if any.
    pub memory: Option<Stream>,
    /// Whether that stream holds it only while gradients are not scaled.
    pub unscaled: bool,
}

/// The second factor of a reduction's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Right {
    /// There is none.
    None,
    /// The first factor again: a square.
    Same,
    /// Another one.
    Factor(Factor),
}

/// A stream that every rule has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The parameter.
    Param,
    /// The gradient.
    Grad,
}

impl Rule {
    /// The program of this name.
    pub fn program(&self, name: &str) -> Option<&'static Program> {
        self.programs.iter().find(|program| program.name == name)
    }

    /// The stages of all its programs, in order.
    pub fn stages(&self) -> impl Iterator<Item = &'static Stage> + use<> {
        self.programs.iter().flat_map(|program| program.stages)
    }

    /// The states that kernels have as streams, with their indices among all states.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (usize, &'static State)> + use<> {
        self.states.iter().enumerate().filter(|(_, state)| state.scope.is_stream())
    }

    /// The states of this scope, with their indices among all states.
    pub(crate) fn states_of(&self, scope: Scope) -> impl Iterator<Item = (usize, &'static State)> + use<> {
        self.states.iter().enumerate().filter(move |(_, state)| state.scope == scope)
    }

    /// What the states of scope `all` are computed from: the indices of hyperparameters, without those that only `each_step`
    /// reads, and whether they depend on the learning rate.
    pub fn all_depends_on(&self) -> (Vec<usize>, bool) {
        let mut names = Vec::new();
        for (_, state) in self.states_of(Scope::All) {
            names.push(state.name);
            if let Initial::Hyper(name) = state.initial {
                names.push(name);
            }
        }
        let texts = self.stages().filter(|stage| matches!(stage.kind, Kind::Text(Scope::All)));
        let statements: Vec<&Statement> = texts.flat_map(|stage| stage.statements).collect();
        add_sources(&mut names, &statements);
        let hypers = self.hypers.iter().enumerate().filter(|(_, name)| names.contains(name)).map(|(k, _)| k).collect();
        add_sources(&mut names, &self.each_step.iter().collect::<Vec<_>>());
        (hypers, names.contains(&self.rate))
    }

    /// Whether its step reads gradients.
    pub fn reads_gradient(&self) -> bool {
        self.programs[0].reads_gradient()
    }

    /// Whether its step is one pass, so that parts of an array can be updated separately.
    pub fn is_elementwise(&self) -> bool {
        let [stage] = self.programs[0].stages else { return false };
        matches!(stage.kind, Kind::Pass(_)) && stage.reductions.is_empty()
    }

    /// Whether an array's update depends on the other arrays.
    pub fn is_joint(&self) -> bool {
        self.stages().any(|stage| stage.reductions.iter().any(|reduction| reduction.scope == Scope::All))
            || self.states_of(Scope::All).next().is_some()
    }

    /// Whether its states can be int8. Those of a pass that sums rows or columns cannot: their blocks do not begin with rows.
    pub fn takes_int8(&self) -> bool {
        let cuts_blocks = |stage: &Stage| {
            stage.reductions.iter().any(|reduction| matches!(reduction.scope, Scope::Row | Scope::Col))
                && matches!(&stage.kind, Kind::Pass(pass) if pass.reads | pass.writes != 0)
        };
        !self.stages().any(cuts_blocks)
    }

    /// Whether some stage needs the array's shape as a matrix.
    pub fn needs_matrix(&self) -> bool {
        !self.rows.is_empty() || !self.cols.is_empty()
    }
}

/// Adds the names that statements compute these names from.
fn add_sources(names: &mut Vec<&str>, statements: &[&Statement]) {
    let mut known = 0;
    while known < names.len() {
        known = names.len();
        for statement in statements {
            if names.contains(&statement.name) {
                statement.value.names(&mut |name| {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                });
            }
        }
    }
}

impl Reduction {
    /// Its result for a sum over this many numbers, by which a mean is divided.
    pub(crate) fn divided(&self, sum: f64, count: usize) -> f64 {
        if self.operation == Operation::Mean { sum / count as f64 } else { sum }
    }
}

impl Program {
    /// Whether it reads gradients.
    pub fn reads_gradient(&self) -> bool {
        self.last_gradient().is_some()
    }

    /// The index of its last pass that reads gradients.
    pub(crate) fn last_gradient(&self) -> Option<usize> {
        self.stages.iter().rposition(|stage| matches!(&stage.kind, Kind::Pass(pass) if pass.reads_grad))
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rule({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use crate::optimizers::find;

    #[test]
    fn what_the_states_of_all_arrays_are_computed_from() {
        let of = |name: &str| {
            let rule = find(name).expect("a rule").rule;
            let (hypers, by_rate) = rule.all_depends_on();
            (hypers.iter().map(|&k| rule.hypers[k]).collect::<Vec<_>>(), by_rate)
        };
        assert_eq!(of("prodigy"), (vec!["beta3", "d0", "d_coef", "growth_rate"], true));
        assert_eq!(of("dadaptadam"), (vec!["beta2", "d0", "growth_rate"], true));
        assert_eq!(of("dadaptsgd"), (vec!["d0", "growth_rate"], true));
        assert_eq!(of("dog"), (vec!["reps_rel", "eps"], false));
        assert_eq!(of("adam"), (vec![], false));
    }
}
