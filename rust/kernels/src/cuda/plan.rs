//! What a step launches, as data: which kernel over which chunks of which arrays. Made without a GPU.
//!
//! Arrays that share group, rule, types and centering go into one launch, however many they are. A launch has a block of
//! threads for each chunk of [`CHUNK`] elements; its chunks lie one behind the other in one table of all launches.

use crate::Dtype;
use crate::segment::Segment;

use super::source::Unit;

/// Elements of a chunk; as in prelude.cu, and a multiple of the blocks that sums are made of.
pub const CHUNK: usize = 16_384;
/// Threads of a block; as in prelude.cu.
pub const THREADS: u32 = 256;

/// A part of an array: elements from `index * CHUNK`, or row `index`, or the whole of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The array's place in the work list.
    pub array: u32,
    /// Which part.
    pub index: u32,
}

/// One launch: a kernel of a unit over a range of the chunk table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Where the kernel is.
    pub unit: Unit,
    /// Its name there.
    pub kernel: &'static str,
    /// Whose scalars it gets.
    pub group: usize,
    /// Its chunks, at least one.
    pub chunks: std::ops::Range<usize>,
}

/// The launches of a step, in order, and the table that they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every launch's chunks.
    pub chunks: Vec<Chunk>,
    /// Sums of squares of the gradients; for a step that clips or looks for what is not finite.
    pub squares: Vec<Launch>,
    /// Means of rows, then first phases and ratios of layerwise rules, then updates.
    pub step: Vec<Launch>,
}

impl Plan {
    /// The plan for these arrays and the types of their gradients.
    pub fn new(segments: &[Segment]) -> Plan {
        let mut plan = Plan::default();
        let mut of = |key: &dyn Fn(&Segment) -> Option<(Unit, usize)>, kernel, parts: &dyn Fn(&Segment) -> usize| {
            plan.launches(segments, key, kernel, parts)
        };
        let sums = |s: &Segment| Unit::Sums { grad: s.grad_type, compute: s.param_type.compute() };
        let rule = |s: &Segment| {
            let centered = s.center.is_some();
            Unit::Rule { rule: s.rule.name, param: s.param_type, grad: s.grad_type, centered }
        };
        let pieces = |s: &Segment| s.len.div_ceil(CHUNK);
        let layerwise = |s: &Segment| s.rule.layer.is_some().then(|| (rule(s), s.group));
        let squares = of(&|s| Some((sums(s), 0)), "squares", &pieces);
        let mut step =
            of(&|s| s.center.map(|_| (sums(s), s.group)), "means", &|s| s.center.map_or(0, |center| center.count));
        step.extend(of(&layerwise, "measure", &pieces));
        step.extend(of(&layerwise, "ratio", &|s| usize::from(s.len > 0)));
        step.extend(of(&|s| Some((rule(s), s.group)), "update", &pieces));
        (plan.squares, plan.step) = (squares, step);
        plan
    }

    /// A launch for each key, in the order of their first arrays.
    fn launches(
        &mut self,
        segments: &[Segment],
        key: &dyn Fn(&Segment) -> Option<(Unit, usize)>,
        kernel: &'static str,
        parts: &dyn Fn(&Segment) -> usize,
    ) -> Vec<Launch> {
        let mut keys: Vec<(Unit, usize)> = Vec::new();
        for key in segments.iter().filter_map(key) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut launches = Vec::new();
        for wanted in keys {
            let start = self.chunks.len();
            for (array, segment) in (0u32..).zip(segments) {
                if key(segment) == Some(wanted) {
                    self.chunks.extend((0..parts(segment) as u32).map(|index| Chunk { array, index }));
                }
            }
            if self.chunks.len() > start {
                let (unit, group) = wanted;
                launches.push(Launch { unit, kernel, group, chunks: start..self.chunks.len() });
            }
        }
        launches
    }

