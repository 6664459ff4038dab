//! Generates what the loop of a pass does with one element: it loads numbers, computes, and stores them. Generates no loop.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::analyze::tested_for_nan;
use crate::expressions::{Precision, expression, statements};
use crate::streams::{Domain, Stream, StreamKind, Variant, stored, streams};
use crate::terms::Factors;
use crate::tree::*;

/// An element of a pass, or of a row or column vector.
pub struct Element<'a> {
    pub stage: &'a Stage,
    pub arguments: Arguments,
    variant: Variant,
    pub streams: Vec<Stream>,
    /// The names that it stores.
    stored: Vec<String>,
}

impl<'a> Element<'a> {
    pub fn new(rule: &Rule, stage: &'a Stage, domain: Domain, variant: Variant) -> Element<'a> {
        let arguments = match &stage.kind {
            Kind::Pass(arguments) => arguments.clone(),
            Kind::Text(_) => Arguments::default(),
        };
        let (streams, stored) = (streams(rule, stage, domain, variant), stored(rule, stage, domain));
        Element { stage, arguments, variant, streams, stored }
    }

    /// The streams of the names that it stores.
    pub fn stored(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| self.stored.iter().any(|name| stream.name == name))
    }

    pub fn stores_anything(&self) -> bool {
        !self.stored.is_empty()
    }

    pub fn stores_state(&self) -> bool {
        self.stored().any(|stream| stream.kind == StreamKind::State)
    }

    /// Whether it scales gradients.
    fn scales(&self) -> bool {
        self.arguments.grad && !self.arguments.raw
    }

    /// Whether it may add weight decay to the gradient.
    pub fn decays(&self) -> bool {
        self.scales() && self.arguments.param
    }

    /// Whether it divides or takes roots.
    pub fn divides(&self) -> bool {
        let values = self.statements().map(|statement| &statement.value);
        values.chain(self.stage.reductions.iter().map(|one| &one.value)).any(Expr::divides)
    }

    /// The statements that it evaluates.
    fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.stage.statements.iter().filter(|statement| !(self.variant == Variant::Recalls && statement.recall))
    }

    /// Everything that it does; `additions` are what it adds to sums.
    pub fn code(&self, additions: &TokenStream) -> TokenStream {
        let (loads, prologue) = (self.loads(), self.prologue());
        let statements = statements(self.statements(), Precision::Compute);
        let (terms, stores, tests) = (self.terms(), self.stores(), self.tests());
        quote! {
            #loads
            #prologue
            #statements
            #terms
            #additions
            #stores
            #tests
        }
    }

    fn loads(&self) -> TokenStream {
        let load = |stream: &Stream| {
            let (name, slice) = (&stream.name, &stream.slice);
            let value = match stream.kind {
                StreamKind::Param => match (&self.arguments.save, &self.arguments.restore) {
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
                StreamKind::Grad | StreamKind::Vector => quote!(#slice[i].load()),
                StreamKind::State => quote!(#slice[i].dequantize()),
                StreamKind::Operand => quote!(#slice[i]),
                StreamKind::OfRow => quote!(#slice[0]),
                StreamKind::Backup | StreamKind::Tile | StreamKind::Sums => return TokenStream::new(),
            };
            quote!(let mut #name = #value;)
        };
        self.streams.iter().filter(|stream| stream.read).map(load).collect()
    }

    /// What comes before the rule's statements.
    fn prologue(&self) -> TokenStream {
        let mut prologue = TokenStream::new();
        if self.scales() {
            prologue.extend(quote!(g = g * gradient_factor;));
        }
        if self.decays() {
            prologue.extend(quote!(if L2 {
                g = fma(l2, p, g);
            }));
        }
        if self.stored.iter().any(|name| name == "p") {
            prologue.extend(quote!(p = p * decay;));
        }
        prologue
    }

    /// Stores the terms that are reduced from memory.
    fn terms(&self) -> TokenStream {
        let tiles = self.streams.iter().filter(|stream| stream.kind == StreamKind::Tile);
        let factors = Factors::new(self.stage).tiles;
        let kept = |factor: &Expr| !(self.variant == Variant::OneRow && matches!(factor, Expr::Number(..)));
        let stored = factors.into_iter().zip(tiles).filter(|(factor, _)| kept(factor)).map(|(factor, tile)| {
            let (slice, value) = (&tile.slice, expression(factor, Precision::Compute));
            quote!(#slice[i] = #value;)
        });
        stored.collect()
    }

    fn stores(&self) -> TokenStream {
        let store = |stream: &Stream| {
            let (name, slice) = (&stream.name, &stream.slice);
            if stream.kind != StreamKind::State {
                return quote!(#slice[i] = Storage::put(#name););
            }
            let k = stream.place - 2;
            quote! {
                #slice[i] = S::quantize(#name, if S::RANDOM_BITS > 0 { places[i] ^ blocks[#k] } else { 0 });
            }
        };
        self.stored().map(store).collect()
    }

    /// Notes whether a stored number may be NaN.
    fn tests(&self) -> TokenStream {
        let tested = if self.stores_anything() { tested_for_nan(self.stage, &self.stored) } else { Vec::new() };
        let test = |name: String| {
            let name = format_ident!("{name}");
            quote!(nan |= (#name - #name).bits();)
        };
        tested.into_iter().map(test).collect()
    }
}
