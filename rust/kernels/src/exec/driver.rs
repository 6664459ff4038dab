//! The driver: all arrays of an optimizer, and the programs of their rules, run serially or in parallel regions.
//!
//! An array that fits a core's cache goes through all its stages in one task. A larger one takes one parallel region a pass.
//! Only a text over all arrays makes every array wait. Safety rests on the caller: see [`WorkList::run`].

use super::array::Array;
use super::matrix::{Cells, Matrix};
use super::partition::{Chunk, Extent, cut};
use super::pool;
use super::reductions::{fold, form, stage_places};
use super::scratch::Scratch;
use super::tiles::Call;
use crate::cpu::Level;
use crate::kernel::CompiledRule;
use crate::numeric::reduce::{self, BLOCK, Form, neutral};
use crate::numeric::{Dtype, Rounding, StateFormat, fpenv};
use crate::rule::{Kind, Program, Scope, Stage};

/// The longest array that one task takes through all its stages: the later ones find it in that CPU's cache.
const WHOLE: usize = 32_768;

/// How a step is run.
#[derive(Debug)]
pub struct Step<'a> {
    /// The CPU level, which this machine must have.
    pub level: Level,
    /// Threads, the caller included.
    pub threads: usize,
    /// The scalars of each group.
    pub scalars: &'a mut [Vec<f64>],
    /// Whether gradients are set to zero once they have been used.
    pub zero_grads: bool,
    /// How quantized states are rounded.
    pub rounding: &'a Rounding,
    /// The states of scope `all`, in the order of the rule that has them.
    pub shared: &'a mut [f64],
    /// The group whose scalars decide about them.
    pub lead: usize,
}

/// An array as the driver has it.
#[derive(Debug)]
pub(super) struct Item {
    pub compiled: &'static CompiledRule,
    pub group: usize,
    pub len: usize,
    pub param_type: Dtype,
    pub grad_type: Dtype,
    pub format: StateFormat,
    pub rounded: Option<(Dtype, *mut u8)>,
    pub cells: Option<Cells>,
    /// Units of work, blocks or cells.
    pub units: usize,
    /// Where its streams begin, and the vectors of its rows and columns.
    pub streams: usize,
    vectors: usize,
    /// How many streams are states, and which of those are no backups.
    pub states: usize,
    pub state_bits: u32,
    /// Where its array states are.
    array_states: usize,
    /// Where its scalars begin, and its partial results.
    pub scalars: usize,
    pub partials: usize,
    /// Whether one task takes it through all its stages.
    whole: bool,
}

impl Item {
    pub fn matrix(&self) -> Option<Matrix> {
        self.cells.map(|cells| cells.matrix)
    }

    /// Whether its scalars are its own, and not just its group's.
    fn has_scalars(&self) -> bool {
        let rule = self.compiled.rule;
        rule.array_scalars < rule.scalars.len() || rule.needs_matrix()
    }
}

/// All arrays of an optimizer, and how a step over them is shared among threads.
#[derive(Debug, Default)]
pub struct WorkList {
    pub(super) items: Vec<Item>,
    pub(super) streams: Vec<*mut u8>,
    vectors: Vec<*mut u8>,
    array_states: Vec<*mut f64>,
    /// Memory of vectors that are no states; never moved.
    vector_memory: Vec<Box<[u64]>>,
    pub(super) scalars: Scratch,
    pub(super) partials: Scratch,
    extents: Vec<Extent>,
    chunks: Vec<Chunk>,
    /// The same for what goes block by block through all arrays; empty where no array is a matrix.
    blocks: Vec<Extent>,
    block_chunks: Vec<Chunk>,
    rules: Vec<&'static CompiledRule>,
    total: usize,
    partial_count: usize,
    scalar_count: usize,
    /// Whether every rule is one pass without reductions.
    plain: bool,
    /// Which way the next look at all arrays goes.
    reverse: bool,
}

// SAFETY: the pointers are only followed inside functions whose callers answer for them.
unsafe impl Send for WorkList {}
// SAFETY: as above.
unsafe impl Sync for WorkList {}

