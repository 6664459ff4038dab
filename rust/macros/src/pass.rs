//! Generates the kernel of a pass: a loop over the elements of an array, or over its row or column vectors. Checks nothing.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::analyze::tested_for_nan;
use crate::tree::*;

/// What a loop iterates over.
#[derive(Clone, Copy, PartialEq)]
pub enum Domain {
    Elements,
    Rows,
    Cols,
}

/// The operand of a reduction: a product of two factors, a square, or one factor.
pub struct Term<'a> {
    pub left: &'a Expr,
    pub right: Option<&'a Expr>,
}

/// Splits a reduction's value into factors; products are multiplied in float64.
pub fn term(reduction: &Reduction) -> Term<'_> {
    match &reduction.value {
        Expr::Binary("*", a, b) if reduction.operation != Operation::Max => Term { left: a, right: Some(b) },
        value => Term { left: value, right: None },
    }
}

/// Where the factors of a stage's reductions are stored.
pub struct Factors<'a> {
    /// The values that the kernel writes, in tile order.
    pub tiles: Vec<&'a Expr>,
}

impl<'a> Factors<'a> {
    pub fn new(stage: &'a Stage) -> Factors<'a> {
        let mut tiles: Vec<&Expr> = Vec::new();
        for reduction in &stage.reductions {
            let term = term(reduction);
            for factor in [Some(term.left), term.right].into_iter().flatten() {
                if in_memory(stage, factor) != Some(Memory::Always("p")) && !tiles.iter().any(|tile| tile.same(factor))
                {
                    tiles.push(factor);
                }
            }
        }
        Factors { tiles }
    }

    pub fn tile(&self, factor: &Expr) -> Option<usize> {
        self.tiles.iter().position(|tile| tile.same(factor))
    }
}

/// Whether a factor is a value that is already in memory.
#[derive(PartialEq)]
pub enum Memory {
    /// In every step.
    Always(&'static str),
    /// Only in steps that neither scale gradients nor add weight decay to them.
    Unscaled(&'static str),
}

pub fn in_memory(stage: &Stage, factor: &Expr) -> Option<Memory> {
    let Kind::Pass(arguments) = &stage.kind else { return None };
    match factor {
        Expr::Name(name) if name == "p" && !stage.assigns("p") && arguments.restore.is_none() => {
            Some(Memory::Always("p"))
        }
        Expr::Name(name) if name == "g" && !stage.assigns("g") => Some(match arguments.raw {
            true => Memory::Always("g"),
            false => Memory::Unscaled("g"),
        }),
        _ => None,
    }
}

/// The names of the row and column vectors that an element stage reads, in stream order.
pub fn operands<'a>(rule: &'a Rule, stage: &Stage) -> Vec<(Scope, usize, &'a str)> {
    let rows = rule.rows.iter().enumerate().map(|(i, name)| (Scope::Row, i, name.as_str()));
    let cols = rule.cols.iter().enumerate().map(|(i, name)| (Scope::Col, i, name.as_str()));
    rows.chain(cols).filter(|(_, _, name)| stage.reads(name)).collect()
}

/// The names that a stage stores: states and the parameter, or vectors.
pub fn stored(rule: &Rule, stage: &Stage, domain: Domain) -> Vec<String> {
    let names: Vec<String> = match domain {
        Domain::Elements => {
            let states = rule.states.iter().filter(|state| state.scope == Scope::Element);
            std::iter::once("p".to_string()).chain(states.map(|state| state.name.to_string())).collect()
        }
        Domain::Rows => rule.rows.clone(),
        Domain::Cols => rule.cols.clone(),
    };
    names.into_iter().filter(|name| stage.assigns(name)).collect()
}

/// One stream of a loop: its slice, element type and whether it is written.
struct Stream {
    name: Ident,
    slice: Ident,
    kind: StreamKind,
    written: bool,
    read: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum StreamKind {
    Param(usize),
    Grad(usize),
    State(usize),
    Backup(usize),
    Vector(usize),
    Operand(usize),
    Tile(usize),
}

impl Stream {
    fn new(name: &str, kind: StreamKind, written: bool, read: bool) -> Stream {
        Stream { name: format_ident!("{name}"), slice: format_ident!("slice_of_{name}"), kind, written, read }
    }

