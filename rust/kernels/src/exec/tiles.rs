//! One kernel call: directly on an array's memory, or through tiles where a type has no kernel, a parameter is rounded from a
//! float32 copy, or gradients are set to zero. Knows neither reductions nor threads.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};
use std::thread::LocalKey;

use super::item::Item;
use super::quantized::QuantizedState;
use super::work_list::WHOLE;
use crate::cpu::Level;
use crate::kernel::{self, Extras, Kernel, MAX_STREAMS, MAX_TERMS, States, Tail, Types};
use crate::numeric::reduce::BLOCK;
use crate::numeric::{Dtype, QUANTIZATION_BLOCK, RandomBits, StateFormat, convert};
use crate::rule::{Pass, Scope, State};

/// Elements that go through tiles at a time, few enough for the L1 cache.
pub(super) const TILE: usize = BLOCK;

/// Memory of one tile, for elements of any type. It is left uninitialized: a tile is written before it is read.
#[repr(align(64))]
pub(super) struct Tile(MaybeUninit<[f64; TILE]>);

const NO_TILE: Tile = Tile(MaybeUninit::uninit());

impl Tile {
    pub fn pointer(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

/// The tiles of a pass's operands and terms, and two for factors in memory that are converted before they are reduced.
pub(super) const MAX_TAIL: usize = MAX_TERMS + 2;

/// Tiles of a buffer for a term of each element of a whole array.
const KEPT: usize = WHOLE / TILE;

thread_local! {
    static STREAM_TILES: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
    static TAIL_TILES: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
    static KEPT_TERM: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
}

// Threads that get no memory for tiles of their own take turns with these: a step that has begun cannot fail. A thread that needs
// several of these locks them from the bottom up, so that no two wait for each other.
static LAST_STREAM_TILES: Mutex<[Tile; MAX_STREAMS + 1]> = Mutex::new([const { NO_TILE }; MAX_STREAMS + 1]);
static LAST_TAIL_TILES: Mutex<[Tile; MAX_TAIL]> = Mutex::new([const { NO_TILE }; MAX_TAIL]);
static LAST_KEPT_TERM: Mutex<[Tile; KEPT]> = Mutex::new([const { NO_TILE }; KEPT]);

/// Runs `f` with this thread's tiles for converted streams. They are not on its stack, which may be small.
fn with_stream_tiles<T>(f: &mut impl FnMut(&mut [Tile]) -> T) -> T {
    with_tiles(&STREAM_TILES, &LAST_STREAM_TILES, f)
}

/// Runs `f` with this thread's tiles for row and column operands, and for terms of reductions.
pub(super) fn with_tail_tiles<T>(f: &mut impl FnMut(&mut [Tile]) -> T) -> T {
    with_tiles(&TAIL_TILES, &LAST_TAIL_TILES, f)
}

/// Runs `f` with this thread's buffer for a term of each element of a whole array, which a later pass reuses.
pub(super) fn with_kept_term<T>(f: &mut impl FnMut(*mut u8) -> T) -> T {
    with_tiles(&KEPT_TERM, &LAST_KEPT_TERM, &mut |tiles| f(tiles.as_mut_ptr().cast()))
}

/// The closure is taken by reference: to copy what it holds, just after that was written, would take as long as a call for a few
/// elements.
fn with_tiles<T, const N: usize>(
    own: &'static LocalKey<RefCell<Vec<Tile>>>,
    last: &Mutex<[Tile; N]>,
    f: &mut impl FnMut(&mut [Tile]) -> T,
) -> T {
    own.with_borrow_mut(|tiles| {
        if tiles.is_empty() && tiles.try_reserve_exact(N).is_ok() {
            tiles.extend(std::iter::repeat_with(|| NO_TILE).take(N));
        }
        match tiles.is_empty() {
            true => f(&mut last.lock().unwrap_or_else(PoisonError::into_inner)[..]),
            false => f(tiles),
        }
    })
}

/// The settings of a pass over an array.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// The CPU level; this machine must support it.
    pub level: Level,
    /// The scalars of the rule.
    pub scalars: &'a [f64],
    /// Whether the gradient is set to zero after use.
    pub zero_grads: bool,
    /// The random bits for rounding quantized states.
    pub bits: Option<&'a RandomBits<'a>>,
    /// Where in the array the streams begin.
    pub first: usize,
}

impl<'a> Call<'a> {
    pub fn new(level: Level, scalars: &'a [f64], bits: Option<&'a RandomBits<'a>>, zero_grads: bool) -> Call<'a> {
        Call { level, scalars, zero_grads, bits, first: 0 }
    }
}

/// Some elements of an array, among those of one or several arrays that go through tiles together.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub item: &'a Item,
    pub streams: *const *mut u8,
    /// The first of them after the streams' first, the place that it has in the tiles, and how many they are.
    pub at: usize,
    pub place: usize,
    pub n: usize,
    pub bits: Option<RandomBits<'a>>,
}

impl Part<'_> {
    /// A quantized state of the array, whose streams begin at the element `first`.
    fn state(&self, number: usize, nonnegative: bool, first: usize) -> QuantizedState {
        let Item { format, ref part, .. } = *self.item;
        // SAFETY: a table has the stream of each state.
        let data = unsafe { *self.streams.add(2 + number) };
        let data = data.wrapping_add(part.start * format.size(Dtype::F32));
        QuantizedState { format, nonnegative, number, data, start: part.start + first, len: part.len() }
    }
}

