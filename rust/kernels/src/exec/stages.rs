//! What comes after a pass over an array: its reductions are combined, and the scalar and vector stages run. Starts no thread.

use super::item::Item;
use super::plan::Numbered;
use super::reductions::{finish_vector, fold, form, places};
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::numeric::reduce::neutral;
use crate::rule::{Kind, Operation, Scope, Stage};

impl WorkList {
    /// Combines the partial results of a pass into scalars and vectors of the array; reductions over all arrays stay partial.
    ///
    /// # Safety
    /// All units of the pass must be done, and nobody else may access the array's entries during the call.
    pub(super) unsafe fn finish_pass(&self, i: usize, numbered: Numbered) {
        let (item, stage) = (&self.items[i], numbered.stage);
        let compute = item.param_type.compute();
        for (k, reduction) in stage.reductions.iter().enumerate() {
            let (form, first) = (form(reduction), self.first_place(item, stage, numbered.number, k));
            // SAFETY: upheld by the caller.
            unsafe {
                match reduction.scope {
                    Scope::Row | Scope::Col => {
                        let cells = item.cells.as_deref().expect("rules with rows or columns have matrices");
                        let vector = self.vector(i, reduction.scope, reduction.place);
                        finish_vector(reduction, cells, &self.partials, first, (compute, vector));
                    }
                    Scope::Array => {
                        let result = fold(form, &self.partials, first..first + item.units(stage), neutral(form));
                        let count = if reduction.operation == Operation::Mean { item.len as f64 } else { 1.0 };
                        self.scalars.set(item.scalars + reduction.place, result / count);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Runs one of the array's stages between passes: over rows, over columns, or over its scalars.
    ///
    /// # Safety
    /// As for [`WorkList::finish_pass`].
    pub(super) unsafe fn text(&self, i: usize, numbered: Numbered, level: Level) {
        let stage = numbered.stage;
        // SAFETY: upheld by the caller.
        unsafe {
            match &stage.kind {
                Kind::Vector { scope, kernel } => self.vector_text(i, numbered, (*scope, *kernel), level),
                Kind::Text(_) => {
                    let item = &self.items[i];
                    (stage.text)(self.scalars.slice(item.scalars, item.compiled.rule.scalars.len()));
                    self.store_array_states(i);
                }
                Kind::Pass(_) => unreachable!("passes have units"),
            }
        }
    }

    /// The first partial result of reduction `k` of a stage.
    pub(super) fn first_place(&self, item: &Item, stage: &Stage, number: usize, k: usize) -> usize {
        let (units, cells) = (item.units(stage), item.cells.as_deref());
        if cells.is_none() {
            return item.partials[number] + k * units;
        }
        item.partials[number] + stage.reductions[..k].iter().map(|one| places(one, units, cells)).sum::<usize>()
    }
}
