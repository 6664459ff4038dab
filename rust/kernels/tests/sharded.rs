//! Tests that processes that share arrays compute the bits of one that has them to itself: every rule, every scope of reductions,
//! every state format. Threads stand for the processes. Knows no message passing.

mod support;

use std::ops::Range;
use std::sync::{Arc, Barrier, Mutex};

use schuss::level::Level;
use schuss::rule::Scope;
use schuss::{Common, CompiledRule, Decay, Dtype, Matrix, Peers, Rounding, StateFormat, Step, WorkList, cut_size};
use support::{Buffer, Case, Owned, PLAIN, SHAPES, arrays, first_shared, hypers, interleaved, matrix, scalars};

/// Arrays with several places to cut: by blocks, by panels of rows, by matrices of a batch.
const LARGE: [Matrix; 4] =
    [matrix(1, 130, 512, false), matrix(1024, 4, 3, false), matrix(6, 32, 64, true), interleaved(2, 80, 512, true)];

/// Numbers that processes combine with a bitwise or.
struct Meeting {
    numbers: Mutex<Vec<u64>>,
    barrier: Barrier,
}

impl Meeting {
    fn combine(&self, numbers: &mut [f64]) {
        {
            let mut all = self.numbers.lock().unwrap();
            all.resize(numbers.len(), 0);
            all.iter_mut().zip(&*numbers).for_each(|(all, x)| *all |= x.to_bits());
        }
        self.barrier.wait();
        let all = self.numbers.lock().unwrap().clone();
        numbers.iter_mut().zip(all).for_each(|(x, bits)| *x = f64::from_bits(bits));
        if self.barrier.wait().is_leader() {
            self.numbers.lock().unwrap().clear();
        }
        self.barrier.wait();
    }
}

