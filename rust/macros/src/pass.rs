//! Generates the kernel of a pass: a loop over the elements of an array, or over its row or column vectors. Checks nothing.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::analyze::PROLOGUE;
use crate::element::Element;
use crate::loops::{iterations, iterations_of_row};
use crate::streams::{Domain, Stream, StreamKind, Variant};
use crate::sums::Sums;
use crate::tree::*;

/// The type named `carrier`, which implements a pass: its loop.
pub fn kernel(rule: &Rule, stage: &Stage, domain: Domain, carrier: &Ident, variant: Variant) -> TokenStream {
    let element = Element::new(rule, stage, domain, variant);
    let sums = Sums::new(stage, variant == Variant::OneRow);
    let (lanes, lane_types) = (sums.lanes(), sums.lane_types());
    let (additions, of_cols) = (sums.additions(), sums.additions_of_cols());
    let iterations = match variant {
        Variant::OneRow => iterations_of_row(&element.code(&of_cols), &additions, &lanes),
        _ => iterations(&element.code(&additions), &lanes),
    };
    let exponents = exponents(rule, stage);
    let scalars = scalars(rule, stage, &exponents);
    let parameters = element.streams.iter().map(Stream::parameter);
    let cuts = element.streams.iter().map(Stream::cut);
    let (decays, divides, random) = (element.decays(), element.divides(), element.stores_state());
    let batches = batches(&element, &sums, &exponents);
    let (canonicalize, tests) = canonicalization(&element);
    quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types)] // named after the rule
        pub(crate) enum #carrier {}

        impl crate::kernel::Pass for #carrier {
            const DECAYS: bool = #decays;
            const DIVIDES: bool = #divides;

            #[inline(always)]
            unsafe fn run<P, G, S, const L2: bool, const FMA: bool>(
                streams: *const *mut u8,
                at: usize,
                n: usize,
                scalars: &[f64],
                extras: &crate::kernel::Extras<'_>,
            ) where
                P: crate::numeric::Storage,
                G: crate::numeric::Storage<Compute = P::Compute>,
                S: crate::numeric::StateStorage<Compute = P::Compute>,
            {
                #[allow(unused_imports)]
                use crate::numeric::reduce::{BLOCK, LANES, fold, largest, plus_product};
                #[allow(unused_imports)]
                use crate::numeric::{QUANTIZATION_BLOCK, Real, StateStorage, Storage};
                #[allow(unused_imports)]
                use crate::numeric::{abs, atan2, cbrt, fma, max, min, pow, select, sign, sqrt};

                #[inline(always)]
                // One argument a stream: the compiler assumes no aliasing only between slices that are parameters.
                #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters, clippy::needless_range_loop)]
                #[allow(unused_mut, unused_variables, unused_assignments, clippy::assign_op_pattern, clippy::eq_op)]
                #[allow(clippy::suspicious_operation_groupings, clippy::let_and_return)]
                fn each<P, G, S, const L2: bool, const FMA: bool, const POWERS: u8>(
                    n: usize,
                    #(#parameters,)*
                    scalars: &[f64],
                    places: &[u32],
                    blocks: &[u32],
                    #(#lanes: &mut [#lane_types; LANES],)*
                ) -> <P::Compute as Real>::Bits
                where
                    P: Storage,
                    G: Storage<Compute = P::Compute>,
                    S: StateStorage<Compute = P::Compute>,
                {
                    let gradient_factor = <P::Compute as Real>::from_f64(scalars[0]);
                    let l2 = <P::Compute as Real>::from_f64(scalars[1]);
                    let decay = <P::Compute as Real>::from_f64(scalars[2]);
                    #scalars
                    #(#cuts)*
                    let places = &places[..if S::RANDOM_BITS > 0 && #random { n } else { 0 }];
                    #iterations
                }
                #canonicalize

                let size = match () {
                    () if S::RANDOM_BITS > 0 && #random => QUANTIZATION_BLOCK,
                    () if extras.prefetches => crate::cpu::PREFETCH_BATCH,
                    () => n,
                };
                let (mut nan, mut done) = (<P::Compute as Real>::Bits::default(), 0);
                #batches
                let _ = nan;
                #tests
            }
        }
    }
}

