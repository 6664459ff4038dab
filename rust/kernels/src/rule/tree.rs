//! The text of a rule as a tree: what CUDA C++ and the documentation's equations are made from.

/// An expression.
#[derive(Clone, Copy, Debug)]
pub enum Expr {
    /// A number, as it is written.
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

/// An assignment.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// What is assigned.
    pub name: &'static str,
    /// Whether it is a `let`.
    pub local: bool,
    /// To what.
    pub value: Expr,
}