/// The part of an array that belongs to a process.
fn part(rule: &CompiledRule, array: &Owned, i: usize, rank: usize, ranks: usize) -> Range<usize> {
    let size = cut_size(Some(array.matrix).filter(|_| rule.rule.needs_matrix()));
    let (units, place) = (array.len().div_ceil(size), (rank + i) % ranks);
    let at = |place: usize| array.len().min(units * place / ranks * size);
    at(place)..at(place + 1)
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    buffer.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The bytes of some elements of a buffer.
fn elements(buffer: &Buffer, size: usize, part: &Range<usize>) -> Vec<u8> {
    let (first, last) = (part.start * size / 8, (part.end * size).div_ceil(8));
    bytes(&buffer[first..last].to_vec())[part.start * size - 8 * first..][..part.len() * size].to_vec()
}

/// The part of a state's memory, in which scales follow int8 values.
fn state_part(buffer: &Buffer, format: StateFormat, compute: Dtype, len: usize, part: &Range<usize>) -> Vec<u8> {
    let mut own = elements(buffer, format.size(compute), part);
    if format == StateFormat::Int8 {
        own.resize(own.len().next_multiple_of(schuss::SCALES_ALIGN), 0);
        let scales = len.next_multiple_of(schuss::SCALES_ALIGN);
        let block = |element: usize| scales + element.div_ceil(schuss::QUANTIZATION_BLOCK) * size_of::<f32>();
        own.extend(&bytes(buffer)[block(part.start)..block(part.end)]);
    }
    own
}

fn words(mut bytes: Vec<u8>) -> Buffer {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.as_chunks::<8>().0.iter().map(|&word| u64::from_ne_bytes(word)).collect()
}

/// The memory of a process: the states and, where it is a float32 copy, the parameter of a part, followed by what is whole.
fn own_memory(rule: &CompiledRule, array: &Owned, part: &Range<usize>) -> Owned {
    let (compute, mut own) = (array.param_type.compute(), array.clone());
    for (k, state) in rule.rule.states.iter().enumerate().filter(|(_, state)| state.scope == Scope::Element) {
        let format = if state.exact { StateFormat::Compute } else { array.format };
        own.states[k] = words(state_part(&array.states[k], format, compute, array.len(), part));
    }
    own.grad = words(elements(&array.grad, array.grad_type.size(), part));
    if array.rounded.is_some() {
        own.param = words(elements(&array.param, compute.size(), part));
    }
    own
}

/// Two steps of every program over the arrays of a process; returns its norms and the shared states.
fn steps(
    rule: &'static CompiledRule,
    case: &Case,
    arrays: &mut [Owned],
    parts: &[Range<usize>],
    mut work: WorkList,
) -> Vec<u64> {
    let hypers = hypers(rule, case.flags);
    let mut shared = first_shared(rule.rule, &hypers);
    work.extend(arrays.iter_mut().zip(parts).map(|(array, part)| {
        // SAFETY: the memory lives until the last step.
        let mut array = unsafe { array.array(rule) };
        array.part = part.clone();
        array
    }))
    .unwrap();
    for (i, array) in arrays.iter_mut().enumerate() {
        work.set_backup(i, array.backup.as_mut_ptr().cast());
    }
    let mut seen = Vec::new();
    for t in 1..3 {
        let decay = if t == 1 { Decay::L2 } else { Decay::Decoupled };
        let common = Common { weight_decay: 0.1 * case.flags, decay, ..Common::default() };
        // SAFETY: as above.
        seen.push(unsafe { work.sum_of_squares(Level::Baseline, 1) }.sum.to_bits());
        // SAFETY: as above.
        seen.push(unsafe { work.first_nonfinite() }.map_or(0, |(i, at)| (1 + i as u64) << 32 | at as u64));
        let mut of_groups = [1.0, 0.37].map(|factor| scalars(rule.rule, &common, &hypers, t, factor));
        let rounding = if case.nearest { Rounding::Nearest } else { Rounding::stochastic(5, t, case.format) };
        let basic = Step::new(Level::Baseline, 1, &mut of_groups);
        let mut step = Step { rounding: &rounding, shared: &mut shared, ..basic };
        for program in rule.rule.programs.iter().rev() {
            // SAFETY: every pointer is to a separate buffer that is long enough.
            unsafe { work.run(program.name, &mut step) };
        }
    }
    seen.extend(shared.iter().map(|x| x.to_bits()));
    seen
}

/// Compares processes that share arrays with one that does not.
fn check(rule: &'static CompiledRule, case: &Case, shapes: &[Matrix], ranks: usize) {
    let first = arrays(rule, case, shapes);
    let mut alone = first.clone();
    let wholes: Vec<Range<usize>> = alone.iter().map(|array| 0..array.len()).collect();
    let seen_alone = steps(rule, case, &mut alone, &wholes, WorkList::default());
    let meeting = Arc::new(Meeting { numbers: Mutex::default(), barrier: Barrier::new(ranks) });
    std::thread::scope(|scope| {
        for rank in 0..ranks {
            let (first, alone, seen_alone, meeting) = (&first, &alone, &seen_alone, Arc::clone(&meeting));
            scope.spawn(move || {
                let parts: Vec<Range<usize>> =
                    first.iter().enumerate().map(|(i, array)| part(rule, array, i, rank, ranks)).collect();
                let memory = |arrays: &[Owned]| -> Vec<Owned> {
                    arrays.iter().zip(&parts).map(|(array, part)| own_memory(rule, array, part)).collect()
                };
                let mut own = memory(first);
                let combine = Box::new(move |numbers: &mut [f64]| meeting.combine(numbers));
                let seen = steps(rule, case, &mut own, &parts, WorkList::shared(Peers { rank, ranks, combine }));
                assert!(
                    &seen == seen_alone,
                    "{rule:?} {case:?}: norms or shared states differ on rank {rank} of {ranks}"
                );
                for (i, (own, wanted)) in own.iter().zip(memory(alone)).enumerate() {
                    let size = own.param_type.size();
                    let same = own.states == wanted.states
                        && match (&own.rounded, &wanted.rounded) {
                            (Some((dtype, a)), Some((_, b))) => {
                                let part_of = |buffer| elements(buffer, dtype.size(), &parts[i]);
                                own.param == wanted.param && part_of(a) == part_of(b)
                            }
                            _ => elements(&own.param, size, &parts[i]) == elements(&wanted.param, size, &parts[i]),
                        };
                    assert!(same, "{rule:?} {case:?}: array {i} differs on rank {rank} of {ranks}");
                }
            });
        }
    });
}

#[test]
fn processes_that_share_arrays_compute_the_bits_of_one() {
    for rule in schuss::optimizers::ALL.iter().copied() {
        check(rule, &Case { flags: 1.0, ..PLAIN }, &LARGE, 3);
        // Few elements, of which terms are kept from one pass to the next.
        check(rule, &PLAIN, &SHAPES[..12], 3);
        check(rule, &Case { types: (Dtype::F64, Dtype::F64), specials: true, ..PLAIN }, &SHAPES, 2);
    }
}

#[test]
fn so_they_do_with_quantized_states_and_float32_copies() {
    for rule in schuss::optimizers::ALL.iter().copied() {
        let types = (Dtype::Bf16, Dtype::F32);
        check(rule, &Case { format: StateFormat::Bfloat16, nearest: false, types, master: true, ..PLAIN }, &LARGE, 2);
        if rule.rule.takes_int8() {
            check(rule, &Case { format: StateFormat::Int8, nearest: false, ..PLAIN }, &LARGE, 3);
        }
    }
}
