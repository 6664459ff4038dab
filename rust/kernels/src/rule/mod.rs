//! What a rule is: data that the macro `rules!` makes from its text. Knows no kernel, driver or optimizer.
//!
//! A rule has programs, a program has stages. A pass is the text of one element, and may add to reductions; between passes
//! other texts run once for each row, column or array, or once for all arrays. Every value has a scope.

mod scalars;
mod tree;

pub use scalars::{Common, DECAY, Decay, L2, PROLOGUE, PROLOGUE_NAMES, PROLOGUE_SCALARS, no_text, unscale_factor};
pub use tree::{Expr, Statement};

/// An optimizer rule: what drivers, bindings and the documentation know about it.
pub struct Rule {
    /// Its name, in snake case.
    pub name: &'static str,
    /// Its documentation: the equation and the source.
    pub doc: &'static str,
    /// Names of its hyperparameters beside [`Common`], in the order of the values given to [`Rule::scalars`].
    pub hypers: &'static [&'static str],
    /// What `each_step` calls the learning rate.
    pub rate: &'static str,
    /// What `each_step` calls the step, counted from 1.
    pub step: &'static str,
    /// Its states, in order.
    pub states: &'static [State],
    /// Names of its float64 scalars, in order: the prologue's, those of `each_step`, then of scope `all` and `array`.
    pub scalars: &'static [&'static str],
    /// The place of the first scalar of scope `array`.
    pub array_scalars: usize,
    /// Names of its vectors with a number for each row, states first.
    pub rows: &'static [&'static str],
    /// Names of its vectors with a number for each column, states first.
    pub cols: &'static [&'static str],
    /// The text that is evaluated once a step, in float64.
    pub each_step: &'static [Statement],
    /// The same, as a function that fills scalars.
    pub(crate) host: fn(&Common, &[f64], f64, &mut [f64]),
    /// Its programs; the first is `step`.
    pub programs: &'static [Program],
}

/// What a value belongs to: there is one for each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An element of an array.
    Element,
    /// A copy of the parameter in its own type, which no checkpoint needs.
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
    /// The word for it in a rule's text.
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

    /// Whether kernels have it as a stream of elements.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Scope::Element | Scope::Backup)
    }
}

/// A state of a rule.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Its name.
    pub name: &'static str,
    /// What there is one of it for.
    pub scope: Scope,
    /// Whether it is never negative.
    pub nonnegative: bool,
    /// Whether it is never quantized, since small differences to it matter.
    pub exact: bool,
    /// What it starts at.
    pub initial: Initial,
}

/// What a state starts at.
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
    /// What it runs for.
    pub kind: Kind,
    /// Its text.
    pub statements: &'static [Statement],
    /// The reductions at its end.
    pub reductions: &'static [Reduction],
    /// For a text of scope `array` or `all`: the text as a function over the rule's scalars.
    pub(crate) text: fn(&mut [f64]),
}

/// What a stage runs for.
pub enum Kind {
    /// Every element.
    Pass(Pass),
    /// Every row or column; the number is the place among the rule's vector kernels.
    Vector {
        /// `Row` or `Col`.
        scope: Scope,
        /// Which kernel.
        kernel: usize,
    },
    /// `Array` or `All`.
    Text(Scope),
}

/// What a pass reads and writes.
pub struct Pass {
    /// The place among the rule's kernels.
    pub kernel: usize,
    /// Whether it reads the parameter.
    pub reads_param: bool,
    /// Whether it writes the parameter.
    pub writes_param: bool,
    /// Whether it reads the gradient.
    pub reads_grad: bool,
    /// Whether it reads the gradient as it lies in memory.
    pub raw: bool,
    /// Whether it saves the parameter to a backup first.
    pub saves: bool,
    /// Whether it takes the parameter from a backup.
    pub restores: bool,
    /// Which element states and backups it reads: a bit for each, in order.
    pub reads: u32,
    /// Which of them it writes.
    pub writes: u32,
    /// The row and column vectors that it reads, in the order of their streams.
    pub operands: &'static [Operand],
    /// How many streams of terms it writes for its reductions.
    pub tiles: usize,
    /// The term of a pass before that it can read instead of computing it again; the kernel that does so is the next one.
    pub recalls: Option<usize>,
}

/// A row or column vector that a pass reads.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// `Row` or `Col`.
    pub scope: Scope,
    /// The place among the rule's vectors of this scope.
    pub place: usize,
    /// Its name.
    pub name: &'static str,
}

/// What a reduction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A sum in float64.
    Sum,
    /// A sum with float32 lanes inside a block, where float32 is computed with.
    FastSum,
    /// A mean: a sum in float64, divided by the count.
    Mean,
    /// The largest, NaN when there is one.
    Max,
}

/// A number that comes from all elements of a row, column, matrix or array, or of all arrays.
pub struct Reduction {
    /// What is done.
    pub operation: Operation,
    /// Over what.
    pub scope: Scope,
    /// Its name.
    pub name: &'static str,
    /// The place of its result among the rule's scalars, or its row or column vectors.
    pub place: usize,
    pub(crate) left: Factor,
    pub(crate) right: Right,
    /// The text of one element's value.
    pub value: Expr,
}

/// A factor of a reduction's value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor {
    /// The tile that the kernel writes it to.
    pub tile: usize,
    /// Where in memory it lies already.
    pub memory: Option<Stream>,
    /// Whether it does so only while gradients are not scaled.
    pub unscaled: bool,
}

/// The second factor of a reduction's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Right {
    /// There is none.
    None,
    /// The first once more: a square.
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

    /// The states that kernels have as streams, with their places among all states.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (usize, &'static State)> + use<> {
        self.states.iter().enumerate().filter(|(_, state)| state.scope.is_stream())
    }

    /// The states of this scope, with their places among all states.
    pub(crate) fn states_of(&self, scope: Scope) -> impl Iterator<Item = (usize, &'static State)> + use<> {
        self.states.iter().enumerate().filter(move |(_, state)| state.scope == scope)
    }

    /// Whether its step reads gradients.
    pub fn reads_gradient(&self) -> bool {
        self.programs[0].reads_gradient()
    }

    /// Whether its step is one pass, so that an array can be updated a part at a time.
    pub fn is_elementwise(&self) -> bool {
        let [stage] = self.programs[0].stages else { return false };
        matches!(stage.kind, Kind::Pass(_)) && stage.reductions.is_empty()
    }

    /// Whether some text needs to know the matrix that an array is.
    pub fn needs_matrix(&self) -> bool {
        !self.rows.is_empty() || !self.cols.is_empty()
    }
}

impl Program {
    /// Whether it reads gradients.
    pub fn reads_gradient(&self) -> bool {
        self.stages.iter().any(|stage| matches!(&stage.kind, Kind::Pass(pass) if pass.reads_grad))
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rule({})", self.name)
    }
}