impl WorkList {
    /// Adds arrays behind those already there.
    pub fn extend(&mut self, arrays: impl IntoIterator<Item = Array>) {
        for array in arrays {
            self.add(array);
        }
        self.total = self.items.iter().map(|item| item.len).sum();
        self.chunks = cut(&self.extents, self.total);
        let matrices = self.items.iter().any(|item| item.cells.is_some()) || self.extents.iter().any(|e| e.whole);
        if matrices {
            self.blocks = self.items.iter().map(|item| Extent::blocks(item.len)).collect();
            self.block_chunks = cut(&self.blocks, self.total);
        }
        self.plain = self.items.iter().all(|item| {
            let plain = |stage: &Stage| matches!(&stage.kind, Kind::Pass(_)) && stage.reductions.is_empty();
            let alone = |program: &Program| program.stages.len() == 1 && plain(&program.stages[0]);
            item.compiled.rule.programs.iter().all(alone) && !item.has_scalars()
        });
        self.partials.grow(self.partial_count.max(self.items.iter().map(|item| item.len.div_ceil(BLOCK)).sum()));
        self.scalars.grow(self.scalar_count);
    }

    fn add(&mut self, array: Array) {
        let rule = array.rule.rule;
        let cells = array.matrix.filter(|_| rule.needs_matrix()).map(Cells::new);
        let units = cells.as_ref().map_or(array.len.div_ceil(BLOCK), Cells::units);
        let reduces_with_states = |stage: &Stage| {
            matches!(&stage.kind, Kind::Pass(pass) if pass.reads | pass.writes != 0) && !stage.reductions.is_empty()
        };
        assert!(
            cells.is_none()
                || array.format == StateFormat::Compute
                || !rule.programs.iter().flat_map(|program| program.stages).any(reduces_with_states),
            "{rule:?}: a pass over a matrix cannot both reduce and use quantized states: their blocks do not begin where rows do"
        );
        let (streams, vectors, array_states) = (self.streams.len(), self.vectors.len(), self.array_states.len());
        self.streams.extend([array.param, array.grad]);
        self.streams.extend(rule.streams().map(|(place, _)| array.states[place]));
        let compute = array.param_type.compute();
        for scope in [Scope::Row, Scope::Col] {
            let names = if scope == Scope::Row { rule.rows } else { rule.cols };
            let states = rule.states_of(scope).map(|(place, _)| array.states[place]);
            let length = array.matrix.map_or(0, |matrix| matrix.vector(scope));
            self.vectors.extend(states);
            for _ in rule.states_of(scope).count()..names.len() {
                let mut memory = vec![0u64; (length * compute.size()).div_ceil(8)].into_boxed_slice();
                self.vectors.push(memory.as_mut_ptr().cast());
                self.vector_memory.push(memory);
            }
        }
        self.array_states.extend(rule.states_of(Scope::Array).map(|(place, _)| array.states[place].cast::<f64>()));
        let state_bits = rule
            .streams()
            .enumerate()
            .filter(|(_, (_, state))| state.scope == Scope::Element)
            .map(|(k, _)| 1 << k)
            .sum();
        let stages = |f: &dyn Fn(&Stage) -> usize| {
            rule.programs.iter().flat_map(|program| program.stages).map(f).max().unwrap_or(0)
        };
        let own = stages(&|stage| stage_places(stage, units, cells.as_ref()));
        let staged = rule.programs.iter().any(|program| program.stages.len() > 1);
        let item = Item {
            compiled: array.rule,
            group: array.group,
            len: array.len,
            param_type: array.param_type,
            grad_type: array.grad_type,
            format: array.format,
            rounded: array.rounded,
            cells,
            units,
            streams,
            vectors,
            states: rule.streams().count(),
            state_bits,
            array_states,
            scalars: self.scalar_count,
            partials: self.partial_count,
            whole: staged && array.len <= WHOLE,
        };
        self.partial_count += own;
        self.scalar_count += rule.scalars.len();
        let unit = if units > 0 { array.len.div_ceil(units) } else { 1 };
        let unit = if cells.is_none() { Extent::blocks(array.len).unit } else { unit };
        self.extents.push(Extent { unit, units, whole: item.whole });
        if !self.rules.iter().any(|known| std::ptr::eq(known.rule, rule)) {
            self.rules.push(array.rule);
        }
        self.items.push(item);
    }

