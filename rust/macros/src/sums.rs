//! Generates what the loop of a pass adds up. Knows no state.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::expressions::{Precision, expression};
use crate::terms::{Factors, Term, counts, fused, term};
use crate::tree::*;

/// The reductions that a loop adds up, each with its number among those of the stage.
pub struct Sums<'a> {
    /// Those over a block of elements.
    of_blocks: Vec<(usize, &'a Reduction)>,
    /// Those of columns, where the elements are of one row.
    of_cols: Vec<(usize, &'a Reduction)>,
    /// The terms that the loop stores.
    factors: Factors<'a>,
    one_row: bool,
}

impl<'a> Sums<'a> {
    pub fn new(stage: &'a Stage, one_row: bool) -> Sums<'a> {
        let all = || stage.reductions.iter().enumerate();
        let of_block = |one: &Reduction| if one_row { one.scope != Scope::Col } else { fused(stage, one) };
        Sums {
            of_blocks: all().filter(|(_, one)| of_block(one)).collect(),
            of_cols: all().filter(|(_, one)| one_row && one.scope == Scope::Col).collect(),
            factors: Factors::new(stage),
            one_row,
        }
    }

    /// Whether no block has a sum.
    pub fn is_empty(&self) -> bool {
        self.of_blocks.is_empty()
    }

    /// Those that have lanes, into which elements go in turn; the number of elements needs none.
    fn in_lanes(&self) -> impl Iterator<Item = (usize, &'a Reduction)> {
        self.of_blocks.iter().copied().filter(|(_, reduction)| !counts(reduction))
    }

    /// The names of the lanes.
    pub fn lanes(&self) -> Vec<Ident> {
        self.in_lanes().map(|(k, _)| format_ident!("lanes_{k}")).collect()
    }

    /// Their types.
    pub fn lane_types(&self) -> Vec<TokenStream> {
        self.in_lanes().map(|(_, reduction)| lane_type(reduction)).collect()
    }

    /// Declares the lanes of a block.
    pub fn declarations(&self) -> TokenStream {
        let starts = self.in_lanes().map(|(_, reduction)| lane_start(reduction));
        let (lanes, types) = (self.lanes(), self.lane_types());
        quote!(#(let mut #lanes = [<#types as Real>::from_f64(#starts); LANES];)*)
    }

    /// Adds an element's values to its lane.
    pub fn additions(&self) -> TokenStream {
        let added = self.in_lanes().zip(self.lanes());
        added.map(|((_, one), lanes)| addition(one, &quote!(#lanes[lane]), false, &|value| self.value(value))).collect()
    }

    /// A factor of an element's value: after the loop over one row it is in memory.
    fn value(&self, factor: &Expr) -> TokenStream {
        match self.factors.tile(factor) {
            _ if !self.one_row || matches!(factor, Expr::Number(..)) => expression(factor, Precision::Compute),
            Some(k) => {
                let slice = format_ident!("slice_of_tile_{k}");
                quote!(#slice[i])
            }
            None => quote!(slice_of_p[i].load()),
        }
    }

    /// Adds an element's values to the sums of its column.
    pub fn additions_of_cols(&self) -> TokenStream {
        let each = self.of_cols.iter().map(|(k, reduction)| {
            let slice = format_ident!("slice_of_sums_{k}");
            addition(reduction, &quote!(#slice[i]), true, &|value| expression(value, Precision::Compute))
        });
        each.collect()
    }

    /// Writes the sums of a block.
    pub fn totals(&self) -> TokenStream {
        let each = self.of_blocks.iter().map(|(k, reduction)| {
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
        each.collect()
    }
}

/// The type in which a reduction is accumulated.
fn lane_type(reduction: &Reduction) -> TokenStream {
    let narrow = is_fast(reduction) || reduction.operation == Operation::Max;
    if narrow { quote!(P::Compute) } else { quote!(f64) }
}

/// What a lane starts with.
fn lane_start(reduction: &Reduction) -> TokenStream {
    if reduction.operation == Operation::Max { quote!(f64::NEG_INFINITY) } else { quote!(0.0) }
}

/// Whether a sum has lanes in the compute type.
fn is_fast(reduction: &Reduction) -> bool {
    let term = term(reduction);
    reduction.operation == Operation::FastSum && term.right.is_some_and(|right| right.same(term.left))
}

/// Adds an element's value to a sum: to a lane, or to a column's, which is in float64 in any case.
fn addition(
    reduction: &Reduction,
    sum: &TokenStream,
    of_col: bool,
    value: &impl Fn(&Expr) -> TokenStream,
) -> TokenStream {
    let Term { left, right } = term(reduction);
    let left = value(left);
    if is_fast(reduction) {
        return quote!({
            let x = #left;
            #sum = #sum + x * x;
        });
    }
    match (reduction.operation, right.map(value)) {
        (Operation::Max, _) if of_col => quote!(#sum = max(#sum, Into::<f64>::into(#left));),
        (Operation::Max, _) => quote!(#sum = max(#sum, #left);),
        (_, Some(right)) => quote!(#sum = plus_product::<P::Compute, FMA>(#sum, #left, #right);),
        (_, None) => quote!(#sum = #sum + #left.into();),
    }
}
