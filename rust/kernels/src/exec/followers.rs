//! Programs that follow a step in the same tasks, such as an average of the parameters: they find in the cache what the step
//! has just written. Knows no rule.

use super::item::Item;
use super::plan::Plan;
use super::reductions::by_cells;
use super::tiles::Call;
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::kernel::Tail;
use crate::numeric::reduce::BLOCK;
use crate::rule::{Kind, Pass};

/// Elements that a step updates before its followers do: they are still in the cache.
pub(super) const FOLLOWED: usize = 4 * BLOCK;

/// A program of one pass over the same parameters as a step's.
pub struct Follower<'a> {
    work: &'a WorkList,
    pass: &'static Pass,
    scalars: &'a [Vec<f64>],
}

impl std::fmt::Debug for Follower<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

impl WorkList {
    /// A program of another list, with its scalars, if it can follow a program of this list. It is one pass without reductions
    /// over the same parameters. Of this list, the program's last pass takes them block by block, and one by one.
    pub fn follower<'a>(
        &self,
        program: &str,
        (other, theirs): (&'a WorkList, &str),
        scalars: &'a [Vec<f64>],
    ) -> Option<Follower<'a>> {
        let param = |list: &WorkList, item: &Item| (list.streams[item.streams], item.param_type, item.len);
        let same = |(own, their): (&Item, &Item)| param(self, own) == param(other, their);
        let by_blocks = |plan: &Plan| {
            let mut passes = plan.rounds(program).iter().flat_map(|round| &round.stages).filter(|one| one.is_pass());
            passes.next_back().is_some_and(|last| !by_cells(last.stage))
        };
        let one_by_one =
            if self.plain { !self.any_follow } else { !self.any_absent() && self.plans.iter().all(by_blocks) };
        let fits = one_by_one
            && other.plain
            && !other.any_absent()
            && self.peers.is_none()
            && other.peers.is_none()
            && self.len() == other.len()
            && self.items.iter().zip(&other.items).all(same);
        match &other.plans[..] {
            [plan] if fits => match plan.rounds(theirs) {
                [round] => match &round.stages[0].stage.kind {
                    Kind::Pass(pass) => Some(Follower { work: other, pass, scalars }),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }
}

impl Follower<'_> {
    /// Runs the pass over `(start, length)` of an array.
    ///
    /// # Safety
    /// As for [`Item::call`].
    pub(super) unsafe fn call(&self, level: Level, i: usize, range: (usize, usize)) {
        let item = &self.work.items[i];
        let call = Call::new(level, &self.scalars[item.group], None, false);
        // SAFETY: upheld by the caller.
        unsafe { item.call(self.work.streams_of(i), self.pass, &call, range, Tail::NONE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Array;
    use crate::kernel::CompiledRule;
    use crate::numeric::Dtype;
    use crate::optimizers::{lamb, sgd, sm3, tools};

    /// Arrays at these addresses, none of which is read.
    fn list(rule: &'static CompiledRule, arrays: &[(usize, usize)]) -> WorkList {
        let mut list = WorkList::default();
        let pointer = |address| std::ptr::without_provenance_mut(address);
        list.extend(arrays.iter().map(|&(address, len)| Array::new(rule, 0, pointer(address), Dtype::F32, len)))
            .unwrap();
        list
    }

    #[test]
    fn follows_what_takes_the_same_arrays_one_by_one() {
        let (sgd, lamb, sm3, average) = (sgd::sgd(), lamb::lamb(), sm3::sm3(), tools::average());
        let (apart, joined) = ([(64, 3), (128, 3)], [(64, 3), (76, 3)]);
        let follows = |step: &WorkList, other: &WorkList| step.follower("step", (other, "sync"), &[]).is_some();
        assert!(follows(&list(sgd, &apart), &list(average, &apart)));
        assert!(!follows(&list(sgd, &joined), &list(average, &joined)), "they are taken as one");
        for arrays in [&apart, &joined] {
            assert!(follows(&list(lamb, arrays), &list(average, arrays)), "its second pass takes them one by one");
        }
        assert!(!follows(&list(sm3, &apart), &list(average, &apart)), "its last pass goes by rows and columns");
        let mut absent = list(lamb, &apart);
        absent.set_absent(1);
        assert!(!follows(&absent, &list(average, &apart)), "its passes leave an array out");
        for others in [&apart[..1], &joined, &[(64, 3), (128, 4)]] {
            assert!(!follows(&list(sgd, &apart), &list(average, others)));
        }
        let (step, other) = (list(sgd, &apart), list(average, &apart));
        assert!(step.follower("step", (&other, "step"), &[]).is_none(), "no such program");
    }
}
