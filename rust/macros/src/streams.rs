//! The streams of memory that the loop of a pass reads and writes. Generates no loop.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::terms::Factors;
use crate::tree::*;

/// What a loop iterates over.
#[derive(Clone, Copy, PartialEq)]
pub enum Domain {
    Elements,
    Rows,
    Cols,
}

/// What a loop does with the terms of reductions.
#[derive(Clone, Copy, PartialEq)]
pub enum Variant {
    /// It stores those that it does not add up.
    Any,
    /// It also reads one that an earlier pass has stored.
    Recalls,
    /// Its elements are neighbours in one row of a matrix, and it adds up everything.
    OneRow,
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

/// One stream of a loop: its slice, element type, place among the driver's streams of its kind, and whether it is written.
pub struct Stream {
    pub name: Ident,
    pub slice: Ident,
    pub kind: StreamKind,
    pub place: usize,
    pub written: bool,
    pub read: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum StreamKind {
    Param,
    Grad,
    State,
    Backup,
    Vector,
    Operand,
    /// An operand with one value for all elements.
    OfRow,
    Tile,
    /// Sums of columns.
    Sums,
}

impl Stream {
    fn new(name: &str, (kind, place): (StreamKind, usize), written: bool, read: bool) -> Stream {
        Stream { name: format_ident!("{name}"), slice: format_ident!("slice_of_{name}"), kind, place, written, read }
    }

    fn element(&self) -> TokenStream {
        match self.kind {
            StreamKind::Param | StreamKind::Backup | StreamKind::Vector => quote!(P),
            StreamKind::Grad => quote!(G),
            StreamKind::State => quote!(S),
            StreamKind::Sums => quote!(f64),
            _ => quote!(P::Compute),
        }
    }

    pub fn parameter(&self) -> TokenStream {
        let (slice, element) = (&self.slice, self.element());
        if self.written { quote!(#slice: &mut [#element]) } else { quote!(#slice: &[#element]) }
    }

    /// Where the stream is at `done`, relative to the kernel's start.
    pub fn pointer(&self) -> TokenStream {
        let (element, place) = (self.element(), self.place);
        match self.kind {
            StreamKind::Operand | StreamKind::Tile | StreamKind::Sums => {
                quote!((*extras.tail.streams.add(#place)).cast::<#element>().add(done))
            }
            StreamKind::OfRow => quote!((*extras.tail.streams.add(#place)).cast::<#element>()),
            _ => quote!((*streams.add(#place)).cast::<#element>().wrapping_add(at + done)),
        }
    }

    /// Tells the compiler how long the slice is.
    pub fn cut(&self) -> TokenStream {
        let slice = &self.slice;
        match (self.kind, self.written) {
            (StreamKind::OfRow, _) => quote!(let #slice = &#slice[..1];),
            (_, true) => quote!(let #slice = &mut #slice[..n];),
            (_, false) => quote!(let #slice = &#slice[..n];),
        }
    }

    /// The slice of `m` elements from `done`.
    pub fn argument(&self) -> TokenStream {
        let pointer = self.pointer();
        match (self.kind, self.written) {
            (StreamKind::OfRow, _) => quote!(std::slice::from_raw_parts(#pointer.cast_const(), 1)),
            (_, true) => quote!(std::slice::from_raw_parts_mut(#pointer, m)),
            (_, false) => quote!(std::slice::from_raw_parts(#pointer.cast_const(), m)),
        }
    }
}

/// The name that a stage reuses from an earlier pass.
pub fn recalled(stage: &Stage) -> Option<&Ident> {
    stage.statements.iter().find(|statement| statement.recall).map(|statement| &statement.name)
}

/// The streams of a loop, in the order of the drivers' tables.
pub fn streams(rule: &Rule, stage: &Stage, domain: Domain, variant: Variant) -> Vec<Stream> {
    let mut result = Vec::new();
    let stored = stored(rule, stage, domain);
    let stores = |name: &str| stored.iter().any(|stored| stored == name);
    let mut tail = 0;
    if domain == Domain::Elements {
        let Kind::Pass(arguments) = &stage.kind else { unreachable!("elements have passes") };
        if arguments.param {
            result.push(Stream::new("p", (StreamKind::Param, 0), stores("p"), true));
        }
        if arguments.grad {
            result.push(Stream::new("g", (StreamKind::Grad, 1), false, true));
        }
        for (k, state) in rule.states.iter().filter(|state| state.scope.is_stream()).enumerate() {
            let (name, k) = (state.name.to_string(), k + 2);
            if state.scope == Scope::Backup {
                let (saves, restores) = (&arguments.save, &arguments.restore);
                if saves.as_ref() == Some(&state.name) || restores.as_ref() == Some(&state.name) {
                    result.push(Stream::new(&name, (StreamKind::Backup, k), saves.is_some(), false));
                }
            } else if stage.reads(&name) || stores(&name) {
                result.push(Stream::new(&name, (StreamKind::State, k), stores(&name), true));
            }
        }
        for (scope, _, name) in operands(rule, stage) {
            let kind = match (variant, scope) {
                (Variant::OneRow, Scope::Row) => StreamKind::OfRow,
                _ => StreamKind::Operand,
            };
            result.push(Stream::new(name, (kind, tail), false, true));
            tail += 1;
        }
        if let Some(name) = recalled(stage).filter(|_| variant == Variant::Recalls) {
            result.push(Stream::new(&name.to_string(), (StreamKind::Operand, tail), false, true));
            tail += 1;
        }
    } else {
        let names = if domain == Domain::Rows { &rule.rows } else { &rule.cols };
        for (i, name) in names.iter().enumerate().filter(|(_, name)| stage.reads(name) || stores(name)) {
            result.push(Stream::new(name, (StreamKind::Vector, i), stores(name), true));
        }
    }
    if variant == Variant::OneRow {
        for (k, _) in stage.reductions.iter().enumerate().filter(|(_, reduction)| reduction.scope == Scope::Col) {
            result.push(Stream::new(&format!("sums_{k}"), (StreamKind::Sums, tail), true, false));
            tail += 1;
        }
    }
    for k in 0..Factors::new(stage).tiles.len() {
        result.push(Stream::new(&format!("tile_{k}"), (StreamKind::Tile, tail + k), true, false));
    }
    result
}
