//! Generates the loops over a pass's elements, and what they add up. Knows no stream and no state.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::terms::{Term, term};
use crate::tree::*;

/// The type in which a reduction is accumulated.
pub fn lane_type(reduction: &Reduction) -> TokenStream {
    let narrow = is_fast(reduction) || reduction.operation == Operation::Max;
    if narrow { quote!(P::Compute) } else { quote!(f64) }
}

/// What a lane starts with.
pub fn lane_start(reduction: &Reduction) -> TokenStream {
    if reduction.operation == Operation::Max { quote!(f64::NEG_INFINITY) } else { quote!(0.0) }
}

/// Whether a sum has lanes in the compute type.
fn is_fast(reduction: &Reduction) -> bool {
    let term = term(reduction);
    reduction.operation == Operation::FastSum && term.right.is_some_and(|right| right.same(term.left))
}

/// Adds an element's value to a sum: to a lane, or to a column's, which is in float64 in any case.
pub fn addition(
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

/// The loops over the elements of a row. What is added up in lanes has a loop of its own over the terms that the first one has
/// stored: together with sums of columns, the compiler does not vectorize it.
pub fn iterations_of_row(element: &TokenStream, added: &TokenStream, lanes: &[Ident]) -> TokenStream {
    let elements = iterations(element, &[]);
    let kept: Vec<_> = lanes.iter().map(|lanes| format_ident!("kept_{lanes}")).collect();
    quote! {
        let nan = { #elements };
        #(let #kept = #lanes;)*
        #(let mut #lanes = *#kept;)*
        for row in 0..n / LANES {
            for lane in 0..LANES {
                let i = row * LANES + lane;
                // SAFETY: the rows have at most `n` elements.
                unsafe { std::hint::assert_unchecked(i < n) };
                #added
            }
        }
        for lane in 0..n % LANES {
            let i = n / LANES * LANES + lane;
            #added
        }
        #(*#kept = #lanes;)*
        nan
    }
}

/// The loops over the elements. Sums need rows of as many elements as there are lanes.
pub fn iterations(element: &TokenStream, lanes: &[Ident]) -> TokenStream {
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
