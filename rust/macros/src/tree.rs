//! The tree that rules are parsed into. Knows neither syntax nor generated code.

use proc_macro2::Span;
use syn::Ident;

/// Rules that share hyperparameters and host scalars.
pub struct Family {
    pub hypers: Vec<Ident>,
    /// The rule's names for the learning rate and for the step, which counts from 1.
    pub rate: Ident,
    pub step: Ident,
    /// Evaluated once a step, in float64.
    pub host: Vec<Statement>,
    pub rules: Vec<Rule>,
}

pub struct Rule {
    pub docs: Vec<String>,
    pub name: Ident,
    /// The family's hyperparameters and statements of `each_step` that it uses; filled in by `used`.
    pub hypers: Vec<Ident>,
    pub host: Vec<Statement>,
    pub states: Vec<State>,
    /// The first is the one that `step` runs.
    pub programs: Vec<Program>,
    /// The names of float64 scalars, in index order; filled in by `analyze`.
    pub scalars: Vec<String>,
    /// The index of the first scalar of scope `array`; filled in by `analyze`.
    pub array_scalars: usize,
    /// The names of row and column vectors, states first; filled in by `analyze`.
    pub rows: Vec<String>,
    pub cols: Vec<String>,
}

impl Rule {
    /// The stages of all its programs, in order.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.programs.iter().flat_map(|program| &program.stages)
    }
}

pub struct State {
    pub scope: Scope,
    pub name: Ident,
    pub nonnegative: bool,
    /// Whether it is never quantized.
    pub exact: bool,
    /// Whether it lives for one step only.
    pub scratch: bool,
    pub initial: Option<Initial>,
}

pub enum Initial {
    /// A number or a hyperparameter.
    Scalar(Expr),
    /// A copy of the parameter.
    Param,
}

/// The scope of a value: there is one value for each of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Element,
    /// A copy of the parameter in its own type, which checkpoints leave out.
    Backup,
    Row,
    Col,
    /// The matrix of the last two axes; only reductions in row and column stages have it.
    Matrix,
    Array,
    All,
}

impl Scope {
    pub fn word(self) -> &'static str {
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
}

pub struct Program {
    pub name: Ident,
    pub stages: Vec<Stage>,
}

pub struct Stage {
    pub kind: Kind,
    pub statements: Vec<Statement>,
    pub reductions: Vec<Reduction>,
}

pub enum Kind {
    /// Runs for every element.
    Pass(Arguments),
    /// Runs once for each row, column, array, or for all of them.
    Text(Scope),
}

/// The arguments of a pass.
#[derive(Default, Clone)]
pub struct Arguments {
    pub param: bool,
    pub grad: bool,
    /// Reads gradients as they are in memory: not scaled, without weight decay.
    pub raw: bool,
    /// The backup that the parameter is saved to first.
    pub save: Option<Ident>,
    /// The backup that the parameter is restored from.
    pub restore: Option<Ident>,
}

#[derive(Clone)]
pub struct Statement {
    pub name: Ident,
    pub local: bool,
    /// Whether the value may be reused from an earlier pass, where it is still available.
    pub recall: bool,
    pub value: Expr,
}

pub struct Reduction {
    pub operation: Operation,
    pub scope: Scope,
    pub name: Ident,
    pub value: Expr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Sum,
    /// A sum of squares with float32 lanes, where the compute type is float32.
    FastSum,
    Mean,
    Max,
}

#[derive(Clone)]
pub enum Expr {
    Number(String, Span),
    Name(Ident),
    Unary(&'static str, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Call(Ident, Vec<Expr>),
}

impl Expr {
    /// Calls `f` for the expression and each one in it.
    pub fn each(&self, f: &mut impl FnMut(&Expr)) {
        f(self);
        match self {
            Expr::Number(..) | Expr::Name(_) => {}
            Expr::Unary(_, a) => a.each(f),
            Expr::Binary(_, a, b) => {
                a.each(f);
                b.each(f);
            }
            Expr::Call(_, arguments) => arguments.iter().for_each(|argument| argument.each(f)),
        }
    }

    /// Calls `f` for each name that the expression reads.
    pub fn names(&self, f: &mut impl FnMut(&Ident)) {
        self.each(&mut |one| {
            if let Expr::Name(name) = one {
                f(name);
            }
        });
    }

    /// Whether it divides or takes a root.
    pub fn divides(&self) -> bool {
        let mut found = false;
        self.each(&mut |one| {
            found |= match one {
                Expr::Binary(operator, ..) => *operator == "/",
                Expr::Call(name, _) => name == "sqrt",
                _ => false,
            }
        });
        found
    }

    /// The span of its first token.
    pub fn span(&self) -> Span {
        match self {
            Expr::Number(_, span) => *span,
            Expr::Name(name) | Expr::Call(name, _) => name.span(),
            Expr::Unary(_, a) | Expr::Binary(_, a, _) => a.span(),
        }
    }

    pub fn same(&self, other: &Expr) -> bool {
        match (self, other) {
            (Expr::Number(a, _), Expr::Number(b, _)) => a == b,
            (Expr::Name(a), Expr::Name(b)) => a == b,
            (Expr::Unary(f, a), Expr::Unary(g, b)) => f == g && a.same(b),
            (Expr::Binary(f, a, b), Expr::Binary(g, c, d)) => f == g && a.same(c) && b.same(d),
            (Expr::Call(f, a), Expr::Call(g, b)) => {
                f == g && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
            }
            _ => false,
        }
    }
}

/// The functions that rules may call: name, number of arguments, and whether only `each_step` may call it.
pub const FUNCTIONS: &[(&str, usize, bool)] = &[
    ("fma", 3, false),
    ("sqrt", 1, false),
    ("cbrt", 1, false),
    ("abs", 1, false),
    ("sign", 1, false),
    ("max", 2, false),
    ("min", 2, false),
    ("select", 3, false),
    ("pow", 2, false),
    ("atan2", 2, false),
    ("log", 1, true),
];
