//! The driver: runs the programs of all arrays' rules, serially or in parallel regions.
//!
//! An array that fits a core's cache goes through all its stages in one task. A larger one takes one parallel region per pass.
//! Only a scalar stage over all arrays is a barrier for every array. Safety rests on the caller: see [`WorkList::run`]. Knows
//! no optimizer and no binding.

use super::followers::{FOLLOWED, Follower};
use super::item::Item;
use super::plan::{Numbered, Plan, Round};
use super::reductions::by_cells;
use super::shards::Shards;
use super::tiles::Call;
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::kernel::Tail;
use crate::numeric::reduce::BLOCK;
use crate::numeric::{RandomBits, Rounding, StateFormat, fpenv};
use crate::rule::Kind;

/// The settings of a step.
#[derive(Debug)]
pub struct Step<'a> {
    /// The CPU level; this machine must support it.
    pub level: Level,
    /// Threads, the caller included.
    pub threads: usize,
    /// The scalars of each group.
    pub scalars: &'a mut [Vec<f64>],
    /// Whether gradients are set to zero after use.
    pub zero_grads: bool,
    /// How quantized states are rounded.
    pub rounding: &'a Rounding,
    /// The states of scope `all`, in the order of the rule that declares them.
    pub shared: &'a mut [f64],
    /// The group whose scalars determine them.
    pub lead: usize,
}

impl<'a> Step<'a> {
    /// Without gradients to set to zero, states to quantize and states of scope `all`.
    pub fn new(level: Level, threads: usize, scalars: &'a mut [Vec<f64>]) -> Step<'a> {
        Step { level, threads, scalars, zero_grads: false, rounding: &Rounding::Nearest, shared: &mut [], lead: 0 }
    }
}

impl WorkList {
    /// Runs the program of this name over every array; arrays whose rule has no such program are left alone.
    ///
    /// # Safety
    /// Every array's pointers must be valid and aligned for its length and types, for reading and, where the program or
    /// `zero_grads` writes, for writing; written memory must not overlap anything else that the program accesses, and nobody
    /// else may access it during the call. The CPU must support the level. Every group must have the scalars of its rules.
    pub unsafe fn run(&mut self, program: &str, step: &mut Step<'_>) {
        // SAFETY: upheld by the caller.
        unsafe { self.run_followed(program, step, &[]) };
    }

    /// Whether [`WorkList::run_bucket`] may run programs.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Runs a program of one pass without reductions over the elements of one bucket.
    ///
    /// # Safety
    /// As for [`WorkList::run`]; the buckets must be those of the same arrays, and every rule must be plain.
    pub unsafe fn run_bucket(&mut self, program: &str, step: &mut Step<'_>, shards: &Shards, bucket: usize) {
        debug_assert!(self.plain);
        // SAFETY: upheld by the caller.
        fpenv::standard(|| unsafe { self.run_plain(program, step, Some((shards, bucket)), &[]) });
    }

    /// Runs a program and behind its last pass the followers, over a few elements at a time. They take the arrays that a program
    /// of one pass leaves alone too.
    ///
    /// # Safety
    /// As for [`WorkList::run`], also for the followers' lists. The followers must be of this list and program.
    pub unsafe fn run_followed(&mut self, program: &str, step: &mut Step<'_>, followers: &[Follower<'_>]) {
        // SAFETY: upheld by the caller.
        fpenv::standard(|| unsafe {
            if self.plain {
                self.run_plain(program, step, None, followers);
            } else {
                self.run_staged(program, step, followers);
            }
        });
    }

