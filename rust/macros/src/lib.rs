//! The `rules!` macro: parses optimizer rules into one tree and generates everything that the crate needs from it.
//!
//! The tree becomes Rust kernels, functions for the scalar statements, and a constant copy of itself, from which CUDA C++ and
//! the documentation's equations are made. Nothing here knows an optimizer or a CPU.
//! The language is described in `docs/internals/rule_language.rst`.

mod analyze;
mod constants;
mod element;
mod expand;
mod expressions;
mod flow;
mod loops;
mod parse;
mod pass;
mod statements;
mod streams;
mod sums;
mod terms;
#[cfg(test)]
mod tests;
mod tree;
mod used;

use proc_macro2::{Group, Span, TokenStream, TokenTree};

/// Declares a family of optimizer rules; see the documentation's page on the rule language.
#[proc_macro]
pub fn rules(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = proc_macro::TokenStream::from(in_one_scope(input.into()));
    let family = syn::parse_macro_input!(input as tree::Family);
    match analyze::check(family).and_then(|family| expand::family(&family)) {
        Ok(tokens) => tokens.into(),
        Err(error) => error.into_compile_error().into(),
    }
}

/// The tokens with names that mean the same whether they come from a file or from a `macro_rules!` in between; errors still
/// point at them.
fn in_one_scope(tokens: TokenStream) -> TokenStream {
    let tokens = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(mut name) => {
            name.set_span(name.span().resolved_at(Span::call_site()));
            TokenTree::Ident(name)
        }
        TokenTree::Group(group) => {
            let mut inside = Group::new(group.delimiter(), in_one_scope(group.stream()));
            inside.set_span(group.span());
            TokenTree::Group(inside)
        }
        other => other,
    });
    tokens.collect()
}
