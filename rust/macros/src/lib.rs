//! The `rules!` macro: parses optimizer rules into one tree and generates everything that the crate needs from it.
//!
//! The tree becomes Rust kernels, functions for the scalar statements, and a constant copy of itself, from which CUDA C++ and
//! the documentation's equations are made. Nothing here knows an optimizer or a CPU.
//! The language is described in `docs/internals/rule_language.rst`.

mod analyze;
mod constants;
mod expand;
mod flow;
mod parse;
mod pass;
mod streams;
mod terms;
#[cfg(test)]
mod tests;
mod tree;

/// Declares a family of optimizer rules; see the documentation's page on the rule language.
#[proc_macro]
pub fn rules(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let family = syn::parse_macro_input!(input as tree::Family);
    match analyze::check(family).and_then(|family| expand::family(&family)) {
        Ok(tokens) => tokens.into(),
        Err(error) => error.into_compile_error().into(),
    }
}