    /// How many arrays there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Elements of all arrays.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Sets an array's gradient for the next step.
    pub fn set_gradient(&mut self, i: usize, grad: *mut u8, grad_type: Dtype) {
        let item = &mut self.items[i];
        item.grad_type = grad_type;
        self.streams[item.streams + 1] = grad;
    }

    /// An array's gradient: pointer, type, elements.
    pub fn gradient(&self, i: usize) -> (*mut u8, Dtype, usize) {
        let item = &self.items[i];
        (self.streams[item.streams + 1], item.grad_type, item.len)
    }

    /// Sets the memory of an array's backups: for as many elements of the parameter's type, or of the type that it is rounded to.
    pub fn set_backup(&mut self, i: usize, backup: *mut u8) {
        let item = &self.items[i];
        for (k, (_, state)) in item.compiled.rule.streams().enumerate() {
            if state.scope == Scope::Backup {
                self.streams[item.streams + 2 + k] = backup;
            }
        }
    }

    /// Runs the program of this name over every array; rules that have none of it leave their arrays alone.
    ///
    /// # Safety
    /// Every array's pointers must be valid and aligned for its length and types, for reading and, where the program or
    /// `zero_grads` writes, for writing; what is written may overlap nothing else that the program touches; nobody else may use
    /// what is written meanwhile. The CPU must have the level. There must be scalars of the rule for every group.
    pub unsafe fn run(&mut self, program: &str, step: &mut Step<'_>) {
        // SAFETY: the caller's promise.
        fpenv::standard(|| unsafe {
            if self.plain {
                self.run_plain(program, step);
            } else {
                self.run_staged(program, step);
            }
        });
    }

    /// Programs of one pass without reductions: one parallel region.
    ///
    /// # Safety
    /// As for [`WorkList::run`].
    unsafe fn run_plain(&mut self, program: &str, step: &Step<'_>) {
        self.reverse = !self.reverse;
        let this = &*self;
        // Most optimizers have one rule: its program is looked up once.
        let known = this.rules.first().and_then(|first| Some((*first, first.rule.program(program)?)));
        this.share(step.threads, &this.chunks, &this.extents, &|i, units| {
            let item = &this.items[i];
            let program = match known {
                Some((rule, program)) if std::ptr::eq(rule, item.compiled) => program,
                _ => match item.compiled.rule.program(program) {
                    Some(program) => program,
                    None => return,
                },
            };
            let Some(Stage { kind: Kind::Pass(pass), .. }) = program.stages.first() else { return };
            let (start, end) = (units.start * BLOCK, item.len.min(units.end * BLOCK));
            if start < end {
                let zero_grads = step.zero_grads && pass.reads_grad;
                let call = Call::new(step.level, &step.scalars[item.group], step.rounding, i, zero_grads);
                // SAFETY: the caller's promise; the range lies within the array.
                unsafe { item.call(this.streams_of(i), pass, &call, (start, end - start), std::ptr::null()) };
            }
        });
    }

    /// Programs of several stages.
    ///
    /// # Safety
    /// As for [`WorkList::run`].
    unsafe fn run_staged(&mut self, name: &str, step: &mut Step<'_>) {
        let rules = std::mem::take(&mut self.rules);
        self.load_shared(step);
        let mut at = vec![0; rules.len()];
        loop {
            // Each rule's stages up to its next text over all arrays.
            let rounds: Vec<Option<Round>> =
                rules.iter().zip(&at).map(|(rule, &at)| Round::new(rule.rule.program(name)?, at)).collect();
            if rounds.iter().all(Option::is_none) {
                break;
            }
            let of = |item: &Item| {
                // An array without elements has no means: its states stay as they are.
                if item.len == 0 {
                    return None;
                }
                let place = rules.iter().position(|rule| std::ptr::eq(*rule, item.compiled));
                place.and_then(|place| rounds[place].as_ref())
            };
            for i in 0..self.items.len() {
                if self.items[i].has_scalars() {
                    // SAFETY: no task runs.
                    unsafe { self.load_scalars(i, &step.scalars[self.items[i].group], of(&self.items[i])) };
                }
            }
            // SAFETY: the caller's promise.
            unsafe { self.run_local(step, &of) };
            for ((rule, at), round) in rules.iter().zip(&mut at).zip(&rounds) {
                let Some(round) = round else { continue };
                *at = round.end;
                if let Some(text) = round.program.stages.get(round.end) {
                    // SAFETY: the caller's promise; no task runs.
                    unsafe { self.text_over_all(rule, round, text, step) };
                    *at += 1;
                }
            }
        }
        self.rules = rules;
    }

