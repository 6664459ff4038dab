//! The loop that turns a rule's update of one element into kernels; `table` lists them.
//!
//! A kernel is one function a CPU level and storage combination. The loop is written once; it is inlined into a
//! function of each level and vectorized there by the compiler. Nothing here knows a rule or a thread.

mod table;

use crate::fetch::{AHEAD, GROUP, fetch, fetch_ahead};
use crate::level;
use crate::math::Real;
use crate::norm::{self, LANES};
use crate::rule::{L2, MAX_STATES, PROLOGUE_SCALARS, Prologue, Reach, Scalars, Update};
use crate::small::{Beside, CODED, State, codes};
use crate::storage::Storage;
pub(crate) use table::{Table, find, find_small, table};

/// Where one array's numbers lie, as a kernel sees them.
#[derive(Clone, Copy)]
pub(crate) struct Streams {
    pub param: *mut u8,
    pub grad: *const u8,
    pub states: [*mut u8; MAX_STATES],
}

/// Updates `n` elements. The types are those of the table's place.
///
/// A kernel that measures leaves the parameters alone; it returns the sums of squares of the old ones and of the new ones,
/// in the shape of [`norm`], for `n` of at most a block. Others return zeros.
///
/// # Safety
/// Every stream that the rule uses (a rule may read no gradient) must be valid for `n` elements of its type, aligned, and
/// overlap no other; so must what `beside` points to, where the kernel uses it: scales for each block, a copy aside.
pub(crate) type Kernel = unsafe fn(streams: &Streams, n: usize, scalars: &Scalars, beside: &Beside<'_>) -> (f64, f64);

/// Elements of which a kernel keeps a direction that is measured, or states that will share a scale, at a time; a multiple
/// of [`LANES`].
const PIECE: usize = CODED;

/// Memory of one piece, aligned to a line of the cache.
#[repr(align(64))]
struct Piece<C>([C; PIECE]);

/// What a kernel does: it updates;
pub(crate) const UPDATE: u8 = 0;
/// it measures;
pub(crate) const MEASURE: u8 = 1;
/// it updates, and saves the parameter aside first;
pub(crate) const SAVE: u8 = 2;
/// it updates, from a parameter that was saved aside.
pub(crate) const RESTORE: u8 = 3;

level::each! {
    /// # Safety
    /// As for [`Kernel`], and the CPU must have the level.
    pub(super) unsafe fn kernel<R, P, G, T, const S: usize, const K: usize, const WHAT: u8>(
        streams: &Streams, n: usize, scalars: &Scalars, beside: &Beside<'_>,
    ) -> (f64, f64)
    where
        R: Update<P::Compute, S, K> + Reach,
        P: Storage<Compute: Prologue + Into<f64>>,
        G: Storage<Compute = P::Compute>,
        T: State<Compute = P::Compute>,
        Arity: Loop<S>,
    {
        // Apart: what asking ahead takes would burden the start of all others.
        if beside.far && WHAT != MEASURE && T::CUT == 0 {
            // SAFETY: the caller's promise, passed on.
            return unsafe { far::<R, P, G, T, S, K, WHAT>(streams, n, scalars, beside) };
        }
        // SAFETY: as above.
        unsafe {
            // Not left to the compiler: in the longer loops it would ask for every element.
            if scalars[L2] != 0.0 {
                Arity::run::<R, P, G, T, K, WHAT, true, false, FMA>(streams, n, scalars, beside)
            } else {
                Arity::run::<R, P, G, T, K, WHAT, false, false, FMA>(streams, n, scalars, beside)
            }
        }
    }

    /// The kernel that asks for memory ahead.
    ///
    /// # Safety
    /// As for [`Kernel`], and the CPU must have the level.
    #[inline(never)]
    pub(super) unsafe fn far<R, P, G, T, const S: usize, const K: usize, const WHAT: u8>(
        streams: &Streams, n: usize, scalars: &Scalars, beside: &Beside<'_>,
    ) -> (f64, f64)
    where
        R: Update<P::Compute, S, K> + Reach,
        P: Storage<Compute: Prologue + Into<f64>>,
        G: Storage<Compute = P::Compute>,
        T: State<Compute = P::Compute>,
        Arity: Loop<S>,
    {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            if scalars[L2] != 0.0 {
                Arity::run::<R, P, G, T, K, WHAT, true, true, FMA>(streams, n, scalars, beside)
            } else {
                Arity::run::<R, P, G, T, K, WHAT, false, true, FMA>(streams, n, scalars, beside)
            }
        }
    }

    /// For states that are codes: block by block they pass through float32.
    ///
    /// # Safety
    /// As for [`Kernel`], and the CPU must have the level.
    pub(super) unsafe fn coded<R, const S: usize, const K: usize, const WHAT: u8>(
        streams: &Streams, n: usize, scalars: &Scalars, beside: &Beside<'_>,
    ) -> (f64, f64)
    where
        R: Update<f32, S, K> + Reach,
        Arity: Loop<S>,
    {
        let mut wide = [const { Piece([0.0; PIECE]) }; MAX_STATES];
        for at in (0..n).step_by(PIECE) {
            let n = PIECE.min(n - at);
            let (param, grad) = (streams.param.wrapping_add(4 * at), streams.grad.wrapping_add(4 * at));
            let codes = streams.states.map(|state| state.wrapping_add(at));
            let scales = beside.scales.map(|scale| scale.wrapping_add(at / CODED));
            for k in 0..S {
                // SAFETY: the caller's promise; a piece is one block.
                let (codes, scale) = unsafe { (std::slice::from_raw_parts(codes[k], n), *scales[k]) };
                if R::SIGNED[k] {
                    codes::read::<true>(codes, scale, &mut wide[k].0);
                } else {
                    codes::read::<false>(codes, scale, &mut wide[k].0);
                }
            }
            let states = wide.each_mut().map(|piece| piece.0.as_mut_ptr().cast());
            let aside = Beside { aside: beside.aside.wrapping_add(4 * at), ..Beside::NOTHING };
            // SAFETY: the caller's promise; a piece has memory for its states.
            unsafe { kernel::<R, f32, f32, f32, S, K, WHAT>(&Streams { param, grad, states }, n, scalars, &aside) };
            if !R::WRITES {
                continue;
            }
            // All scales first: what follows waits for them.
            for k in 0..S {
                let wide = &wide[k].0[..n];
                let scale = if R::SIGNED[k] { codes::scale::<true>(wide) } else { codes::scale::<false>(wide) };
                // SAFETY: as above.
                unsafe { *scales[k] = scale };
            }
            let blocks = match &beside.bits {
                Some(bits) => bits.block(beside.block + at / CODED),
                None => [0; MAX_STATES],
            };
            for k in 0..S {
                // Keeping leaves memory idle: meanwhile the next piece is fetched.
                for line in (PIECE * k / S..PIECE * (k + 1) / S).step_by(LANES) {
                    fetch(param.wrapping_add(4 * (n + line)));
                    fetch(grad.wrapping_add(4 * (n + line)));
                }
                let random = beside.bits.as_ref().map(|bits| (bits.places, blocks[k]));
                // SAFETY: as above.
                let (codes, scale) = unsafe { (std::slice::from_raw_parts_mut(codes[k], n), *scales[k]) };
                if R::SIGNED[k] {
                    codes::keep::<true>(&wide[k].0[..n], scale, random, codes);
                } else {
                    codes::keep::<false>(&wide[k].0[..n], scale, random, codes);
                }
            }
        }
        (0.0, 0.0)
    }
}