    /// Programs of one pass without reductions: one parallel region, over all elements or those of one bucket.
    ///
    /// # Safety
    /// As for [`WorkList::run`], [`WorkList::run_bucket`] and [`WorkList::run_followed`].
    unsafe fn run_plain(
        &mut self,
        program: &str,
        step: &Step<'_>,
        part: Option<(&Shards, usize)>,
        followers: &[Follower<'_>],
    ) {
        self.reverse = !self.reverse;
        let formed = self.form_stretches();
        let this = &*self;
        let stretches = this.stretches.as_ref().filter(|_| formed.is_ok());
        let any_absent = this.any_absent();
        // Most optimizers have one rule, so its pass is looked up once.
        let pass_of = |plan: usize| match this.plans[plan].rounds(program) {
            [Round { stages, .. }, ..] => match &stages[0].stage.kind {
                Kind::Pass(pass) => Some(pass),
                _ => None,
            },
            [] => None,
        };
        let first = if this.plans.is_empty() { None } else { pass_of(0) };
        let (chunks, extents) =
            stretches.map_or_else(|| this.tasks_of(part), |all| (&all.chunks[..], &all.extents[..]));
        this.share(step.threads, chunks, extents, &|i, units| {
            let (i, len) = stretches.map_or_else(|| (i, this.items[i].len), |all| all.arrays[i]);
            let item = &this.items[i];
            let Some(pass) = (if item.plan == 0 { first } else { pass_of(item.plan) }) else { return };
            let (start, end) = (units.start * BLOCK, len.min(units.end * BLOCK));
            let takes_part = item.present || !any_absent;
            let zero_grads = step.zero_grads && pass.reads_grad;
            let bits = this.random_bits(i, step.rounding);
            let call = Call::new(step.level, &step.scalars[item.group], bits.as_ref(), zero_grads);
            if len > item.len && item.format == StateFormat::Int8 {
                // SAFETY: upheld by the caller; these arrays are this task's own, and have no followers.
                return unsafe { this.run_together((i, len), pass, &call, step.rounding) };
            }
            let most = if followers.is_empty() { usize::MAX } else { FOLLOWED };
            let mut at = start;
            while at < end {
                let range = (at, most.min(end - at));
                // SAFETY: upheld by the caller; the range lies within the array.
                unsafe {
                    if takes_part {
                        item.call(this.streams_of(i), pass, &call, range, Tail::NONE);
                    }
                    followers.iter().for_each(|follower| follower.call(step.level, i, range));
                }
                at += range.1;
            }
        });
    }

    /// Programs of several stages.
    ///
    /// # Safety
    /// As for [`WorkList::run_followed`].
    unsafe fn run_staged(&mut self, program: &str, step: &mut Step<'_>, followers: &[Follower<'_>]) {
        self.load_shared(step);
        let (mut plans, mut groups) = (std::mem::take(&mut self.plans), std::mem::take(&mut self.groups));
        plans.iter_mut().for_each(|plan| plan.start(program));
        let most = plans.iter().map(|plan| plan.running().len()).max().unwrap_or(0);
        for number in 0..most {
            for i in 0..self.items.len() {
                if self.items[i].has_scalars() {
                    // SAFETY: no task runs.
                    unsafe { self.load_scalars(i, &step.scalars[self.items[i].group], number == 0) };
                }
            }
            // SAFETY: upheld by the caller.
            unsafe { self.run_local(step, &plans, number, followers) };
            for (place, plan) in plans.iter().enumerate() {
                if let Some(round) = plan.running().get(number) {
                    // SAFETY: upheld by the caller; no task runs.
                    unsafe { self.text_over_all((place, plan), round, &mut groups, step) };
                }
            }
        }
        self.groups = groups;
        self.plans = plans;
    }