    /// Runs what lies between two texts over all arrays.
    ///
    /// # Safety
    /// As for [`WorkList::run`].
    unsafe fn run_local<'r>(&mut self, step: &Step<'_>, round_of: &(impl Fn(&Item) -> Option<&'r Round> + Sync)) {
        let most = self.items.iter().filter_map(|item| round_of(item).map(|round| round.passes.len())).max();
        for number in 0..most.unwrap_or(0) {
            self.reverse = !self.reverse;
            let this = &*self;
            this.share(step.threads, &this.chunks, &this.extents, &|i, units| {
                let item = &this.items[i];
                let Some(round) = round_of(item) else { return };
                if item.whole {
                    if number == 0 {
                        // SAFETY: the caller's promise; the array is this task's alone.
                        unsafe { this.run_whole(i, round, step) };
                    }
                } else if let Some(&place) = round.passes.get(number) {
                    // SAFETY: the caller's promise; these units are this task's alone.
                    unsafe { this.run_pass(i, round, place, step, units) };
                }
            });
            for (i, item) in this.items.iter().enumerate().filter(|(_, item)| !item.whole) {
                let Some(round) = round_of(item) else { continue };
                let Some(&place) = round.passes.get(number) else { continue };
                let next = round.passes.get(number + 1).copied().unwrap_or(round.end);
                // SAFETY: the caller's promise; no task runs.
                unsafe {
                    this.finish_pass(i, &round.program.stages[place]);
                    for stage in &round.program.stages[place + 1..next] {
                        this.text(i, stage, step.level);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::run`]; the array must be this task's alone.
    unsafe fn run_whole(&self, i: usize, round: &Round, step: &Step<'_>) {
        for place in round.start..round.end {
            let stage = &round.program.stages[place];
            // SAFETY: the caller's promise.
            unsafe {
                if matches!(stage.kind, Kind::Pass(_)) {
                    self.run_pass(i, round, place, step, 0..self.items[i].units);
                    self.finish_pass(i, stage);
                } else {
                    self.text(i, stage, step.level);
                }
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::run`]; the units must be this task's alone.
    unsafe fn run_pass(&self, i: usize, round: &Round, place: usize, step: &Step<'_>, units: std::ops::Range<usize>) {
        let item = &self.items[i];
        let stage = &round.program.stages[place];
        let Kind::Pass(pass) = &stage.kind else { unreachable!("the place of a pass") };
        // SAFETY: array scalars are not written while passes run.
        let scalars = match item.has_scalars() {
            true => unsafe { &*self.scalars.slice(item.scalars, item.compiled.rule.scalars.len()) },
            false => &step.scalars[item.group][..],
        };
        let zero_grads = step.zero_grads && round.last_gradient == Some(place);
        let call = Call::new(step.level, scalars, step.rounding, i, zero_grads);
        // SAFETY: the caller's promise.
        unsafe { self.pass(i, stage, pass, &call, units) };
    }

    /// Puts the states of scope `all` among the scalars of every group.
    fn load_shared(&self, step: &mut Step<'_>) {
        for item in &self.items {
            let rule = item.compiled.rule;
            for (k, (_, state)) in rule.states_of(Scope::All).enumerate() {
                let place = place_of(rule.scalars, state.name);
                step.scalars[item.group][place] = step.shared[k];
            }
        }
    }

    /// Fills an array's scalars from its group's; those of its own scope stay from one round to the next.
    ///
    /// # Safety
    /// No task may run.
    unsafe fn load_scalars(&self, i: usize, group: &[f64], round: Option<&Round>) {
        let item = &self.items[i];
        let rule = item.compiled.rule;
        // SAFETY: the caller's promise.
        let own = unsafe { self.scalars.slice(item.scalars, rule.scalars.len()) };
        own[..rule.array_scalars].copy_from_slice(&group[..rule.array_scalars]);
        if round.is_some_and(|round| round.start == 0) {
            for (k, (_, state)) in rule.states_of(Scope::Array).enumerate() {
                // SAFETY: an array state is one valid float64.
                own[place_of(rule.scalars, state.name)] = unsafe { *self.array_states[item.array_states + k] };
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::finish_pass`].
    pub(super) unsafe fn store_array_states(&self, i: usize) {
        let item = &self.items[i];
        let rule = item.compiled.rule;
        for (k, (_, state)) in rule.states_of(Scope::Array).enumerate() {
            // SAFETY: the caller's promise; an array state is one valid float64.
            unsafe {
                let value = self.scalars.get(item.scalars + place_of(rule.scalars, state.name));
                self.array_states[item.array_states + k].write(value);
            }
        }
    }

    /// Combines the reductions over all arrays, and runs a text over them for each group.
    ///
    /// # Safety
    /// No task may run; the passes of the round must be done.
    unsafe fn text_over_all(&self, rule: &'static CompiledRule, round: &Round, text: &Stage, step: &mut Step<'_>) {
        let descriptor = rule.rule;
        let mine = |item: &Item| std::ptr::eq(item.compiled, rule);
        let mut found = Vec::new();
        for &place in &round.passes {
            let stage = &round.program.stages[place];
            for (k, reduction) in stage.reductions.iter().enumerate().filter(|(_, r)| r.scope == Scope::All) {
                let (form, mut result) = (form(reduction), neutral(form(reduction)));
                for item in self.items.iter().filter(|item| mine(item)) {
                    let first = item.partials + stage_places_before(stage, k, item);
                    // SAFETY: the caller's promise.
                    result = unsafe { fold(form, &self.partials, first..first + item.units, result) };
                }
                found.push((reduction.place, result));
            }
        }
        let mut groups: Vec<usize> = self.items.iter().filter(|item| mine(item)).map(|item| item.group).collect();
        groups.sort_unstable();
        groups.dedup();
        for &group in &groups {
            let scalars = &mut step.scalars[group];
            found.iter().for_each(|&(place, result)| scalars[place] = result);
            (text.text)(scalars);
        }
        // The states are one for all groups.
        let lead = if groups.contains(&step.lead) { step.lead } else { groups.first().copied().unwrap_or(0) };
        for (k, (_, state)) in descriptor.states_of(Scope::All).enumerate() {
            let place = place_of(descriptor.scalars, state.name);
            step.shared[k] = step.scalars[lead][place];
            groups.iter().for_each(|&group| step.scalars[group][place] = step.shared[k]);
        }
    }

    /// The sum of squares of all gradients as they lie in memory: what the rule `clip_norm` asks for, in float64 and with a shape
    /// that depends on the lengths alone.
    ///
    /// # Safety
    /// Every array's gradient must be valid and aligned for reading; the CPU must have the level.
    pub unsafe fn sum_of_squares(&mut self, level: Level, threads: usize) -> f64 {
        self.reverse = !self.reverse;
        let this = &*self;
        let (chunks, extents) = match this.blocks.len() {
            0 => (&this.chunks, &this.extents),
            _ => (&this.block_chunks, &this.blocks),
        };
        let firsts: Vec<usize> = if this.items.len() == 1 {
            vec![0]
        } else {
            let first = |sum: &mut usize, item: &Item| {
                let first = *sum;
                *sum += item.len.div_ceil(BLOCK);
                Some(first)
            };
            this.items.iter().scan(0, first).collect()
        };
        this.share(threads, chunks, extents, &|i, units| {
            let item = &this.items[i];
            for unit in units {
                let (at, types) = (unit * BLOCK, (item.grad_type, item.param_type.compute()));
                let grad = this.streams[item.streams + 1].wrapping_add(at * item.grad_type.size()).cast_const();
                // SAFETY: the block lies within the array, whose gradient is the caller's promise; its place is this task's.
                unsafe {
                    let sum = reduce::block(level, Form::Square, types, (grad, grad), BLOCK.min(item.len - at));
                    this.partials.set(firsts[i] + unit, sum);
                }
            }
        });
        let count = this.items.iter().map(|item| item.len.div_ceil(BLOCK)).sum();
        // SAFETY: no task runs.
        fpenv::standard(|| unsafe { fold(Form::Square, &this.partials, 0..count, 0.0) })
    }

    /// Zeroes all gradients, for a step that is not taken.
    ///
    /// # Safety
    /// Every array's gradient must be valid for writing, and nobody else may read or write there meanwhile.
    pub unsafe fn zero_grads(&self) {
        for i in 0..self.items.len() {
            let (grad, dtype, len) = self.gradient(i);
            // SAFETY: the caller's promise.
            unsafe { grad.write_bytes(0, len * dtype.size()) };
        }
    }

    /// The first gradient that holds a NaN or an infinity, and where: array and flat index.
    ///
    /// # Safety
    /// Every array's gradient must be valid and aligned for reading.
    pub unsafe fn first_nonfinite(&self) -> Option<(usize, usize)> {
        self.items.iter().enumerate().find_map(|(i, item)| {
            let (grad, dtype, len) = self.gradient(i);
            // SAFETY: the caller's promise.
            unsafe { reduce::first_nonfinite(dtype, item.param_type.compute(), grad, len) }.map(|at| (i, at))
        })
    }

    /// Runs `part` over all units, given as an array's number and a range, in one parallel region or without any.
    fn share(
        &self,
        threads: usize,
        chunks: &[Chunk],
        extents: &[Extent],
        part: &(impl Fn(usize, std::ops::Range<usize>) + Sync),
    ) {
        let task = |i: usize| fpenv::standard(|| chunks[i].each(extents, part));
        // Each look at the arrays begins where the last one ended, also from step to step: it finds in the caches what was
        // touched last.
        pool::run(chunks.len(), self.reverse, self.total, threads, &task);
    }

    pub(super) fn streams_of(&self, i: usize) -> *const *mut u8 {
        self.streams[self.items[i].streams..].as_ptr()
    }

    /// The vectors of an array's rows or columns.
    pub(super) fn vectors_of(&self, i: usize, scope: Scope) -> *const *mut u8 {
        let item = &self.items[i];
        let first = if scope == Scope::Row { 0 } else { item.compiled.rule.rows.len() };
        self.vectors[item.vectors + first..].as_ptr()
    }

    pub(super) fn vector(&self, i: usize, scope: Scope, place: usize) -> *mut u8 {
        // SAFETY: a rule's vectors are in the table.
        unsafe { *self.vectors_of(i, scope).add(place) }
    }
}

/// The stages of a program between two texts over all arrays.
struct Round {
    program: &'static Program,
    start: usize,
    end: usize,
    /// The places of the passes among them.
    passes: Vec<usize>,
    /// The place of the program's last pass that reads gradients.
    last_gradient: Option<usize>,
}

impl Round {
    /// The round that begins at a stage; none behind the last.
    fn new(program: &'static Program, start: usize) -> Option<Round> {
        let stages = program.stages;
        if start >= stages.len() {
            return None;
        }
        let end = (start..stages.len()).find(|&place| matches!(stages[place].kind, Kind::Text(Scope::All)));
        let end = end.unwrap_or(stages.len());
        let is_pass = |place: &usize| matches!(stages[*place].kind, Kind::Pass(_));
        let reads = |place: &usize| matches!(&stages[*place].kind, Kind::Pass(pass) if pass.reads_grad);
        let last_gradient = (0..stages.len()).rev().find(reads);
        Some(Round { program, start, end, passes: (start..end).filter(is_pass).collect(), last_gradient })
    }
}

fn stage_places_before(stage: &Stage, k: usize, item: &Item) -> usize {
    let before = stage.reductions[..k].iter();
    before.map(|reduction| super::reductions::places(reduction, item.units, item.cells.as_ref())).sum()
}

fn place_of(names: &[&str], name: &str) -> usize {
    names.iter().position(|&known| known == name).expect("states have places among the scalars")
}

#[cfg(test)]
mod tests;
