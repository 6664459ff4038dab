//! The statements of a rule as a tree, from which CUDA C++ and the documentation's equations are made. Knows no kernel.

/// An expression.
#[derive(Clone, Copy, Debug)]
pub enum Expr {
    /// A number literal, as written in the rule.
    Number(&'static str),
    /// A name.
    Name(&'static str),
    /// `-` or `!` and its operand.
    Unary(&'static str, &'static Expr),
    /// An operator and its operands.
    Binary(&'static str, &'static Expr, &'static Expr),
    /// A function and its arguments.
    Call(&'static str, &'static [Expr]),
}

impl Expr {
    /// Calls `f` for each name in it.
    pub(crate) fn names(&self, f: &mut impl FnMut(&'static str)) {
        match self {
            Expr::Number(_) => {}
            Expr::Name(name) => f(name),
            Expr::Unary(_, a) => a.names(f),
            Expr::Binary(_, a, b) => {
                a.names(f);
                b.names(f);
            }
            Expr::Call(_, arguments) => arguments.iter().for_each(|argument| argument.names(f)),
        }
    }
}

/// An assignment.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// The name that is assigned.
    pub name: &'static str,
    /// Whether it is a `let`.
    pub local: bool,
    /// The assigned value.
    pub value: Expr,
}