    /// Runs the stages between two scalar stages over all arrays: those of this round.
    ///
    /// # Safety
    /// As for [`WorkList::run_followed`].
    unsafe fn run_local(&mut self, step: &Step<'_>, plans: &[Plan], round: usize, followers: &[Follower<'_>]) {
        let rounds = || plans.iter().filter_map(|plan| plan.running().get(round));
        // An array without elements has no means: its states do not change.
        let round_of = |item: &Item| {
            if item.len == 0 || !item.present { None } else { plans[item.plan].running().get(round) }
        };
        if self.any_large || rounds().any(|round| round.passes.is_empty()) {
            // SAFETY: upheld by the caller; no task runs.
            unsafe { self.texts_before_passes(&round_of, step.level) };
        }
        for number in 0..rounds().map(|round| round.passes.len()).max().unwrap_or(0) {
            // SAFETY: upheld by the caller; no task runs between the passes.
            unsafe {
                self.before_pass(&round_of, number);
                // Rows and columns are reduced cell by cell; everything else runs block by block.
                self.run_passes(&round_of, (number, true), step, followers);
                self.run_passes(&round_of, (number, false), step, followers);
                self.after_pass(&round_of, number);
            }
            // Whole arrays have been through all passes.
            if !self.any_large {
                break;
            }
            // SAFETY: as above.
            unsafe { self.texts_after_pass(&round_of, number, step.level) };
        }
    }

    /// Runs the stages before the first pass, of arrays that no single task takes whole and of those without passes.
    ///
    /// # Safety
    /// As for [`WorkList::run`]; no task may run.
    unsafe fn texts_before_passes<'p>(&self, round_of: &impl Fn(&Item) -> Option<&'p Round>, level: Level) {
        for (i, item) in self.items.iter().enumerate() {
            let Some(round) = round_of(item) else { continue };
            if round.passes.is_empty() || !item.whole {
                let first = round.passes.first().copied().unwrap_or(round.stages.len());
                // SAFETY: upheld by the caller.
                round.stages[..first].iter().for_each(|stage| unsafe { self.text(i, stage, level) });
            }
        }
    }

    /// Runs the passes of this number that go cell by cell, or those that go block by block. With the first of the latter, arrays
    /// that one task takes whole run all their stages.
    ///
    /// # Safety
    /// As for [`WorkList::run_followed`].
    unsafe fn run_passes<'p>(
        &mut self,
        round_of: &(impl Fn(&Item) -> Option<&'p Round> + Sync),
        (number, cells): (usize, bool),
        step: &Step<'_>,
        followers: &[Follower<'_>],
    ) {
        let here = |item: &Item| {
            let round = round_of(item)?;
            if item.whole {
                return (number == 0 && !cells && !round.passes.is_empty()).then_some((round, 0));
            }
            let &place = round.passes.get(number)?;
            (by_cells(round.stages[place].stage) == cells).then_some((round, place))
        };
        if !self.items.iter().any(|item| here(item).is_some()) {
            return;
        }
        self.reverse = !self.reverse;
        let this = &*self;
        let (chunks, extents) = if cells { (&this.chunks, &this.extents) } else { (&this.block_chunks, &this.blocks) };
        this.share(step.threads, chunks, extents, &|i, units| {
            let Some((round, place)) = here(&this.items[i]) else { return };
            let (whole, len) = (this.items[i].whole, this.items[i].len);
            let last = round.ends && (whole || round.passes.last() == Some(&place));
            let followers = if last { followers } else { &[] };
            let most = if whole || followers.is_empty() { units.len() } else { FOLLOWED / BLOCK };
            for start in units.clone().step_by(most) {
                let units = start..units.end.min(start + most);
                let range = (units.start * BLOCK, len.min(units.end * BLOCK) - units.start * BLOCK);
                // SAFETY: upheld by the caller; only this task accesses the array, or these units.
                unsafe {
                    match whole {
                        true => this.run_whole(i, round, step),
                        false => this.run_pass(i, &round.stages[place], step, units, false),
                    }
                    followers.iter().for_each(|follower| follower.call(step.level, i, range));
                }
            }
        });
    }

    /// Ends the pass of this number, and runs the stages before the next, of arrays that no single task takes whole.
    ///
    /// # Safety
    /// As for [`WorkList::run`]; no task may run.
    unsafe fn texts_after_pass<'p>(&self, round_of: &impl Fn(&Item) -> Option<&'p Round>, number: usize, level: Level) {
        for (i, item) in self.items.iter().enumerate().filter(|(_, item)| !item.whole) {
            let Some(round) = round_of(item) else { continue };
            let Some(&place) = round.passes.get(number) else { continue };
            let next = round.passes.get(number + 1).copied().unwrap_or(round.stages.len());
            // SAFETY: upheld by the caller.
            unsafe {
                self.finish_pass(i, &round.stages[place]);
                round.stages[place + 1..next].iter().for_each(|stage| self.text(i, stage, level));
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::run`]; only this task may access the array.
    unsafe fn run_whole(&self, i: usize, round: &Round, step: &Step<'_>) {
        for stage in &round.stages {
            // SAFETY: upheld by the caller.
            unsafe {
                if matches!(stage.stage.kind, Kind::Pass(_)) {
                    self.run_pass(i, stage, step, 0..self.items[i].units(stage.stage), true);
                    if !stage.stage.reductions.is_empty() {
                        self.finish_pass(i, stage);
                    }
                } else {
                    self.text(i, stage, step.level);
                }
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::run`]; only this task may access the units.
    unsafe fn run_pass(&self, i: usize, stage: &Numbered, step: &Step<'_>, units: std::ops::Range<usize>, whole: bool) {
        let item = &self.items[i];
        let scalars = match item.has_scalars() {
            // SAFETY: an array's scalars are not written while passes run.
            true => unsafe { &*self.scalars.slice(item.scalars, item.compiled.rule.scalars.len()) },
            false => &step.scalars[item.group][..],
        };
        let zero_grads = step.zero_grads && stage.last_gradient;
        let bits = self.random_bits(i, step.rounding);
        let call = Call::new(step.level, scalars, bits.as_ref(), zero_grads);
        // SAFETY: upheld by the caller.
        unsafe { self.pass(i, stage, &call, units, whole) };
    }

    /// The random bits of an array, which may be a copy of some rows.
    #[inline]
    fn random_bits<'a>(&'a self, i: usize, rounding: &'a Rounding) -> Option<RandomBits<'a>> {
        match self.rows.get(i) {
            Some(rows) => rows.random_bits(rounding),
            None => rounding.of_array(i),
        }
    }
}

#[cfg(test)]
mod tests;