    /// The unit whose `total` kernel makes one number of the partial sums.
    pub fn total() -> Unit {
        Unit::Sums { grad: Dtype::F32, compute: Dtype::F32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Rows;
    use crate::rule::MAX_STATES;
    use crate::{Form, Rule, rules};

    fn segment(rule: &'static Rule, group: usize, len: usize, types: (Dtype, Dtype), rows: usize) -> Segment {
        let null = std::ptr::null_mut();
        let center = (rows > 0).then_some(Rows { count: rows, strided: false });
        let (param_type, grad_type) = types;
        Segment {
            rule,
            group,
            len,
            param_type,
            param: null,
            states: [null; MAX_STATES],
            grad_type,
            grad: null,
            center,
            form: Form::default(),
        }
    }

    const SAME: (Dtype, Dtype) = (Dtype::F32, Dtype::F32);

    #[test]
    fn every_element_is_in_one_chunk_of_one_update() {
        let lengths = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 0, 5 * CHUNK + 7, 3];
        let adam = rules::adam::adam();
        let segments: Vec<_> = lengths.iter().map(|&len| segment(adam, len % 2, len, SAME, 0)).collect();
        let plan = Plan::new(&segments);
        for launches in [&plan.squares, &plan.step] {
            let mut seen: Vec<Vec<u32>> = lengths.iter().map(|&len| vec![0; len]).collect();
            for launch in launches {
                for chunk in &plan.chunks[launch.chunks.clone()] {
                    let (array, start) = (chunk.array as usize, chunk.index as usize * CHUNK);
                    assert!(launch.kernel == "squares" || segments[array].group == launch.group);
                    let end = lengths[array].min(start + CHUNK);
                    seen[array][start..end].iter_mut().for_each(|n| *n += 1);
                }
            }
            assert!(seen.iter().flatten().all(|&n| n == 1));
        }
    }

    #[test]
    fn arrays_alike_share_a_launch_and_the_others_do_not() {
        let (adam, sgd) = (rules::adam::adam(), rules::sgd::sgd());
        let mut segments: Vec<_> = (0..1000).map(|_| segment(adam, 0, 1000, SAME, 0)).collect();
        assert_eq!(Plan::new(&segments).step.len(), 1);
        assert_eq!(Plan::new(&segments).step[0].chunks, 1000..2000); // behind those of the sums of squares
        segments.push(segment(adam, 0, 10, (Dtype::F32, Dtype::Bf16), 0));
        segments.push(segment(adam, 1, 10, SAME, 0));
        segments.push(segment(sgd, 2, 10, SAME, 0));
        segments.push(segment(adam, 0, 12, SAME, 3));
        segments.push(segment(adam, 0, 12, SAME, 0));
        let plan = Plan::new(&segments);
        let names =
            |launches: &[Launch]| launches.iter().map(|l| (l.kernel, l.group, l.chunks.len())).collect::<Vec<_>>();
        assert_eq!(names(&plan.squares), [("squares", 0, 1004), ("squares", 0, 1)]);
        let updates = [("update", 0, 1001), ("update", 0, 1), ("update", 1, 1), ("update", 2, 1), ("update", 0, 1)];
        assert_eq!(names(&plan.step), [&[("means", 0, 3)][..], &updates].concat());
    }

    #[test]
    fn a_layerwise_rule_is_measured_before_it_is_updated() {
        let lamb = rules::lamb::lamb();
        let plan = Plan::new(&[segment(lamb, 0, CHUNK + 1, SAME, 0), segment(lamb, 0, 0, SAME, 0)]);
        let names: Vec<_> = plan.step.iter().map(|launch| (launch.kernel, launch.chunks.len())).collect();
        assert_eq!(names, [("measure", 2), ("ratio", 1), ("update", 2)]);
        assert_eq!(Plan::new(&[]), Plan::default());
        assert!(Plan::new(&[segment(lamb, 0, 0, SAME, 0)]).step.is_empty());
    }
}