    fn element(&self) -> TokenStream {
        match self.kind {
            StreamKind::Param(_) | StreamKind::Backup(_) | StreamKind::Vector(_) => quote!(P),
            StreamKind::Grad(_) => quote!(G),
            StreamKind::State(_) => quote!(S),
            _ => quote!(P::Compute),
        }
    }

    fn parameter(&self) -> TokenStream {
        let (slice, element) = (&self.slice, self.element());
        if self.written { quote!(#slice: &mut [#element]) } else { quote!(#slice: &[#element]) }
    }

    /// Where the stream is at `done`, relative to the kernel's start.
    fn pointer(&self) -> TokenStream {
        let element = self.element();
        match self.kind {
            StreamKind::Operand(i) | StreamKind::Tile(i) => quote!((*extras.tail.add(#i)).cast::<#element>().add(done)),
            StreamKind::Param(i)
            | StreamKind::Grad(i)
            | StreamKind::State(i)
            | StreamKind::Backup(i)
            | StreamKind::Vector(i) => quote!((*streams.add(#i)).cast::<#element>().add(at + done)),
        }
    }

    /// The slice of `m` elements from `done`.
    fn argument(&self) -> TokenStream {
        let pointer = self.pointer();
        match self.written {
            true => quote!(std::slice::from_raw_parts_mut(#pointer, m)),
            false => quote!(std::slice::from_raw_parts(#pointer.cast_const(), m)),
        }
    }
}

/// The name that a stage reuses from an earlier pass.
pub fn recalled(stage: &Stage) -> Option<&Ident> {
    stage.statements.iter().find(|statement| statement.recall).map(|statement| &statement.name)
}

/// The type that implements a pass, with its loop. With `recalls` it reads the reused term from a stream.
pub fn kernel(rule: &Rule, stage: &Stage, domain: Domain, carrier: &Ident, recalls: bool) -> TokenStream {
    let streams = streams(rule, stage, domain, recalls);
    let stored = stored(rule, stage, domain);
    let arguments = match &stage.kind {
        Kind::Pass(arguments) => arguments.clone(),
        Kind::Text(_) => Arguments::default(),
    };
    let scalars = rule.scalars.iter().enumerate().skip(3).filter(|(_, name)| stage.reads(name)).map(|(i, name)| {
        let name = format_ident!("{name}");
        quote!(let #name = <P::Compute as Real>::from_f64(scalars[#i]);)
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
    let terms = factors.tiles.iter().zip(tiles).map(|(factor, slice)| {
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
    let tested = tested.iter().map(|name| {
        let name = format_ident!("{name}");
        quote!(nan |= (#name - #name).bits();)
    });
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
    let prefetches = prefetches.map(|pointer| quote!(crate::cpu::prefetch_batch(#pointer, m);));
    let random = stream_writes_state(&streams, &stored);
    let reads_l2 = decays;
    quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types)] // named after the rule
        pub(crate) enum #carrier {}

        impl crate::kernel::Pass for #carrier {
            const DECAYS: bool = #reads_l2;

            #[inline(always)]
            unsafe fn run<P, G, S, const L2: bool>(
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
                use crate::numeric::{QUANTIZATION_BLOCK, Real, StateStorage, Storage, abs, fma, max, min, select, sign, sqrt};

                #[inline(always)]
                // One argument a stream: the compiler assumes no aliasing only between slices that are parameters.
                #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters, clippy::needless_range_loop)]
                #[allow(unused_mut, unused_variables, unused_assignments, clippy::assign_op_pattern, clippy::eq_op)]
                #[allow(clippy::suspicious_operation_groupings, clippy::let_and_return)]
                fn each<P, G, S, const L2: bool>(
                    n: usize,
                    #(#parameters,)*
                    scalars: &[f64],
                    places: &[u32],
                    blocks: &[u32],
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
                    let mut nan = <P::Compute as Real>::Bits::default();
                    for i in 0..n {
                        #(#loads)*
                        #prologue
                        #(#body)*
                        #(#terms)*
                        #(#stores)*
                        #(#tested)*
                    }
                    nan
                }
                #canonicalize

                let size = match () {
                    () if S::RANDOM_BITS > 0 && #random => QUANTIZATION_BLOCK,
                    () if extras.prefetches => crate::cpu::PREFETCH_BATCH,
                    () => n,
                };
                let (mut nan, mut done) = (<P::Compute as Real>::Bits::default(), 0);
                while done < n {
                    let m = size.min(n - done);
                    let (places, blocks) = extras.random(done);
                    if extras.prefetches {
                        // SAFETY: the caller guarantees that there are these streams.
                        unsafe { #(#prefetches)* }
                    }
                    // SAFETY: the caller guarantees that every stream is valid, aligned, and overlaps no other.
                    nan |= unsafe { each::<P, G, S, L2>(m, #(#call,)* scalars, places, &blocks) };
                    done += m;
                }
                let _ = nan;
                #tests
            }
        }
    }
}

fn stream_writes_state(streams: &[Stream], stored: &[String]) -> bool {
    streams.iter().any(|s| matches!(s.kind, StreamKind::State(_)) && stored.iter().any(|name| s.name == name))
}

/// The streams of a loop, in the order of the drivers' tables.
fn streams(rule: &Rule, stage: &Stage, domain: Domain, recalls: bool) -> Vec<Stream> {
    let mut result = Vec::new();
    let stored = stored(rule, stage, domain);
    let stores = |name: &str| stored.iter().any(|stored| stored == name);
    let mut tail = 0;
    if domain == Domain::Elements {
        let Kind::Pass(arguments) = &stage.kind else { unreachable!("elements have passes") };
        if arguments.param {
            result.push(Stream::new("p", StreamKind::Param(0), stores("p"), true));
        }
        if arguments.grad {
            result.push(Stream::new("g", StreamKind::Grad(1), false, true));
        }
        for (k, state) in rule.states.iter().filter(|state| state.scope.is_stream()).enumerate() {
            let (name, k) = (state.name.to_string(), k + 2);
            if state.scope == Scope::Backup {
                let (saves, restores) = (&arguments.save, &arguments.restore);
                if saves.as_ref() == Some(&state.name) || restores.as_ref() == Some(&state.name) {
                    result.push(Stream::new(&name, StreamKind::Backup(k), saves.is_some(), false));
                }
            } else if stage.reads(&name) || stores(&name) {
                result.push(Stream::new(&name, StreamKind::State(k), stores(&name), true));
            }
        }
        for (_, _, name) in operands(rule, stage) {
            result.push(Stream::new(name, StreamKind::Operand(tail), false, true));
            tail += 1;
        }
        if let Some(name) = recalled(stage).filter(|_| recalls) {
            result.push(Stream::new(&name.to_string(), StreamKind::Operand(tail), false, true));
            tail += 1;
        }
    } else {
        let names = if domain == Domain::Rows { &rule.rows } else { &rule.cols };
        for (i, name) in names.iter().enumerate().filter(|(_, name)| stage.reads(name) || stores(name)) {
            result.push(Stream::new(name, StreamKind::Vector(i), stores(name), true));
        }
    }
    for k in 0..Factors::new(stage).tiles.len() {
        result.push(Stream::new(&format!("tile_{k}"), StreamKind::Tile(tail + k), true, false));
    }
    result
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