/// Declares the scalars that a stage reads.
fn scalars(rule: &Rule, stage: &Stage, exponents: &[usize]) -> TokenStream {
    let read = rule.scalars.iter().enumerate().skip(PROLOGUE.len()).filter(|(_, name)| stage.reads(name));
    let each = read.map(|(i, name)| {
        let name = format_ident!("{name}");
        let value = match exponents.contains(&i) {
            true => quote!(match POWERS { 1 => 0.5, 2 => 1.0, _ => scalars[#i] }),
            false => quote!(scalars[#i]),
        };
        quote!(let #name = <P::Compute as Real>::from_f64(#value);)
    });
    each.collect()
}

/// Calls the loop for one batch of elements after the other, and block by block if there are sums.
fn batches(element: &Element<'_>, sums: &Sums<'_>, exponents: &[usize]) -> TokenStream {
    let (prefetches, call) = (prefetches(element), call(element, &sums.lanes(), exponents));
    let batches = |end: &TokenStream| {
        quote! {
            while done < #end {
                let m = size.min(#end - done);
                let (places, blocks) = extras.random(done);
                if extras.prefetches {
                    // SAFETY: the caller guarantees that there are these streams.
                    unsafe { #prefetches }
                }
                // SAFETY: the caller guarantees that every stream is valid, aligned, and overlaps no other.
                nan |= unsafe { #call };
                done += m;
            }
        }
    };
    if sums.is_empty() {
        return batches(&quote!(n));
    }
    let (declarations, batches, totals) = (sums.declarations(), batches(&quote!(end)), sums.totals());
    quote! {
        for block in 0..n.div_ceil(BLOCK) {
            let start = done;
            let end = n.min(start + BLOCK);
            #declarations
            #batches
            #totals
        }
    }
}

/// Prefetches the batch.
fn prefetches(element: &Element<'_>) -> TokenStream {
    let each = element.streams.iter().filter_map(|stream| {
        let pointer = stream.pointer();
        let prefetch = quote!(crate::cpu::prefetch_batch(#pointer, m););
        match stream.kind {
            // A parameter that is there for weight decay alone.
            StreamKind::Param if !stream.written && !element.stage.reads("p") && element.arguments.save.is_none() => {
                element.decays().then(|| quote!(if L2 { #prefetch }))
            }
            StreamKind::Param | StreamKind::Grad | StreamKind::State | StreamKind::Backup => Some(prefetch),
            _ => None,
        }
    });
    each.collect()
}

/// Calls the loop for a batch. There are loops of their own where all exponents are 0.5, or all 1: a root takes a fraction of the
/// time of a power. Each is called by its name: through a pointer it would not be inlined, and so not be compiled for the CPU level.
fn call(element: &Element<'_>, lanes: &[Ident], exponents: &[usize]) -> TokenStream {
    let arguments: Vec<_> = element.streams.iter().map(Stream::argument).collect();
    let [powers, roots, firsts] = [0u8, 1, 2].map(|powers| {
        quote!(each::<P, G, S, L2, FMA, #powers>(m, #(#arguments,)* scalars, places, &blocks, #(&mut #lanes),*))
    });
    if exponents.is_empty() {
        return powers;
    }
    quote! {
        if #(scalars[#exponents] == 0.5)&&* {
            #roots
        } else if #(scalars[#exponents] == 1.0)&&* {
            #firsts
        } else {
            #powers
        }
    }
}

/// The function that canonicalizes every stored NaN, and its call at the end.
fn canonicalization(element: &Element<'_>) -> (TokenStream, TokenStream) {
    if !element.stores_anything() {
        return (TokenStream::new(), TokenStream::new());
    }
    let parameters = element.stored().map(Stream::parameter);
    let arguments = element.stored().map(Stream::argument);
    let each = element.stored().map(|stream| {
        let slice = &stream.slice;
        match stream.kind {
            StreamKind::State => quote!(#slice.iter_mut().for_each(|x| *x = x.canonical());),
            _ => quote!(#slice.iter_mut().for_each(|x| *x = Storage::store(x.load()));),
        }
    });
    let function = quote! {
        // Testing each number for NaN in the loop takes half as long again as checking once at the end whether there was
        // one. If there was, every NaN is canonicalized.
        #[cold]
        #[inline(never)]
        #[allow(clippy::extra_unused_type_parameters)]
        fn canonicalize<P: Storage, S: StateStorage>(#(#parameters),*) {
            #(#each)*
        }
    };
    let call = quote! {
        if nan != Default::default() {
            let (done, m) = (0, n);
            // SAFETY: as above; the slices of the loop are no longer in use.
            unsafe { canonicalize::<P, S>(#(#arguments),*) };
        }
    };
    (function, call)
}

/// The scalars that are exponents of powers, by index.
fn exponents(rule: &Rule, stage: &Stage) -> Vec<usize> {
    let mut found = Vec::new();
    stage.each_expr(|expr| {
        expr.each(&mut |one| {
            if let Expr::Call(name, arguments) = one
                && let (true, [_, Expr::Name(exponent)]) = (name == "pow", arguments.as_slice())
            {
                found.push(exponent.to_string());
            }
        });
    });
    (PROLOGUE.len()..rule.scalars.len()).filter(|&i| found.contains(&rule.scalars[i])).collect()
}
