//! The scalars of arrays and groups from one stage to the next, and the stages over all arrays. Starts no thread.

use super::driver::Step;
use super::item::Item;
use super::plan::{Plan, Round};
use super::reductions::{first_places, fold, form, neutral_of};
use super::work_list::WorkList;
use crate::numeric::Storage;
use crate::rule::{Scope, State};

impl WorkList {
    /// Copies the states of scope `all` into the scalars of every group.
    pub(super) fn load_shared(&self, step: &mut Step<'_>) {
        for item in &self.items {
            let rule = item.compiled.rule;
            for (k, (_, state)) in rule.states_of(Scope::All).enumerate() {
                let place = place_of(state);
                step.scalars[item.group][place] = step.shared[k];
            }
        }
    }

    /// Fills an array's scalars from its group's; scalars of scope `array` persist from one round to the next.
    ///
    /// # Safety
    /// No task may run.
    pub(super) unsafe fn load_scalars(&self, i: usize, group: &[f64], first: bool) {
        let item = &self.items[i];
        let rule = item.compiled.rule;
        // SAFETY: upheld by the caller.
        let own = unsafe { self.scalars.slice(item.scalars, rule.scalars.len()) };
        own[..rule.array_scalars].copy_from_slice(&group[..rule.array_scalars]);
        if first {
            for (k, (_, state)) in rule.states_of(Scope::Array).enumerate() {
                // SAFETY: an array state is one valid float64.
                own[place_of(state)] = unsafe { *self.array_states[item.array_states + k] };
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::finish_pass`].
    pub(super) unsafe fn store_array_states(&self, i: usize) {
        let item = &self.items[i];
        let rule = item.compiled.rule;
        for (k, (_, state)) in rule.states_of(Scope::Array).enumerate() {
            // SAFETY: upheld by the caller; an array state is one valid float64.
            unsafe {
                let value = self.scalars.get(item.scalars + place_of(state));
                self.array_states[item.array_states + k].write(Storage::store(value));
            }
        }
    }

    /// Combines the reductions over all arrays, and runs the scalar stage that follows for each group.
    ///
    /// # Safety
    /// No task may run; the passes of the round must be done.
    pub(super) unsafe fn text_over_all(
        &self,
        (place, plan): (usize, &Plan),
        round: &Round,
        groups: &mut Vec<usize>,
        step: &mut Step<'_>,
    ) {
        let mine = |item: &&Item| item.plan == place && item.present;
        let (rule, Some(text)) = (plan.compiled.rule, round.text) else { return };
        // It has room for a number for each array.
        groups.clear();
        groups.extend(self.items.iter().filter(mine).map(|item| item.group));
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() {
            return;
        }
        for &place in &round.passes {
            let numbered = &round.stages[place];
            let reductions = numbered.stage.reductions.iter().enumerate();
            for (k, reduction) in reductions.filter(|(_, one)| one.scope == Scope::All) {
                let mut result = neutral_of(reduction);
                for item in self.items.iter().filter(mine) {
                    let first = first_places(item, numbered).nth(k).expect("one for each reduction");
                    let places = first..first + item.units(numbered.stage);
                    // SAFETY: upheld by the caller.
                    result = unsafe { fold(form(reduction), &self.partials, places, result) };
                }
                groups.iter().for_each(|&group| step.scalars[group][reduction.place] = result);
            }
        }
        groups.iter().for_each(|&group| (text.text)(&mut step.scalars[group]));
        // The groups share these states.
        let lead = if groups.contains(&step.lead) { step.lead } else { groups[0] };
        for (k, (_, state)) in rule.states_of(Scope::All).enumerate() {
            let place = place_of(state);
            step.shared[k] = Storage::store(step.scalars[lead][place]);
            groups.iter().for_each(|&group| step.scalars[group][place] = step.shared[k]);
        }
    }
}

fn place_of(state: &State) -> usize {
    state.scalar.expect("states of whole arrays are scalars")
}
