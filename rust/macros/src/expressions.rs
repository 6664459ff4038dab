//! Writes statements and expressions as Rust.

use proc_macro2::TokenStream;
use quote::quote;

use crate::tree::*;

/// What an expression is computed in.
#[derive(Clone, Copy, PartialEq)]
pub enum Precision {
    /// Float64. Of a `select`, only the taken branch is evaluated.
    Double,
    /// The compute type of the parameter.
    Compute,
}

pub fn statements<'a>(statements: impl IntoIterator<Item = &'a Statement>, precision: Precision) -> TokenStream {
    let each = statements.into_iter().map(|statement| {
        let (name, value) = (&statement.name, expression(&statement.value, precision));
        if statement.local { quote!(let #name = #value;) } else { quote!(#name = #value;) }
    });
    quote!(#(#each)*)
}

pub fn expression(expr: &Expr, precision: Precision) -> TokenStream {
    let inner = |expr: &Expr| expression(expr, precision);
    match expr {
        Expr::Number(text, span) => {
            let [single, double] = ["f32", "f64"].map(|suffix| syn::LitFloat::new(&format!("{text}{suffix}"), *span));
            match precision {
                Precision::Double => quote!(#double),
                Precision::Compute => quote!(<P::Compute as Real>::literal(#single, #double)),
            }
        }
        Expr::Name(name) => quote!(#name),
        Expr::Unary(operator, a) => {
            let (operator, a) = (operator.parse::<TokenStream>().expect("an operator"), inner(a));
            quote!((#operator #a))
        }
        Expr::Binary(operator, a, b) => {
            let operator: TokenStream = operator.parse().expect("an operator");
            let (a, b) = (inner(a), inner(b));
            quote!((#a #operator #b))
        }
        Expr::Call(name, arguments) if name == "select" && precision == Precision::Double => {
            let [condition, yes, no] = [0, 1, 2].map(|i| inner(&arguments[i]));
            quote!((if #condition { #yes } else { #no }))
        }
        Expr::Call(name, arguments) => {
            let arguments = arguments.iter().map(inner);
            quote!(#name(#(#arguments),*))
        }
    }
}
