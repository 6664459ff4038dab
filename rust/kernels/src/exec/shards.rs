//! How processes that share arrays exchange them: the messages of gradients and parameters, in buckets, and the order in which
//! gradients are added. Sends nothing itself, and knows no rule.

use std::collections::TryReserveError;

use self::buckets::{Bucket, Segment};
use super::partition::{Chunk, Extent};
use super::pool;
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::numeric::{Dtype, convert};

mod buckets;
mod tree;

/// The bytes of an array among others, each of which is aligned for any element type.
pub fn padded_length(bytes: usize) -> usize {
    bytes.next_multiple_of(size_of::<f64>())
}

/// A sum of gradients of this process.
#[derive(Clone, Copy, Debug)]
pub enum LocalSum<'a> {
    /// Whole arrays of these types; null for one that has none.
    Arrays(&'a [(*mut u8, Dtype)]),
    /// One block of memory with all arrays, which begin at these bytes, in the types that updates are computed in.
    Packed(*mut u8, &'a [usize]),
}

// SAFETY: tasks access disjoint parts of it.
unsafe impl Sync for LocalSum<'_> {}

impl LocalSum<'_> {
    /// An array whose parameter has this type.
    fn array(&self, i: usize, param_type: Dtype) -> (*mut u8, Dtype) {
        match self {
            LocalSum::Arrays(arrays) => arrays[i],
            LocalSum::Packed(memory, starts) => (memory.wrapping_add(starts[i]), param_type.compute()),
        }
    }
}

/// Whose segments are copied or added.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    All,
    Own,
    Others,
}

/// The exchange of gradients and parameters among processes.
#[derive(Debug)]
pub struct Shards {
    rank: usize,
    types: Vec<Dtype>,
    /// Where each array is cut: process `r` updates the elements from the `r`-th to the next.
    cuts: Vec<Vec<usize>>,
    buckets: Vec<Bucket>,
    /// The sums of neighbouring gradients that each process sends.
    nodes: Vec<Vec<tree::Node>>,
    /// Which of the received sums is added to which.
    additions: Vec<(usize, usize)>,
}

/// Memory of a message, of which tasks access disjoint parts.
#[derive(Clone, Copy)]
struct Message(*mut u8);

// SAFETY: each byte is accessed by one task only.
unsafe impl Sync for Message {}

impl Message {
    fn at(&self, bytes: usize) -> *mut u8 {
        self.0.wrapping_add(bytes)
    }
}

/// Where arrays are; tasks access disjoint parts of them.
struct Arrays<'a>(&'a [*mut u8]);

// SAFETY: as for `Message`.
unsafe impl Sync for Arrays<'_> {}

