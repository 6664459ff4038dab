//! Generates the code of a checked family: host scalars, scalar statements, kernels and descriptors. Checks nothing.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Ident, Result};

use crate::analyze::{MAX_STATES, MAX_STREAMS, MAX_TERMS, PROLOGUE};
use crate::constants;
use crate::expressions::{Precision, statements};
use crate::pass;
use crate::streams::{Domain, Variant, recalled, stored};
use crate::terms::has_row_kernel;
use crate::tree::*;

/// Generates all code of a family.
pub fn family(family: &Family) -> Result<TokenStream> {
    let rules = family.rules.iter().map(|one| rule(family, one)).collect::<Result<Vec<_>>>()?;
    Ok(quote! {
        const _: () = {
            assert!(crate::kernel::MAX_STREAMS == #MAX_STREAMS);
            assert!(crate::kernel::MAX_STATES == #MAX_STATES);
            assert!(crate::kernel::MAX_TERMS == #MAX_TERMS);
        };
        #(#rules)*
    })
}

fn rule(family: &Family, rule: &Rule) -> Result<TokenStream> {
    let (name, docs) = (&rule.name, &rule.docs);
    let (mut carriers, mut programs) = (Vec::new(), Vec::new());
    let (mut tables, mut row_tables, mut vector_tables) = (Vec::new(), Vec::new(), Vec::new());
    for program in &rule.programs {
        let mut stages = Vec::new();
        for (number, stage) in program.stages.iter().enumerate() {
            let carrier = format_ident!("{}_{}_{}", name, program.name, number);
            let (kind, run) = match &stage.kind {
                Kind::Pass(_) => {
                    let mut kernels = vec![(carrier.clone(), Variant::Any)];
                    if recalled(stage).is_some() {
                        kernels.push((format_ident!("{}_recalled", carrier), Variant::Recalls));
                    }
                    let kernel = tables.len();
                    for (carrier, variant) in kernels {
                        carriers.push(pass::kernel(rule, stage, Domain::Elements, &carrier, variant));
                        tables.push(quote!(&const { crate::kernel::table::<#carrier>() }));
                    }
                    let mut row_kernel = None;
                    if has_row_kernel(stage, !stored(rule, stage, Domain::Elements).is_empty()) {
                        let carrier = format_ident!("{}_of_row", carrier);
                        carriers.push(pass::kernel(rule, stage, Domain::Elements, &carrier, Variant::OneRow));
                        row_kernel = Some(row_tables.len());
                        row_tables.push(quote!(&const { crate::kernel::row_table::<#carrier>() }));
                    }
                    let kind = constants::pass_kind(rule, program, number, (kernel, row_kernel));
                    (kind, quote!(crate::rule::no_text))
                }
                Kind::Text(scope @ (Scope::Row | Scope::Col)) => {
                    let domain = if *scope == Scope::Row { Domain::Rows } else { Domain::Cols };
                    carriers.push(pass::kernel(rule, stage, domain, &carrier, Variant::Any));
                    vector_tables.push(quote!(&const { crate::kernel::vector_table::<#carrier>() }));
                    let kernel = vector_tables.len() - 1;
                    (constants::vector_kind(*scope, kernel), quote!(crate::rule::no_text))
                }
                Kind::Text(scope) => {
                    let function = format_ident!("text_of_{}", carrier);
                    carriers.push(text(rule, stage, &function));
                    (constants::text_kind(*scope), quote!(#function))
                }
            };
            stages.push(constants::stage(rule, stage, &kind, &run));
        }
        let program_name = program.name.to_string();
        programs.push(quote!(crate::rule::Program { name: #program_name, stages: &[#(#stages),*] }));
    }
    let host_name = format_ident!("host_of_{}", name);
    let host = host(family, rule, &host_name);
    let descriptor = constants::rule(family, rule, &programs, &host_name);
    Ok(quote! {
        #(#carriers)*
        #host
        #(#[doc = #docs])*
        pub const fn #name() -> &'static crate::kernel::CompiledRule {
            static RULE: crate::rule::Rule = #descriptor;
            static COMPILED: crate::kernel::CompiledRule = crate::kernel::CompiledRule {
                rule: &RULE,
                kernels: &[#(#tables),*],
                row_kernels: &[#(#row_tables),*],
                vector_kernels: &[#(#vector_tables),*],
            };
            &COMPILED
        }
    })
}

/// A function over the scalars of one array, or of all arrays.
fn text(rule: &Rule, stage: &Stage, function: &Ident) -> TokenStream {
    let used = rule.scalars.iter().enumerate().filter(|(_, name)| stage.reads(name) || stage.assigns(name));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (i, name) in used {
        let place = format_ident!("{name}");
        before.push(quote!(let mut #place = scalars[#i];));
        if stage.assigns(name) {
            after.push(quote!(scalars[#i] = #place;));
        }
    }
    let statements = statements(&stage.statements, Precision::Double);
    quote! {
        #[allow(unused_mut, unused_assignments, unused_imports, clippy::assign_op_pattern)]
        fn #function(scalars: &mut [f64]) {
            use crate::numeric::{abs, atan2, cbrt, fma, max, min, pow, sign, sqrt};
            #(#before)*
            #statements
            #(#after)*
        }
    }
}

/// The function that computes the scalars of a step; it may also set those of the prologue.
fn host(family: &Family, rule: &Rule, function: &Ident) -> TokenStream {
    let (hypers, rate, step) = (&rule.hypers, &family.rate, &family.step);
    let mut before = Vec::new();
    for (i, name) in PROLOGUE.iter().enumerate() {
        let place = format_ident!("{name}");
        before.push(quote!(let mut #place = scalars[#i];));
    }
    let assigned = |name: &str| rule.host.iter().any(|s| !s.local && s.name == name);
    let declared: Vec<_> = rule
        .scalars
        .iter()
        .skip(PROLOGUE.len())
        .filter(|name| assigned(name) && !hypers.iter().any(|hyper| hyper == name.as_str()))
        .map(|name| format_ident!("{name}"))
        .collect();
    let after =
        rule.scalars.iter().enumerate().filter(|(i, name)| {
            *i < PROLOGUE.len() || assigned(name) || hypers.iter().any(|hyper| hyper == name.as_str())
        });
    let after = after.map(|(i, name)| {
        let place = format_ident!("{name}");
        quote!(scalars[#i] = #place;)
    });
    let statements = statements(&rule.host, Precision::Double);
    quote! {
        #[allow(unused_mut, unused_variables, unused_assignments, unused_imports, clippy::assign_op_pattern)]
        #[allow(clippy::needless_late_init, clippy::too_many_lines)]
        fn #function(common: &crate::rule::Common, hypers: &[f64], t: f64, scalars: &mut [f64]) {
            use crate::numeric::{abs, atan2, cbrt, fma, host_log as log, host_pow as pow, max, min, sign, sqrt};
            let &[#(mut #hypers),*] = hypers else { unreachable!("the caller has checked the number") };
            let (#rate, #step) = (common.lr, t);
            #(#before)*
            #(let mut #declared;)*
            #statements
            #(#after)*
        }
    }
}
