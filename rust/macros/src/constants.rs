//! Writes the tree as Rust constants, which the drivers, the CUDA C++ generator and the documentation read. Checks nothing.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Ident;

use crate::analyze::recalled_tile;
use crate::streams::{Domain, operands, recalled, stored};
use crate::terms::{Factors, Held, fused, in_memory, term};
use crate::tree::*;

pub fn rule(family: &Family, rule: &Rule, programs: &[TokenStream], host: &Ident) -> TokenStream {
    let name = rule.name.to_string();
    let hypers = rule.hypers.iter().map(Ident::to_string);
    let rate = family.rate.to_string();
    let (scalars, rows, cols, array_scalars) = (&rule.scalars, &rule.rows, &rule.cols, rule.array_scalars);
    let states = rule.states.iter().map(|own| state(own, scalars));
    let each_step = statements(&rule.host);
    quote! {
        crate::rule::Rule {
            name: #name,
            hypers: &[#(#hypers),*],
            rate: #rate,
            states: &[#(#states),*],
            scalars: &[#(#scalars),*],
            array_scalars: #array_scalars,
            rows: &[#(#rows),*],
            cols: &[#(#cols),*],
            each_step: #each_step,
            host: #host,
            programs: &[#(#programs),*],
        }
    }
}

fn state(state: &State, scalars: &[String]) -> TokenStream {
    let name = state.name.to_string();
    let scalar = match scalars.iter().position(|scalar| *scalar == name) {
        Some(place) => quote!(Some(#place)),
        None => quote!(None),
    };
    let scope = scope(state.scope);
    let (nonnegative, exact, scratch) = (state.nonnegative, state.exact, state.scratch);
    let initial = match &state.initial {
        None => quote!(crate::rule::Initial::Number(0.0)),
        Some(Initial::Param) => quote!(crate::rule::Initial::Param),
        Some(Initial::Scalar(Expr::Number(text, span))) => {
            let number = syn::LitFloat::new(text, *span);
            quote!(crate::rule::Initial::Number(#number))
        }
        Some(Initial::Scalar(Expr::Name(name))) => {
            let name = name.to_string();
            quote!(crate::rule::Initial::Hyper(#name))
        }
        Some(Initial::Scalar(_)) => unreachable!("the parser takes numbers and names"),
    };
    quote!(crate::rule::State {
        name: #name,
        scope: #scope,
        nonnegative: #nonnegative,
        exact: #exact,
        scratch: #scratch,
        initial: #initial,
        scalar: #scalar,
    })
}

fn scope(scope: Scope) -> TokenStream {
    let word = match scope {
        Scope::Element => quote!(Element),
        Scope::Backup => quote!(Backup),
        Scope::Row => quote!(Row),
        Scope::Col => quote!(Col),
        Scope::Matrix => quote!(Matrix),
        Scope::Array => quote!(Array),
        Scope::All => quote!(All),
    };
    quote!(crate::rule::Scope::#word)
}

/// `kernel` and `row_kernel` are the indices of its kernels.
pub fn pass_kind(
    rule: &Rule,
    program: &Program,
    number: usize,
    (kernel, row_kernel): (usize, Option<usize>),
) -> TokenStream {
    let stage = &program.stages[number];
    let Kind::Pass(arguments) = &stage.kind else { unreachable!("only passes are asked for") };
    let stored = stored(rule, stage, Domain::Elements);
    let streams = rule.states.iter().filter(|state| state.scope.is_stream());
    let (mut reads, mut writes) = (0u32, 0u32);
    for (k, state) in streams.enumerate() {
        let name = state.name.to_string();
        let saved = arguments.save.as_ref() == Some(&state.name);
        let restored = arguments.restore.as_ref() == Some(&state.name);
        let written = stored.contains(&name) || saved;
        reads |= u32::from(stage.reads(&name) || restored || (written && !saved)) << k;
        writes |= u32::from(written) << k;
    }
    let (param, grad, raw) = (arguments.param, arguments.grad, arguments.raw);
    let writes_param = stored.iter().any(|name| name == "p");
    let (saves, restores) = (arguments.save.is_some(), arguments.restore.is_some());
    let operands = operands(rule, stage).into_iter().map(|(of, place, name)| {
        let of = scope(of);
        quote!(crate::rule::Operand { scope: #of, place: #place, name: #name })
    });
    let tiles = Factors::new(stage).tiles.len();
    let row_kernel = match row_kernel {
        Some(index) => quote!(Some(#index)),
        None => quote!(None),
    };
    let operands = quote!(&[#(#operands),*]);
    let pass = |kernel: usize, recalls: TokenStream| {
        quote! {
            crate::rule::Pass {
                kernel: #kernel,
                row_kernel: #row_kernel,
                reads_param: #param,
                writes_param: #writes_param,
                reads_grad: #grad,
                raw: #raw,
                saves: #saves,
                restores: #restores,
                reads: #reads,
                writes: #writes,
                operands: #operands,
                tiles: #tiles,
                recalls: #recalls,
            }
        }
    };
    let recalls = match recalled(stage).and_then(|name| recalled_tile(program, number, name)) {
        Some(tile) => {
            let recalling = pass(kernel + 1, quote!(None));
            quote!(Some(crate::rule::Recall { tile: #tile, pass: &#recalling }))
        }
        None => quote!(None),
    };
    let pass = pass(kernel, recalls);
    quote!(crate::rule::Kind::Pass(#pass))
}

pub fn vector_kind(of: Scope, kernel: usize) -> TokenStream {
    let of = scope(of);
    quote!(crate::rule::Kind::Vector { scope: #of, kernel: #kernel })
}

pub fn text_kind(of: Scope) -> TokenStream {
    let of = scope(of);
    quote!(crate::rule::Kind::Text(#of))
}

pub fn stage(rule: &Rule, stage: &Stage, kind: &TokenStream, text: &TokenStream) -> TokenStream {
    let factors = Factors::new(stage);
    let reductions = stage.reductions.iter().map(|reduction| {
        let name = reduction.name.to_string();
        let operation = match reduction.operation {
            Operation::Sum => quote!(Sum),
            Operation::FastSum => quote!(FastSum),
            Operation::Mean => quote!(Mean),
            Operation::Max => quote!(Max),
        };
        let kept = match (reduction.scope, &stage.kind) {
            (Scope::Matrix, Kind::Text(of)) => *of,
            (of, _) => of,
        };
        let names = match kept {
            Scope::Row => &rule.rows,
            Scope::Col => &rule.cols,
            _ => &rule.scalars,
        };
        let place = names.iter().position(|n| *n == name).expect("every reduction has a place");
        let term = term(reduction);
        let factor = |factor: &Expr| {
            let (memory, unscaled) = match in_memory(stage, factor) {
                Some(Held::Always("p")) => (quote!(Some(crate::rule::Stream::Param)), false),
                Some(Held::Always(_)) => (quote!(Some(crate::rule::Stream::Grad)), false),
                Some(Held::Unscaled(_)) => (quote!(Some(crate::rule::Stream::Grad)), true),
                None => (quote!(None), false),
            };
            let tile = factors.tile(factor).unwrap_or(usize::MAX);
            quote!(crate::rule::Factor { tile: #tile, memory: #memory, unscaled: #unscaled })
        };
        let left = factor(term.left);
        let right = match term.right {
            None => quote!(crate::rule::Right::None),
            Some(right) if right.same(term.left) => quote!(crate::rule::Right::Same),
            Some(right) => {
                let right = factor(right);
                quote!(crate::rule::Right::Factor(#right))
            }
        };
        let (of, value, fused) = (scope(reduction.scope), expr(&reduction.value), fused(stage, reduction));
        quote! {
            crate::rule::Reduction {
                operation: crate::rule::Operation::#operation,
                scope: #of,
                name: #name,
                place: #place,
                fused: #fused,
                left: #left,
                right: #right,
                value: #value,
            }
        }
    });
    let statements = statements(&stage.statements);
    quote!(crate::rule::Stage { kind: #kind, statements: #statements, reductions: &[#(#reductions),*], text: #text })
}

fn statements(statements: &[Statement]) -> TokenStream {
    let each = statements.iter().map(|statement| {
        let (name, local, value) = (statement.name.to_string(), statement.local, expr(&statement.value));
        quote!(crate::rule::Statement { name: #name, local: #local, value: #value })
    });
    quote!(&[#(#each),*])
}

fn expr(value: &Expr) -> TokenStream {
    match value {
        Expr::Number(text, _) => quote!(crate::rule::Expr::Number(#text)),
        Expr::Name(name) => {
            let name = name.to_string();
            quote!(crate::rule::Expr::Name(#name))
        }
        Expr::Unary(operator, a) => {
            let a = expr(a);
            quote!(crate::rule::Expr::Unary(#operator, &#a))
        }
        Expr::Binary(operator, a, b) => {
            let (a, b) = (expr(a), expr(b));
            quote!(crate::rule::Expr::Binary(#operator, &#a, &#b))
        }
        Expr::Call(name, arguments) => {
            let (name, arguments) = (name.to_string(), arguments.iter().map(expr));
            quote!(crate::rule::Expr::Call(#name, &[#(#arguments),*]))
        }
    }
}