impl Shards {
    /// The exchange for process `rank`, over arrays of these types, cut at these elements; a bucket has about `bucket` elements.
    /// The gradients of a step are numbered, `gradients` in all, and the processes have equal ranges of them.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(
        rank: usize,
        types: Vec<Dtype>,
        cuts: Vec<Vec<usize>>,
        bucket: usize,
        gradients: usize,
    ) -> Result<Shards, TryReserveError> {
        let ranks = cuts.first().map_or(1, |cuts| cuts.len() - 1);
        let buckets = buckets::divide(rank, &types, &cuts, bucket)?;
        let nodes = tree::sent(gradients, ranks);
        let additions = tree::additions(&nodes.concat());
        Ok(Shards { rank, buckets, types, cuts, nodes, additions })
    }

    /// Number of buckets.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The sums that each process sends for each bucket.
    pub fn sums(&self) -> Vec<usize> {
        self.nodes.iter().map(Vec::len).collect()
    }

    /// The sums that this process sends.
    pub fn own_sums(&self) -> usize {
        self.nodes[self.rank].len()
    }

    /// For each process the bytes of its part of a bucket's gradients, and of its parameters.
    pub fn bytes(&self, bucket: usize) -> &[[usize; 2]] {
        &self.buckets[bucket].bytes
    }

    /// The elements of an array that this process updates.
    pub fn part(&self, array: usize) -> std::ops::Range<usize> {
        self.cuts[array][self.rank]..self.cuts[array][self.rank + 1]
    }

    /// Packs one of this process's sums into a message, which has each process's part of the sums one after the other.
    ///
    /// # Safety
    /// The sum's pointers are valid, `message` has the bytes of all parts, and nobody else accesses them during the call; the CPU
    /// must support the level.
    pub unsafe fn pack_gradients(
        &self,
        (level, threads): (Level, usize),
        (bucket, number): (usize, usize),
        sum: LocalSum<'_>,
        message: *mut u8,
    ) {
        let (message, sums) = (Message(message), self.own_sums());
        self.each(threads, bucket, 0, Whose::All, &|before, one: &Segment| {
            let param_type = self.types[one.array];
            let (gradient, from) = sum.array(one.array, param_type);
            if gradient.is_null() {
                return; // it has no gradient, and what is sent for it is not used
            }
            let source = gradient.wrapping_add(one.start * from.size());
            let target = message.at(before * sums + number * self.bytes(bucket)[one.rank][0] + one.at[0]);
            // SAFETY: upheld by the caller.
            unsafe { convert::load(level, (from, source), (param_type.compute(), target), one.len) };
        });
    }

    /// Adds the received sums in the order of the tree, and copies the result into the gradients of this process's parts.
    ///
    /// # Safety
    /// `received` has this process's part of every process's sums, `gradients` point to this process's parts, and nobody else
    /// accesses them during the call.
    pub unsafe fn add(&self, threads: usize, bucket: usize, received: *mut u8, gradients: &[*mut u8]) {
        let (received, arrays, bytes) = (Message(received), Arrays(gradients), self.bytes(bucket)[self.rank][0]);
        self.each(threads, bucket, 0, Whose::Own, &|_, one: &Segment| {
            let (arrays, compute) = (&arrays, self.types[one.array].compute());
            let sum = |number: usize| received.at(number * bytes + one.at[0]);
            let start = one.start - self.cuts[one.array][self.rank];
            // SAFETY: upheld by the caller: the segments of all sums are separate memory.
            unsafe {
                for &(target, source) in &self.additions {
                    match compute {
                        Dtype::F64 => add::<f64>(sum(target), sum(source), one.len),
                        _ => add::<f32>(sum(target), sum(source), one.len),
                    }
                }
                let bytes = one.len * compute.size();
                arrays.0[one.array].wrapping_add(start * compute.size()).copy_from_nonoverlapping(sum(0), bytes);
            }
        });
    }

    /// Divides this process's parts of the sums.
    ///
    /// # Safety
    /// `gradients` point to this process's parts, and nobody else accesses them during the call.
    pub unsafe fn divide(&self, gradients: &[*mut u8], by: f64) {
        for (array, &gradient) in gradients.iter().enumerate() {
            let len = self.part(array).len();
            // SAFETY: upheld by the caller.
            unsafe {
                match self.types[array].compute() {
                    Dtype::F64 => {
                        std::slice::from_raw_parts_mut(gradient.cast::<f64>(), len).iter_mut().for_each(|x| *x /= by);
                    }
                    _ => {
                        let part = std::slice::from_raw_parts_mut(gradient.cast::<f32>(), len);
                        part.iter_mut().for_each(|x| *x /= by as f32);
                    }
                }
            }
        }
    }

    /// Packs this process's parts of the parameters into a message.
    ///
    /// # Safety
    /// `params` point to whole arrays, `message` has the bytes of the part, and nobody else accesses them during the call.
    pub unsafe fn pack_params(&self, threads: usize, bucket: usize, params: &[*mut u8], message: *mut u8) {
        // SAFETY: upheld by the caller.
        unsafe { self.copy(threads, bucket, params, message, true) }
    }

    /// Unpacks the other processes' parts of the parameters from a message with the parts of all.
    ///
    /// # Safety
    /// As for [`Shards::pack_params`]; the message has the bytes of all parts.
    pub unsafe fn unpack_params(&self, threads: usize, bucket: usize, params: &[*mut u8], message: *mut u8) {
        // SAFETY: upheld by the caller.
        unsafe { self.copy(threads, bucket, params, message, false) }
    }

    /// # Safety
    /// As for [`Shards::pack_params`] and [`Shards::unpack_params`].
    unsafe fn copy(&self, threads: usize, bucket: usize, params: &[*mut u8], message: *mut u8, pack: bool) {
        let (arrays, message) = (Arrays(params), Message(message));
        let whose = if pack { Whose::Own } else { Whose::Others };
        self.each(threads, bucket, 1, whose, &|before, one: &Segment| {
            let (arrays, size) = (&arrays, self.types[one.array].size());
            let array = arrays.0[one.array].wrapping_add(one.start * size);
            let place = message.at(one.at[1] + if pack { 0 } else { before });
            let (source, target) = if pack { (array, place) } else { (place, array) };
            // SAFETY: upheld by the caller.
            unsafe { target.copy_from_nonoverlapping(source, one.len * size) };
        });
    }

    /// Calls `f` with each segment of some processes, and the bytes of the processes before its own.
    fn each(&self, threads: usize, bucket: usize, kind: usize, whose: Whose, f: &(impl Fn(usize, &Segment) + Sync)) {
        let bucket = &self.buckets[bucket];
        let (own, all) = (bucket.own(self.rank), bucket.segments.len());
        let count = match whose {
            Whose::All => all,
            Whose::Own => own.len(),
            Whose::Others => all - own.len(),
        };
        let segment = |number: usize| match whose {
            Whose::Own => &bucket.segments[own.start + number],
            Whose::Others if number >= own.start => &bucket.segments[own.len() + number],
            _ => &bucket.segments[number],
        };
        let elements = (0..count).map(|number| segment(number).len).sum();
        let task = |number: usize| {
            let one = segment(number);
            f(bucket.before[one.rank][kind], one);
        };
        pool::run(count, false, elements, threads, &task);
    }
}

