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
