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
