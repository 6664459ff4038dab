//! What comes after a pass over an array: its reductions are combined, and the scalar and vector stages run. Starts no thread.

use super::plan::Numbered;
use super::reductions::{finish_vector, first_places, fold, form};
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::numeric::reduce::neutral;
use crate::rule::{Kind, Scope};

impl WorkList {
    /// Combines the partial results of a pass into scalars and vectors of the array; reductions over all arrays stay partial.
    ///
    /// # Safety
    /// All units of the pass must be done, and nobody else may access the array's entries during the call.
    pub(super) unsafe fn finish_pass(&self, i: usize, numbered: &Numbered) {
        let (item, stage) = (&self.items[i], numbered.stage);
        let compute = item.param_type.compute();
        for (reduction, first) in stage.reductions.iter().zip(first_places(item, numbered)) {
            let form = form(reduction);
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
                        self.scalars.set(item.scalars + reduction.place, reduction.divided(result, item.len));
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
    pub(super) unsafe fn text(&self, i: usize, numbered: &Numbered, level: Level) {
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
}