impl Item {
    /// The kernel for the array's types as stored, if there is one.
    pub(super) fn direct(&self, pass: &Pass, call: &Call<'_>) -> Option<Kernel> {
        kernel::find(self.compiled.kernels[pass.kernel], call.level, self.types(pass, call)?)
    }

    /// The kernel for elements of one row, if there is one for the array's types as stored and its rows lie in memory.
    pub(super) fn of_row(&self, pass: &Pass, call: &Call<'_>) -> Option<Kernel> {
        let (matrix, compute) = (self.matrix()?, self.param_type.compute());
        let stored = Types { param: compute, grad: compute, states: States::Compute };
        let fits = (matrix.transposed, matrix.interleaved) == (false, 1) && self.types(pass, call)? == stored;
        let table = self.compiled.row_kernels[pass.row_kernel.filter(|_| fits)?];
        Some(kernel::find_vector(table, call.level, compute))
    }

    /// The types for which a kernel could run on the array as it is stored.
    fn types(&self, pass: &Pass, call: &Call<'_>) -> Option<Types> {
        if call.zero_grads || (self.rounded.is_some() && (pass.writes_param || pass.restores)) {
            return None;
        }
        let compute = self.param_type.compute();
        let param = if pass.reads_param { self.param_type } else { compute };
        let grad = if pass.reads_grad { self.grad_type } else { param };
        let states = match self.format {
            // Kernels take all states in one format.
            StateFormat::Bfloat16 if self.exact_bits & (pass.reads | pass.writes) != 0 => return None,
            StateFormat::Int8 if self.uses_states(pass) => return None,
            // Rounding to nearest has no kernels of its own: few choose it.
            StateFormat::Bfloat16 if self.uses_states(pass) && call.bits.is_none() => return None,
            StateFormat::Bfloat16 if self.uses_states(pass) => States::Bfloat16,
            _ => States::Compute,
        };
        Some(Types { param, grad, states })
    }

    fn uses_states(&self, pass: &Pass) -> bool {
        (pass.reads | pass.writes) & self.state_bits != 0
    }

    /// Runs a pass over elements `at..at + n`; through tiles at most [`TILE`] at a time. `tail` has the pass's operands and
    /// terms, for at most [`TILE`] elements.
    ///
    /// # Safety
    /// The array's pointers must be valid and aligned for its length and types, for writing where the pass writes and, with
    /// `zero_grads`, for gradients; written memory must not overlap anything else in use. The CPU must support the level.
    pub(super) unsafe fn call(
        &self,
        streams: *const *mut u8,
        pass: &Pass,
        call: &Call<'_>,
        (at, n): (usize, usize),
        tail: Tail,
    ) {
        let extras = self.extras(call, at, tail);
        // Kernels take random bits of whole blocks, which pieces of rows may cut.
        let begins = (call.first + at).is_multiple_of(QUANTIZATION_BLOCK);
        let cut = call.bits.is_some_and(|bits| bits.rows.is_some() || !begins) && self.uses_states(pass);
        if let Some(kernel) = self.direct(pass, call).filter(|_| !cut) {
            // SAFETY: upheld by the caller.
            unsafe { kernel(streams, at, n, call.scalars, &extras) };
            return;
        }
        // SAFETY: upheld by the caller.
        unsafe { self.in_tiles(streams, pass, call, (at, n), &extras) };
    }

    /// The extras of a kernel that starts at an element.
    pub(super) fn extras<'a>(&self, call: &'a Call<'_>, at: usize, tail: Tail) -> Extras<'a> {
        Extras {
            bits: call.bits,
            block: (call.first + at) / QUANTIZATION_BLOCK,
            states: self.states,
            tail,
            prefetches: self.prefetches,
        }
    }

    /// Not inlined: its many local variables would slow down calls for small arrays that need no tiles.
    ///
    /// # Safety
    /// As for [`Item::call`].
    #[inline(never)]
    unsafe fn in_tiles(
        &self,
        streams: *const *mut u8,
        pass: &Pass,
        call: &Call<'_>,
        (at, n): (usize, usize),
        extras: &Extras<'_>,
    ) {
        with_stream_tiles(&mut |tiles| {
            let end = at + n;
            for at in (at..end).step_by(TILE) {
                let part = Part { item: self, streams, at, place: 0, n: TILE.min(end - at), bits: call.bits.copied() };
                // SAFETY: upheld by the caller, for a part of the elements.
                unsafe { self.through_tiles(tiles, &[part], pass, call, extras) };
            }
        });
    }

