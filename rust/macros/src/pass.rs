//! Generates the kernel of a pass: a loop over the elements of an array, or over its row or column vectors. Checks nothing.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::analyze::tested_for_nan;
use crate::streams::{Domain, Stream, StreamKind, stored, stores_state, streams};
use crate::terms::{Factors, Term, fused, term};
use crate::tree::*;

/// The type that implements a pass, with its loop. With `recalls` it reads the reused term from a stream.
pub fn kernel(rule: &Rule, stage: &Stage, domain: Domain, carrier: &Ident, recalls: bool) -> TokenStream {
    let streams = streams(rule, stage, domain, recalls);
    let stored = stored(rule, stage, domain);
    let arguments = match &stage.kind {
        Kind::Pass(arguments) => arguments.clone(),
        Kind::Text(_) => Arguments::default(),
    };
    let exponents = exponents(rule, stage);
    let scalars = rule.scalars.iter().enumerate().skip(3).filter(|(_, name)| stage.reads(name)).map(|(i, name)| {
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
            StreamKind::Backup(_) | StreamKind::Tile(_) => continue,
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
    let kept = stage.statements.iter().filter(|statement| !(recalls && statement.recall));
    let body = kept.map(|statement| {
        let (name, value) = (&statement.name, real(&statement.value));
        if statement.local { quote!(let #name = #value;) } else { quote!(#name = #value;) }
    });
    let tiles = streams.iter().filter_map(|stream| match stream.kind {
        StreamKind::Tile(_) => Some(&stream.slice),
        _ => None,
    });
    let factors = Factors::new(stage);
    let stored_terms = factors.tiles.iter().zip(tiles).map(|(factor, slice)| {
        let value = real(factor);
        quote!(#slice[i] = #value;)
    });
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
    let sums: Vec<_> = stage.reductions.iter().filter(|reduction| fused(stage, reduction)).collect();
    let tested = tested.iter().map(|name| {
        let name = format_ident!("{name}");
        quote!(nan |= (#name - #name).bits();)
    });
    let lanes: Vec<_> = (0..sums.len()).map(|k| format_ident!("lanes_{k}")).collect();
    let lane_types: Vec<_> = sums.iter().map(|reduction| lane_type(reduction)).collect();
    let added = sums.iter().zip(&lanes).map(|(reduction, lanes)| addition(reduction, lanes));
    let places = stage.reductions.iter().enumerate().filter(|(_, reduction)| fused(stage, reduction));
    let totals = places.zip(&lanes).map(|((k, _), lanes)| {
        quote! {
            // SAFETY: the caller guarantees that each block has a place for each sum.
            unsafe { extras.tail.sums.add(#k * extras.tail.stride + block).write(fold(#lanes.map(Into::into))) };
        }
    });
    let element = quote! {
        #(#loads)*
        #prologue
        #(#body)*
        #(#stored_terms)*
        #(#added)*
        #(#stores)*
        #(#tested)*
    };
    let iterations = iterations(&element, &lanes);
    let parameters: Vec<_> = streams.iter().map(Stream::parameter).collect();
    let call: Vec<_> = streams.iter().map(Stream::argument).collect();
    let written: Vec<_> = streams.iter().filter(|s| stored.iter().any(|name| s.name == name)).collect();
    let written_parameters = written.iter().map(|stream| stream.parameter());
    let written_arguments = written.iter().map(|stream| stream.argument());
    let cut = streams.iter().map(|stream| {
        let slice = &stream.slice;
        if stream.written { quote!(let #slice = &mut #slice[..n];) } else { quote!(let #slice = &#slice[..n];) }
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
    let prefetches = streams.iter().filter_map(|stream| match stream.kind {
        StreamKind::Operand(_) | StreamKind::Tile(_) | StreamKind::Vector(_) => None,
        _ => Some(stream.pointer()),
    });
    let prefetches: Vec<_> = prefetches.map(|pointer| quote!(crate::cpu::prefetch_batch(#pointer, m);)).collect();
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
                let end = n.min(done + BLOCK);
                #(let mut #lanes = [<#lane_types as Real>::from_f64(0.0); LANES];)*
                #batches
                #(#totals)*
            }
        }
    };
    let reads_l2 = decays;
    quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types)] // named after the rule
        pub(crate) enum #carrier {}

        impl crate::kernel::Pass for #carrier {
            const DECAYS: bool = #reads_l2;

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
                use crate::numeric::reduce::{BLOCK, LANES, fold, plus_product};
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
    fn of(expr: &Expr, found: &mut Vec<String>) {
        match expr {
            Expr::Number(..) | Expr::Name(_) => {}
            Expr::Unary(_, a) => of(a, found),
            Expr::Binary(_, a, b) => {
                of(a, found);
                of(b, found);
            }
            Expr::Call(name, arguments) => {
                if let (true, [_, Expr::Name(exponent)]) = (name == "pow", arguments.as_slice()) {
                    found.push(exponent.to_string());
                }
                arguments.iter().for_each(|argument| of(argument, found));
            }
        }
    }
    let mut found = Vec::new();
    stage.each_expr(|expr| of(expr, &mut found));
    (crate::analyze::PROLOGUE.len()..rule.scalars.len()).filter(|&i| found.contains(&rule.scalars[i])).collect()
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

/// The type in which a sum is accumulated.
fn lane_type(reduction: &Reduction) -> TokenStream {
    if is_fast(reduction) { quote!(P::Compute) } else { quote!(f64) }
}

/// Whether a sum has lanes in the compute type.
fn is_fast(reduction: &Reduction) -> bool {
    let term = term(reduction);
    reduction.operation == Operation::FastSum && term.right.is_some_and(|right| right.same(term.left))
}

/// Adds an element's value to a lane of a sum.
fn addition(reduction: &Reduction, lanes: &Ident) -> TokenStream {
    let Term { left, right } = term(reduction);
    let left = real(left);
    if is_fast(reduction) {
        return quote!({
            let x = #left;
            #lanes[lane] = #lanes[lane] + x * x;
        });
    }
    match right.map(real) {
        Some(right) => quote!(#lanes[lane] = plus_product::<P::Compute, FMA>(#lanes[lane], #left, #right);),
        None => quote!(#lanes[lane] = #lanes[lane] + #left.into();),
    }
}

/// The loops over the elements. Sums need rows of as many elements as there are lanes.
fn iterations(element: &TokenStream, lanes: &[Ident]) -> TokenStream {
    if lanes.is_empty() {
        return quote! {
            let mut nan = <P::Compute as Real>::Bits::default();
            for i in 0..n {
                #element
            }
            nan
        };
    }
    let kept: Vec<_> = lanes.iter().map(|lanes| format_ident!("kept_{lanes}")).collect();
    quote! {
        let mut nans = [<P::Compute as Real>::Bits::default(); LANES];
        // Lanes with a fixed index stay in registers.
        #(let #kept = #lanes;)*
        #(let mut #lanes = *#kept;)*
        for row in 0..n / LANES {
            for lane in 0..LANES {
                let (i, mut nan) = (row * LANES + lane, nans[lane]);
                // SAFETY: the rows have at most `n` elements.
                unsafe { std::hint::assert_unchecked(i < n) };
                #element
                nans[lane] = nan;
            }
        }
        #(*#kept = #lanes;)*
        #(let #lanes = #kept;)*
        let mut nan = <P::Compute as Real>::Bits::default();
        nans.iter().for_each(|&lane| nan |= lane);
        for lane in 0..n % LANES {
            let i = n / LANES * LANES + lane;
            #element
        }
        nan
    }
}