/// The loop over elements for rules of `S` states.
pub(crate) trait Loop<const S: usize> {
    /// # Safety
    /// As for [`Kernel`]: parameters are `P`, gradients `G`, states `T`.
    unsafe fn run<R, P, G, T, const K: usize, const WHAT: u8, const DECAYS: bool, const FAR: bool, const FMA: bool>(
        streams: &Streams,
        n: usize,
        scalars: &Scalars,
        beside: &Beside<'_>,
    ) -> (f64, f64)
    where
        R: Update<P::Compute, S, K> + Reach,
        P: Storage<Compute: Prologue + Into<f64>>,
        G: Storage<Compute = P::Compute>,
        T: State<Compute = P::Compute>;
}

/// Carries one loop for each number of states.
pub(crate) struct Arity;

// One function a number of states, because only slices that are parameters of a function are known not to overlap;
// without that the vectorizer gives up from four streams on.
macro_rules! loops {
    ($($states:literal: $($state:ident $i:tt)*;)*) => {$(
        impl Loop<$states> for Arity {
            #[inline(always)]
            unsafe fn run<R, P, G, T, const K: usize, const WHAT: u8, const DECAYS: bool, const FAR: bool, const FMA: bool>(
                streams: &Streams, n: usize, scalars: &Scalars, beside: &Beside<'_>,
            ) -> (f64, f64)
            where
                R: Update<P::Compute, $states, K> + Reach,
                P: Storage<Compute: Prologue + Into<f64>>,
                G: Storage<Compute = P::Compute>,
                T: State<Compute = P::Compute>,
            {
                #[inline(always)]
                // As many arguments as there are states. A rule without states stores no T.
                #[allow(clippy::extra_unused_type_parameters, clippy::too_many_arguments)]
                fn each<R, P, G, T, const K: usize, const WHAT: u8, const DECAYS: bool>(
                    param: &mut [P], grad: &[G], $($state: &mut [T],)*
                    aside: &mut [P], direction: &mut [P::Compute], scalars: &Scalars, places: &[u32],
                    blocks: [u32; MAX_STATES],
                ) -> <P::Compute as Real>::Bits
                where
                    R: Update<P::Compute, $states, K> + Reach,
                    P: Storage<Compute: Prologue>,
                    G: Storage<Compute = P::Compute>,
                    T: State<Compute = P::Compute>,
                {
                    let mut first: [P::Compute; PROLOGUE_SCALARS] =
                        std::array::from_fn(|k| P::Compute::from_f64(scalars[k]));
                    if !DECAYS {
                        first[L2] = P::Compute::from_f64(0.0);
                    }
                    let own: [P::Compute; K] =
                        std::array::from_fn(|k| P::Compute::from_f64(scalars[PROLOGUE_SCALARS + k]));
                    let n = param.len();
                    let grad = &grad[..if R::GRADIENT { n } else { 0 }];
                    let direction = &mut direction[..if WHAT == MEASURE { n } else { 0 }];
                    let aside = &mut aside[..if WHAT >= SAVE { n } else { 0 }];
                    $(let $state = &mut $state[..n];)*
                    let _places = &places[..if R::WRITES && T::CUT > 0 { n } else { 0 }];
                    let _blocks = blocks;
                    // States keep whichever NaN they get, and so does the parameter then: see `settle`.
                    let lazy = $states > 0 && R::WRITES && T::SETTLES && !R::HIDES;
                    let mut nan = <P::Compute as Real>::Bits::default();
                    for at in 0..n {
                        let g = if R::GRADIENT { grad[at].load() } else { P::Compute::from_f64(0.0) };
                        let old = if WHAT == RESTORE { aside[at] } else { param[at] };
                        if WHAT == SAVE {
                            aside[at] = old;
                        }
                        let (p, g) = Prologue::prologue(old.load(), g, first);
                        let (p, _states) = R::update(p, g, [$($state[at].read()),*], own);
                        if WHAT == MEASURE {
                            direction[at] = p;
                        } else {
                            param[at] = if lazy { P::put(p) } else { P::store(p) };
                        }
                        if lazy {
                            nan |= (p - p).bits();
                        }
                        if R::WRITES {
                            $(
                                let random = if T::CUT > 0 { _places[at] ^ _blocks[$i] } else { 0 };
                                let kept = T::keep(_states[$i], random);
                                $state[at] = if lazy { kept } else { kept.settled() };
                            )*
                        }
                    }
                    nan
                }
                // A loop that tests each number for NaN takes half as long again as one that sees, in the end, that there was
                // one. Then all become the one NaN that is stored.
                #[cold]
                #[inline(never)]
                fn settle<P: Storage, T: State>(param: &mut [P] $(, $state: &mut [T])*) {
                    param.iter_mut().for_each(|p| *p = P::store(p.load()));
                    $($state.iter_mut().for_each(|state| *state = state.settled());)*
                }
                // SAFETY: the caller's promise: valid, aligned, and no two overlap.
                let (param, aside, grad, ($($state,)*)) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(streams.param.cast::<P>(), n),
                        if WHAT >= SAVE { std::slice::from_raw_parts_mut(beside.aside.cast::<P>(), n) } else { &mut [] },
                        if R::GRADIENT { std::slice::from_raw_parts(streams.grad.cast::<G>(), n) } else { &[] },
                        ($(std::slice::from_raw_parts_mut(streams.states[$i].cast::<T>(), n),)*),
                    )
                };
                if WHAT != MEASURE && !FAR && T::CUT == 0 {
                    let nan = each::<R, P, G, T, K, WHAT, DECAYS>(
                        param, grad, $(&mut *$state,)* aside, &mut [], scalars, &[], [0; MAX_STATES],
                    );
                    if nan != Default::default() {
                        settle::<P, T>(param $(, $state)*);
                    }
                    return (0.0, 0.0);
                }
                // A part at a time: then the direction is still at hand when its squares are summed; memory is asked for ahead;
                // and blocks of states have random bits of their own.
                let size = if FAR { GROUP } else { PIECE };
                let zero = P::Compute::from_f64(0.0);
                let mut direction = Piece([zero; PIECE]);
                let (mut of_param, mut of_direction) = ([0.0; LANES], [0.0; LANES]);
                let mut nan = <P::Compute as Real>::Bits::default();
                for at in (0..n).step_by(size) {
                    let part = at..n.min(at + size);
                    let grad = if R::GRADIENT { &grad[part.clone()] } else { &[] };
                    let param = &mut param[part.clone()];
                    let aside = if WHAT >= SAVE { &mut aside[part.clone()] } else { &mut [] };
                    let direction = &mut direction.0[..if WHAT == MEASURE { part.len() } else { 0 }];
                    $(let $state = &mut $state[part.clone()];)*
                    // Not behind the end: what lies there may be needed by nobody.
                    if FAR && at + AHEAD < n {
                        fetch_ahead(param);
                        fetch_ahead(grad);
                        fetch_ahead(aside);
                        $(fetch_ahead($state);)*
                    }
                    let (places, blocks) = match &beside.bits {
                        Some(bits) if R::WRITES && T::CUT > 0 => {
                            (&bits.places[at % CODED..], bits.block(beside.block + at / CODED))
                        }
                        _ => (&[][..], [0; MAX_STATES]),
                    };
                    nan |= each::<R, P, G, T, K, WHAT, DECAYS>(
                        param, grad, $(&mut *$state,)* aside, direction, scalars, places, blocks,
                    );
                    if WHAT == MEASURE {
                        // The sums leave memory idle: meanwhile the next piece is fetched.
                        let (p, g) = (param.as_ptr_range().end, grad.as_ptr_range().end);
                        norm::add_squares::<FMA, _, _>(&mut of_param, param, |p| p.load(), |at| {
                            fetch(p.wrapping_add(at));
                            fetch(g.wrapping_add(at));
                        });
                        $(let $state = $state.as_ptr_range().end;)*
                        norm::add_squares::<FMA, _, _>(&mut of_direction, direction, |&d| d, |at| {
                            let _ = at;
                            $(fetch($state.wrapping_add(at));)*
                        });
                    }
                }
                if nan != Default::default() {
                    let param = if WHAT == MEASURE { &mut [] } else { param };
                    settle::<P, T>(param $(, $state)*);
                }
                (norm::fold(of_param), norm::fold(of_direction))
            }
        }
    )*};
}
loops! {
    0: ;
    1: s0 0;
    2: s0 0 s1 1;
    3: s0 0 s1 1 s2 2;
    4: s0 0 s1 1 s2 2 s3 3;
}

#[cfg(test)]
mod tests;
