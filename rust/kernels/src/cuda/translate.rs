//! Translates the tree of a rule to C++: expressions and statements. Knows no kernel.

use std::fmt::Write;

use crate::numeric::Dtype;
use crate::rule::{Expr, Statement};

/// Names that are allowed in a rule but reserved in C++.
const KEYWORDS: [&str; 16] = [
    "auto", "case", "char", "class", "default", "delete", "double", "float", "int", "long", "new", "register", "short",
    "signed", "this", "unsigned",
];

/// The C++ form of a rule's name.
pub fn name(text: &str) -> String {
    if KEYWORDS.contains(&text) { format!("{text}_") } else { text.into() }
}

/// An expression in a compute type, with every operation in parentheses.
pub fn expr(value: &Expr, compute: Dtype) -> String {
    let one = |value: &Expr| expr(value, compute);
    match value {
        Expr::Number(text) if compute == Dtype::F32 => format!("{text}f"),
        Expr::Number(text) => (*text).into(),
        Expr::Name(text) => name(text),
        Expr::Unary(operator, a) => format!("({operator}{})", one(a)),
        Expr::Binary(operator, a, b) => format!("({} {operator} {})", one(a), one(b)),
        Expr::Call(function, arguments) => {
            let arguments: Vec<String> = arguments.iter().map(one).collect();
            format!("schuss::{function}({})", arguments.join(", "))
        }
    }
}

/// Statements, one per line.
pub fn statements(statements: &[Statement], compute: Dtype) -> String {
    let mut text = String::new();
    for statement in statements {
        let declared = if statement.local { "const auto " } else { "" };
        let (name, value) = (name(statement.name), expr(&statement.value, compute));
        writeln!(text, "        {declared}{name} = {value};").expect("strings take everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_keep_their_shape() {
        const TREE: Expr = Expr::Binary(
            "-",
            &Expr::Call("max", &[Expr::Name("new"), Expr::Number("1e-6")]),
            &Expr::Binary("-", &Expr::Name("b"), &Expr::Unary("-", &Expr::Name("c"))),
        );
        assert_eq!(expr(&TREE, Dtype::F32), "(schuss::max(new_, 1e-6f) - (b - (-c)))");
        assert_eq!(expr(&TREE, Dtype::F64), "(schuss::max(new_, 1e-6) - (b - (-c)))");
        let list = [
            Statement { name: "x", local: true, value: Expr::Number("2.0") },
            Statement { name: "p", local: false, value: Expr::Name("x") },
        ];
        assert_eq!(statements(&list, Dtype::F64), "        const auto x = 2.0;\n        p = x;\n");
    }
}