    /// Runs a pass over arrays like this one, their whole parameters and gradients one behind the other, of [`TILE`] elements at
    /// most.
    ///
    /// # Safety
    /// As for [`Item::call`].
    pub(super) unsafe fn together(&self, parts: &[Part<'_>], pass: &Pass, call: &Call<'_>) {
        // SAFETY: upheld by the caller.
        with_stream_tiles(&mut |tiles| unsafe {
            self.through_tiles(tiles, parts, pass, call, &self.extras(call, 0, Tail::NONE));
        });
    }

    /// # Safety
    /// As for [`Item::call`], for at most [`TILE`] elements.
    unsafe fn through_tiles(
        &self,
        tiles: &mut [Tile],
        parts: &[Part<'_>],
        pass: &Pass,
        call: &Call<'_>,
        extras: &Extras<'_>,
    ) {
        let (streams, at) = (parts[0].streams, parts[0].at);
        let n = parts.iter().map(|part| part.n).sum();
        let (level, compute) = (call.level, self.param_type.compute());
        let (size, grad_size) = (self.param_type.size(), self.grad_type.size());
        // SAFETY: a table has these streams.
        let of = |k: usize| unsafe { *streams.add(k) };
        let (param, grad) = (of(0).wrapping_add(at * size), of(1).wrapping_add(at * grad_size));
        let mut local = [std::ptr::null_mut(); MAX_STREAMS];
        // SAFETY: upheld by the caller, for `n` elements from `at`; a tile holds this many of any type.
        unsafe {
            // A look-ahead moves the rounded parameter, not its float32 copy: the step starts from the copy.
            let (dtype, source) = match self.rounded.filter(|_| pass.saves) {
                Some((dtype, rounded)) => (dtype, rounded.add((call.first + at) * dtype.size())),
                None => (self.param_type, param),
            };
            if pass.reads_param {
                local[0] = source;
                if dtype != compute {
                    local[0] = tiles[0].pointer();
                    convert::load(level, (dtype, source), (compute, local[0]), n);
                }
            }
            if pass.reads_grad {
                local[1] = grad;
                if self.grad_type != compute {
                    local[1] = tiles[1].pointer();
                    convert::load(level, (self.grad_type, grad), (compute, local[1]), n);
                }
            }
            for (k, state) in self.stream_states().enumerate() {
                let (bit, tile) = (1 << k, 2 + k);
                if (pass.reads | pass.writes) & bit == 0 {
                    continue;
                }
                if state.scope == Scope::Backup {
                    local[tile] = tiles[tile].pointer();
                    if pass.saves {
                        let size = dtype.size();
                        of(tile).add(at * size).copy_from_nonoverlapping(source, n * size);
                    } else {
                        // A look-ahead did not move a float32 copy.
                        let source = if self.rounded.is_some() { param } else { of(tile).add(at * size) };
                        convert::load(level, (self.param_type, source), (compute, local[tile]), n);
                    }
                } else if self.format == StateFormat::Compute || state.exact {
                    local[tile] = of(tile).wrapping_add(at * compute.size());
                } else {
                    local[tile] = tiles[tile].pointer();
                    let wide = if compute == Dtype::F64 { tiles[MAX_STREAMS].pointer() } else { local[tile] };
                    for part in parts {
                        let wide = wide.cast::<f32>().add(part.place);
                        let own = part.state(k, state.nonnegative, call.first);
                        own.dequantize(level, wide, (call.first + part.at, part.n));
                    }
                    if compute == Dtype::F64 {
                        convert::load(level, (Dtype::F32, wide), (compute, local[tile]), n);
                    }
                }
            }
            let types = Types { param: compute, grad: compute, states: States::Compute };
            let kernel =
                kernel::find(self.compiled.kernels[pass.kernel], level, types).expect("compute types have kernels");
            kernel(local.as_ptr(), 0, n, call.scalars, &Extras { bits: None, prefetches: false, ..*extras });
            if pass.writes_param {
                if self.param_type != compute {
                    convert::store(level, local[0], (self.param_type, param), n);
                }
                if let Some((dtype, rounded)) = self.rounded {
                    convert::store(level, local[0], (dtype, rounded.add((call.first + at) * dtype.size())), n);
                }
            }
            for (k, state) in self.stream_states().enumerate() {
                let tile = 2 + k;
                let kept = state.scope == Scope::Backup || self.format == StateFormat::Compute || state.exact;
                if kept || pass.writes & 1 << k == 0 {
                    continue;
                }
                let mut wide = local[tile];
                if compute == Dtype::F64 {
                    wide = tiles[MAX_STREAMS].pointer();
                    convert::load(level, (Dtype::F64, local[tile]), (Dtype::F32, wide), n);
                }
                for part in parts {
                    let wide = wide.cast::<f32>().add(part.place);
                    let own = part.state(k, state.nonnegative, call.first);
                    own.quantize(level, wide, (call.first + part.at, part.n), part.bits.as_ref());
                }
            }
            if call.zero_grads {
                grad.write_bytes(0, n * grad_size);
            }
        }
    }

    /// The states that are streams.
    fn stream_states(&self) -> impl Iterator<Item = &'static State> + use<> {
        self.compiled.rule.streams().map(|(_, state)| state)
    }
}
