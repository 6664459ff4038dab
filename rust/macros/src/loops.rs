//! Generates the loops over a pass's elements. Knows no stream and no reduction.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

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