impl WorkList {
    /// The tasks of a step over a bucket: this process's segments.
    pub(super) fn tasks_of<'a>(&'a self, part: Option<(&'a Shards, usize)>) -> (&'a [Chunk], &'a [Extent]) {
        match part {
            Some((shards, bucket)) => (&shards.buckets[bucket].chunks, &shards.buckets[bucket].extents),
            None => (&self.chunks, &self.extents),
        }
    }
}

/// Adds `n` numbers to others.
///
/// # Safety
/// Both must be valid and aligned for `n` numbers of the type, and not overlap.
pub(super) unsafe fn add<T: Copy + std::ops::AddAssign>(target: *mut u8, source: *const u8, n: usize) {
    // SAFETY: upheld by the caller.
    let (target, source) = unsafe {
        (std::slice::from_raw_parts_mut(target.cast::<T>(), n), std::slice::from_raw_parts(source.cast::<T>(), n))
    };
    for (a, &b) in target.iter_mut().zip(source) {
        *a += b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_and_parameters_arrive_where_they_belong() {
        let types = vec![Dtype::F32, Dtype::F64, Dtype::F32, Dtype::F32];
        let cuts =
            vec![vec![0, 1024, 3072, 5000], vec![0, 0, 300, 300], vec![0, 0, 0, 0], vec![0, 70_000, 70_000, 70_000]];
        let lens: Vec<usize> = cuts.iter().map(|cuts: &Vec<usize>| cuts[3]).collect();
        let fill = |rank: usize| -> Vec<Vec<f64>> {
            lens.iter().map(|&n| (0..n).map(|k| (k + 1) as f64 + 0.25 * rank as f64).collect()).collect()
        };
        let store =
            |dtype: Dtype, values: &[f64]| -> Vec<u64> { crate::support::buffer(dtype, values.iter().copied()) };
        let all: Vec<Shards> =
            (0..3).map(|rank| Shards::new(rank, types.clone(), cuts.clone(), 6000, 3).unwrap()).collect();
        let pointers =
            |arrays: &mut [Vec<u64>]| -> Vec<*mut u8> { arrays.iter_mut().map(|a| a.as_mut_ptr().cast()).collect() };
        let mut grads: Vec<Vec<Vec<u64>>> =
            (0..3).map(|rank| fill(rank).iter().zip(&types).map(|(x, &t)| store(t, x)).collect()).collect();
        let mut params: Vec<Vec<Vec<u64>>> =
            (0..3).map(|_| lens.iter().zip(&types).map(|(&n, &t)| store(t, &vec![0.0; n])).collect()).collect();
        for bucket in 0..all[0].buckets() {
            let bytes = |rank: usize, kind: usize| all[0].bytes(bucket)[rank][kind];
            let total = |kind| (0..3).map(|rank| bytes(rank, kind)).sum::<usize>();
            let sent: Vec<Vec<u64>> = (0..3)
                .map(|rank| {
                    let mut message = vec![0u64; total(0) / 8];
                    let arrays: Vec<_> = pointers(&mut grads[rank]).into_iter().zip(types.iter().copied()).collect();
                    let into = message.as_mut_ptr().cast();
                    // SAFETY: separate memory of the right lengths.
                    unsafe {
                        all[rank].pack_gradients((Level::Baseline, 1), (bucket, 0), LocalSum::Arrays(&arrays), into)
                    };
                    message
                })
                .collect();
            let mut packed = Vec::new();
            for rank in 0..3 {
                let before = (0..rank).map(|rank| bytes(rank, 0)).sum::<usize>() / 8;
                let mut received: Vec<u64> =
                    sent.iter().flat_map(|message| message[before..before + bytes(rank, 0) / 8].to_vec()).collect();
                // The sums go straight into the parameters, which have the same types.
                let parts: Vec<*mut u8> = pointers(&mut params[rank])
                    .iter()
                    .enumerate()
                    .map(|(i, p)| p.wrapping_add(cuts[i][rank] * types[i].size()))
                    .collect();
                let mut message = vec![0u64; bytes(rank, 1) / 8];
                // SAFETY: as above.
                unsafe {
                    all[rank].add(1, bucket, received.as_mut_ptr().cast(), &parts);
                    all[rank].pack_params(1, bucket, &pointers(&mut params[rank]), message.as_mut_ptr().cast());
                }
                packed.extend(message);
            }
            for rank in 0..3 {
                // SAFETY: as above.
                unsafe {
                    all[rank].unpack_params(1, bucket, &pointers(&mut params[rank]), packed.as_mut_ptr().cast());
                }
            }
        }
        for own in &params {
            for (i, array) in own.iter().enumerate() {
                let wanted: Vec<f64> = (0..lens[i]).map(|k| 3.0 * (k + 1) as f64 + 0.75).collect();
                assert!(*array == store(types[i], &wanted), "array {i}");
            }
        }
    }
}
