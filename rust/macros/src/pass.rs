//! Generates the kernel of a pass: a loop over the elements of an array, or over its row or column vectors. Checks nothing.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::analyze::{PROLOGUE, tested_for_nan};
use crate::loops::{addition, iterations, iterations_of_row, lane_start, lane_type};
use crate::streams::{Domain, Stream, StreamKind, Variant, stored, stores_state, streams};
use crate::terms::{Factors, counts, fused};
use crate::tree::*;

/// The type named `carrier`, which implements a pass: its loop.
pub fn kernel(rule: &Rule, stage: &Stage, domain: Domain, carrier: &Ident, variant: Variant) -> TokenStream {
    let one_row = variant == Variant::OneRow;
    let streams = streams(rule, stage, domain, variant);
    let stored = stored(rule, stage, domain);
    let arguments = match &stage.kind {
        Kind::Pass(arguments) => arguments.clone(),
        Kind::Text(_) => Arguments::default(),
    };
    let exponents = exponents(rule, stage);
    let scalars =
        rule.scalars.iter().enumerate().skip(PROLOGUE.len()).filter(|(_, name)| stage.reads(name)).map(|(i, name)| {
            let name = format_ident!("{name}");
            let value = match exponents.contains(&i) {
                true => quote!(match POWERS { 1 => 0.5, 2 => 1.0, _ => scalars[#i] }),
                false => quote!(scalars[#i]),
            };
            quote!(let #name = <P::Compute as Real>::from_f64(#value);)
        });
    let mut loads = Vec::new();
    for stream in streams.iter().filter(|stream| stream.read) {
        let (name, slice) = (&stream.name, &stream.slice);
        let value = match stream.kind {
            StreamKind::Grad(_) => quote!(#slice[i].load()),
            StreamKind::State(_) => quote!(#slice[i].dequantize()),
            StreamKind::Param(_) => match (&arguments.save, &arguments.restore) {
                (Some(backup), _) => {
                    let copy = format_ident!("slice_of_{backup}");
                    quote!({ #copy[i] = #slice[i]; #slice[i].load() })
                }
                (None, Some(backup)) => {
                    let copy = format_ident!("slice_of_{backup}");
                    quote!(#copy[i].load())
                }
                (None, None) => quote!(#slice[i].load()),
            },
            StreamKind::Vector(_) => quote!(#slice[i].load()),
            StreamKind::Operand(_) => quote!(#slice[i]),
            StreamKind::OfRow(_) => quote!(#slice[0]),
            StreamKind::Backup(_) | StreamKind::Tile(_) | StreamKind::Sums(_) => continue,
        };
        loads.push(quote!(let mut #name = #value;));
    }
    let scales = arguments.grad && !arguments.raw;
    let decays = scales && arguments.param;
    let mut prologue = TokenStream::new();
    if scales {
        prologue.extend(quote!(g = g * gradient_factor;));
    }
    if decays {
        prologue.extend(quote!(if L2 {
            g = fma(l2, p, g);
        }));
    }
    if stored.iter().any(|name| name == "p") {
        prologue.extend(quote!(p = p * decay;));
    }
    let kept = stage.statements.iter().filter(|statement| !(variant == Variant::Recalls && statement.recall));
    let mut values =
        kept.clone().map(|statement| &statement.value).chain(stage.reductions.iter().map(|one| &one.value));
    let divides = values.any(Expr::divides);
    let body = kept.map(|statement| {
        let (name, value) = (&statement.name, real(&statement.value));
        if statement.local { quote!(let #name = #value;) } else { quote!(#name = #value;) }
    });
    let tiles = streams.iter().filter_map(|stream| match stream.kind {
        StreamKind::Tile(_) => Some(&stream.slice),
        _ => None,
    });
    let factors = Factors::new(stage);
    let stored_terms: TokenStream = factors
        .tiles
        .iter()
        .zip(tiles)
        .filter(|(factor, _)| !(one_row && matches!(factor, Expr::Number(..))))
        .map(|(factor, slice)| {
            let value = real(factor);
            quote!(#slice[i] = #value;)
        })
        .collect();
    let mut stores = Vec::new();
    let mut canonical = Vec::new();
    for stream in streams.iter().filter(|stream| stored.iter().any(|name| stream.name == name)) {
        let (name, slice) = (&stream.name, &stream.slice);
        match stream.kind {
            StreamKind::State(k) => {
                let k = k - 2;
                stores.push(quote! {
                    #slice[i] = S::quantize(#name, if S::RANDOM_BITS > 0 { places[i] ^ blocks[#k] } else { 0 });
                });
                canonical.push(quote!(#slice.iter_mut().for_each(|x| *x = x.canonical());));
            }
            _ => {
                stores.push(quote!(#slice[i] = Storage::put(#name);));
                canonical.push(quote!(#slice.iter_mut().for_each(|x| *x = Storage::store(x.load()));));
            }
        }
    }
    let tested = if stored.is_empty() { Vec::new() } else { tested_for_nan(stage, &stored) };
    // Those that the loop adds up in lanes, and those that it adds up column by column.
    let in_lanes = |reduction: &Reduction| match one_row {
        true => reduction.scope != Scope::Col,
        false => fused(stage, reduction),
    };
    let sums: Vec<_> = stage.reductions.iter().enumerate().filter(|(_, reduction)| in_lanes(reduction)).collect();
    let of_cols = stage.reductions.iter().enumerate().filter(|(_, one)| one_row && one.scope == Scope::Col);
    let of_cols = of_cols.map(|(k, reduction)| {
        let slice = format_ident!("slice_of_sums_{k}");
        addition(reduction, &quote!(#slice[i]), true, &real)
    });
    let tested = tested.iter().map(|name| {
        let name = format_ident!("{name}");
        quote!(nan |= (#name - #name).bits();)
    });
    let added_up = || sums.iter().map(|(k, reduction)| (*k, *reduction)).filter(|(_, reduction)| !counts(reduction));
    let lanes: Vec<_> = added_up().map(|(k, _)| format_ident!("lanes_{k}")).collect();
    let lane_types: Vec<_> = added_up().map(|(_, reduction)| lane_type(reduction)).collect();
    let starts: Vec<_> = added_up().map(|(_, reduction)| lane_start(reduction)).collect();
    let value = |factor: &Expr| match factors.tile(factor) {
        _ if matches!(factor, Expr::Number(..)) => real(factor),
        Some(k) if one_row => {
            let slice = format_ident!("slice_of_tile_{k}");
            quote!(#slice[i])
        }
        None if one_row => quote!(slice_of_p[i].load()),
        _ => real(factor),
    };
    let added = added_up()
        .zip(&lanes)
        .map(|((_, reduction), lanes)| addition(reduction, &quote!(#lanes[lane]), false, &value))
        .collect::<TokenStream>();
    let added_here = if one_row { TokenStream::new() } else { added.clone() };
    let totals = sums.iter().map(|(k, reduction)| {
        let lanes = format_ident!("lanes_{k}");
        let total = match reduction.operation {
            _ if counts(reduction) => quote!((end - start) as f64),
            Operation::Max => quote!(largest(#lanes)),
            _ => quote!(fold(#lanes.map(Into::into))),
        };
        quote! {
            // SAFETY: the caller guarantees that each block has a place for each sum.
            unsafe { extras.tail.sums.add(#k * extras.tail.stride + block).write(#total) };
        }
    });
    let element = quote! {
        #(#loads)*
        #prologue
        #(#body)*
        #stored_terms
        #added_here
        #(#of_cols)*
        #(#stores)*
        #(#tested)*
    };
    let iterations = match one_row {
        true => iterations_of_row(&element, &added, &lanes),
        false => iterations(&element, &lanes),
    };
    let parameters: Vec<_> = streams.iter().map(Stream::parameter).collect();
    let call: Vec<_> = streams.iter().map(Stream::argument).collect();
    let written: Vec<_> = streams.iter().filter(|s| stored.iter().any(|name| s.name == name)).collect();
    let written_parameters = written.iter().map(|stream| stream.parameter());
    let written_arguments = written.iter().map(|stream| stream.argument());
    let cut = streams.iter().map(|stream| {
        let slice = &stream.slice;
        match (stream.kind, stream.written) {
            (StreamKind::OfRow(_), _) => quote!(let #slice = &#slice[..1];),
            (_, true) => quote!(let #slice = &mut #slice[..n];),
            (_, false) => quote!(let #slice = &#slice[..n];),
        }
    });
    let tests = if stored.is_empty() {
        TokenStream::new()
    } else {
        quote! {
            if nan != Default::default() {
                let (done, m) = (0, n);
                // SAFETY: as above; the slices of the loop are no longer in use.
                unsafe { canonicalize::<P, S>(#(#written_arguments),*) };
            }
        }
    };
    let canonicalize = if stored.is_empty() {
        TokenStream::new()
    } else {
        quote! {
            // Testing each number for NaN in the loop takes half as long again as checking once at the end whether there was
            // one. If there was, every NaN is canonicalized.
            #[cold]
            #[inline(never)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn canonicalize<P: Storage, S: StateStorage>(#(#written_parameters),*) {
                #(#canonical)*
            }
        }
    };
    let prefetches = streams.iter().filter_map(|stream| {
        let pointer = stream.pointer();
        let prefetch = quote!(crate::cpu::prefetch_batch(#pointer, m););
        match stream.kind {
            // A parameter that is there for weight decay alone.
            StreamKind::Param(_) if !stream.written && !stage.reads("p") && arguments.save.is_none() => {
                decays.then(|| quote!(if L2 { #prefetch }))
            }
            StreamKind::Param(_) | StreamKind::Grad(_) | StreamKind::State(_) | StreamKind::Backup(_) => Some(prefetch),
            _ => None,
        }
    });
    let prefetches: Vec<_> = prefetches.collect();
    let random = stores_state(&streams, &stored);
    // Loops of their own where all exponents are 0.5, or all 1: a root takes a fraction of the time of a power. Each is
    // called by its name: through a pointer it would not be inlined, and so not be compiled for the CPU level.
    let each = |powers: u8| quote!(each::<P, G, S, L2, FMA, #powers>(m, #(#call,)* scalars, places, &blocks, #(&mut #lanes),*));
    let (powers, roots, firsts) = (each(0), each(1), each(2));
    let chosen = match exponents.as_slice() {
        [] => powers,
        [..] => quote! {
            if #(scalars[#exponents] == 0.5)&&* {
                #roots
            } else if #(scalars[#exponents] == 1.0)&&* {
                #firsts
            } else {
                #powers
            }
        },
    };
    let batch = |end: &TokenStream| {
        quote! {
            while done < #end {
                let m = size.min(#end - done);
                let (places, blocks) = extras.random(done);
                if extras.prefetches {
                    // SAFETY: the caller guarantees that there are these streams.
                    unsafe { #(#prefetches)* }
                }
                // SAFETY: the caller guarantees that every stream is valid, aligned, and overlaps no other.
                nan |= unsafe { #chosen };
                done += m;
            }
        }
    };
    let batches = if sums.is_empty() {
        batch(&quote!(n))
    } else {
        let batches = batch(&quote!(end));
        quote! {
            for block in 0..n.div_ceil(BLOCK) {
                let start = done;
                let end = n.min(start + BLOCK);
                #(let mut #lanes = [<#lane_types as Real>::from_f64(#starts); LANES];)*
                #batches
                #(#totals)*
            }
        }
    };
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
                    #(#scalars)*
                    #(#cut)*
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

/// An expression in the compute type.
fn real(expr: &Expr) -> TokenStream {
    match expr {
        Expr::Number(text, span) => {
            let single = syn::LitFloat::new(&format!("{text}f32"), *span);
            let double = syn::LitFloat::new(&format!("{text}f64"), *span);
            quote!(<P::Compute as Real>::literal(#single, #double))
        }
        Expr::Name(name) => quote!(#name),
        Expr::Unary(operator, a) => {
            let (operator, a) = (operator.parse::<TokenStream>().expect("an operator"), real(a));
            quote!((#operator #a))
        }
        Expr::Binary(operator, a, b) => {
            let operator: TokenStream = operator.parse().expect("an operator");
            let (a, b) = (real(a), real(b));
            quote!((#a #operator #b))
        }
        Expr::Call(name, arguments) => {
            let arguments = arguments.iter().map(real);
            quote!(#name(#(#arguments),*))
        }
    }
}
