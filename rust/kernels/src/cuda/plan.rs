//! The launches of a program, as data: which kernel over which chunks of which arrays. Built without a GPU.
//!
//! Arrays with the same group, rule and types share one launch. A launch has one thread block per chunk; its chunks are
//! contiguous in one table for all launches.

use std::collections::TryReserveError;

use super::source::Unit;
use super::stages::{Kernel, Part, kernels, stores, text_kernels};
use crate::Array;
use crate::exec::Cells;
use crate::memory::try_extend;
use crate::numeric::reduce::{BLOCK, LANES};
use crate::rule::{Kind, Program, Rule, Scope};

/// Elements of a chunk; as in prelude.cu, and a multiple of `BLOCK`, the unit of sums.
pub const CHUNK: usize = 16_384;
/// Threads of a block; as in prelude.cu.
pub const THREADS: u32 = 256;
/// Groups of threads in a block, each of which sums one piece.
const GROUPS: usize = THREADS as usize / LANES;

/// A part of an array; its extent depends on the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The array's index in the work list.
    pub array: u32,
    /// The index of the part.
    pub index: u32,
}

/// One launch: a kernel of a unit over a range of the chunk table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The unit that contains the kernel.
    pub unit: Unit,
    /// The kernel in it.
    pub kernel: Kernel,
    /// The group whose scalars it gets.
    pub group: usize,
    /// Its chunks, at least one.
    pub chunks: std::ops::Range<usize>,
    /// Whether it belongs to the last pass that reads gradients, which may set them to zero.
    pub zeroes: bool,
    /// Whether it only sets gradients to zero.
    pub only_zeroes: bool,
}

/// The launches of each program, in order, and the chunk table that they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The chunks of all launches.
    pub chunks: Vec<Chunk>,
    /// Programs by name. A scalar stage over all arrays of a rule has one launch for each group; these are consecutive.
    pub programs: Vec<(&'static str, Vec<Launch>)>,
}

impl Plan {
    /// The plan for these arrays and the types of their gradients.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(arrays: &[Array]) -> Result<Plan, TryReserveError> {
        let mut plan = Plan::default();
        let mut rules: Vec<&'static Rule> = Vec::new();
        for array in arrays {
            if !rules.iter().any(|&known| std::ptr::eq(known, array.rule.rule)) {
                rules.push(array.rule.rule);
            }
        }
        for rule in rules {
            for program in rule.programs {
                let mut launches = Vec::new();
                let of = |array: &Array| std::ptr::eq(array.rule.rule, rule);
                let mut kernels = [kernels(program), text_kernels(program)].concat();
                kernels.sort_by_key(|kernel| kernel.stage); // passes stay before the scalar stages that follow them
                for kernel in kernels {
                    plan.launch(arrays, &of, (rule, program), kernel, &mut launches)?;
                }
                match plan.programs.iter_mut().find(|(name, _)| *name == program.name) {
                    Some((_, all)) => try_extend(all, launches)?,
                    None => plan.programs.push((program.name, launches)),
                }
            }
        }
        Ok(plan)
    }

    /// The launches of the program of this name.
    pub fn program(&self, name: &str) -> &[Launch] {
        self.programs.iter().find(|(known, _)| *known == name).map_or(&[], |(_, launches)| launches)
    }

    /// Adds the launches of a kernel: one for each combination of types and group, in the order of their first arrays.
    fn launch(
        &mut self,
        arrays: &[Array],
        of: &dyn Fn(&Array) -> bool,
        (rule, program): (&'static Rule, &'static Program),
        kernel: Kernel,
        launches: &mut Vec<Launch>,
    ) -> Result<(), TryReserveError> {
        let text = matches!(kernel.part, Part::Arrays | Part::All);
        let unit = |array: &Array| match text {
            true => Unit::Texts { rule, program },
            false => Unit::Passes { rule, program, param: array.param_type, grad: array.grad_type },
        };
        // An array that is left out has no elements, but its part: without others in its group no stage over all arrays runs.
        let takes_part = |array: &Array| of(array) && (kernel.part != Part::All || array.len == array.part.len());
        let mut keys: Vec<(Unit, usize)> = Vec::new();
        for array in arrays.iter().filter(|array| takes_part(array)) {
            let key = (unit(array), array.group);
            if !keys.contains(&key) {
                try_extend(&mut keys, [key])?;
            }
        }
        let zeroes = program.last_gradient() == Some(kernel.stage);
        let stage = &program.stages[kernel.stage];
        let only_zeroes = kernel.part == Part::Elements && matches!(&stage.kind, Kind::Pass(pass) if !stores(pass));
        for (unit_of, group) in keys {
            let start = self.chunks.len();
            if kernel.part == Part::All {
                try_extend(&mut self.chunks, [Chunk { array: 0, index: 0 }])?;
            } else {
                for (number, array) in (0u32..).zip(arrays) {
                    // An array without elements has no sums: its states do not change.
                    if of(array) && array.len > 0 && (unit(array), array.group) == (unit_of, group) {
                        let parts = parts(
                            array,
                            kernel.part,
                            &stage.kind,
                            !super::stages::over(stage, Scope::Matrix).is_empty(),
                        );
                        let chunks = (0..parts as u32).map(|index| Chunk { array: number, index });
                        try_extend(&mut self.chunks, chunks)?;
                    }
                }
            }
            if self.chunks.len() > start {
                let chunks = start..self.chunks.len();
                try_extend(launches, [Launch { unit: unit_of, kernel, group, chunks, zeroes, only_zeroes }])?;
            }
        }
        Ok(())
    }
}

/// Number of chunks of an array for a kernel.
fn parts(array: &Array, part: Part, kind: &Kind, by_matrix: bool) -> usize {
    let threads = THREADS as usize;
    let matrix = || array.matrix.expect("rules with rows or columns have matrices");
    let cells = || Cells::new(matrix());
    let adjacent = |scope| matrix().lies_in_rows(scope);
    match part {
        Part::Elements | Part::Blocks => array.len.div_ceil(CHUNK),
        Part::Pieces => cells().units() * pieces(&cells()).div_ceil(GROUPS),
        Part::Cells => cells().units().div_ceil(threads),
        Part::Along(scope) if adjacent(scope) && matrix().interleaved > 1 => cells().row_sums().div_ceil(threads),
        Part::Along(scope) if adjacent(scope) => {
            let groups = matrix().cols.div_ceil(BLOCK).next_power_of_two().min(GROUPS);
            (matrix().batch * matrix().rows).div_ceil(GROUPS / groups)
        }
        Part::Across(scope) if !adjacent(scope) => cells().col_partials().div_ceil(threads),
        Part::Panels(scope) if !adjacent(scope) => (matrix().batch * matrix().cols).div_ceil(threads),
        Part::Along(_) | Part::Across(_) | Part::Panels(_) => 0,
        Part::Numbers => match kind {
            Kind::Vector { scope, .. } => matrix().vector(*scope).div_ceil(threads),
            _ => unreachable!("only texts over rows or columns have this kernel"),
        },
        Part::Matrices if by_matrix => matrix().batch,
        Part::Matrices | Part::Arrays | Part::All => 1,
    }
}

/// The maximum number of pieces that a cell is summed in.
pub(super) fn pieces(cells: &Cells) -> usize {
    let rows = if cells.together > 1 { cells.together * cells.matrix.rows } else { cells.panel };
    match cells.rows_at_once() {
        1 => rows * cells.strip.div_ceil(BLOCK),
        together => rows.div_ceil(together),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizers::{adafactor, adam, lamb, prodigy, sgd};
    use crate::{CompiledRule, Dtype, Matrix};

    fn array(rule: &'static CompiledRule, group: usize, len: usize, types: (Dtype, Dtype)) -> Array {
        Array { grad_type: types.1, ..Array::new(rule, group, std::ptr::null_mut(), types.0, len) }
    }

    fn made(arrays: &[Array]) -> Plan {
        Plan::new(arrays).expect("there is memory")
    }

    const SAME: (Dtype, Dtype) = (Dtype::F32, Dtype::F32);

    fn names(plan: &Plan, program: &str) -> Vec<(String, usize, usize)> {
        let one = |launch: &Launch| (launch.kernel.to_string(), launch.group, launch.chunks.len());
        plan.program(program).iter().map(one).collect()
    }

    #[test]
    fn every_element_is_in_one_chunk_of_a_pass() {
        let lengths = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 0, 5 * CHUNK + 7, 3];
        for rule in [adam::adam(), lamb::lamb()] {
            let arrays: Vec<_> = lengths.iter().map(|&len| array(rule, len % 2, len, SAME)).collect();
            let plan = made(&arrays);
            for stage in [0, 2] {
                let mut seen: Vec<Vec<u32>> = lengths.iter().map(|&len| vec![0; len]).collect();
                let passes = |launch: &&Launch| launch.kernel.stage == stage && launch.kernel.part != Part::Arrays;
                for launch in plan.program("step").iter().filter(passes) {
                    for chunk in &plan.chunks[launch.chunks.clone()] {
                        let (array, start) = (chunk.array as usize, chunk.index as usize * CHUNK);
                        assert_eq!(arrays[array].group, launch.group);
                        let end = lengths[array].min(start + CHUNK);
                        seen[array][start..end].iter_mut().for_each(|n| *n += 1);
                    }
                }
                assert!(seen.iter().flatten().all(|&n| n == u32::from(stage == 0 || rule.rule.name == "lamb")));
            }
        }
    }

    #[test]
    fn arrays_alike_share_a_launch_and_the_others_do_not() {
        let (adam, sgd) = (adam::adam(), sgd::sgd());
        let mut arrays: Vec<_> = (0..1000).map(|_| array(adam, 0, 1000, SAME)).collect();
        assert_eq!(names(&made(&arrays), "step"), [("stage0_elements".into(), 0, 1000)]);
        arrays.push(array(adam, 0, 10, (Dtype::F32, Dtype::Bf16)));
        arrays.push(array(adam, 1, 10, SAME));
        arrays.push(array(sgd, 2, 10, SAME));
        arrays.push(array(adam, 0, 12, SAME));
        let counts: Vec<_> = names(&made(&arrays), "step").into_iter().map(|(_, group, n)| (group, n)).collect();
        assert_eq!(counts, [(0, 1001), (0, 1), (1, 1), (2, 1)]);
        assert_eq!(names(&made(&arrays), "sync"), []);
    }

    #[test]
    fn texts_run_between_their_passes() {
        let lamb = lamb::lamb();
        let plan = made(&[array(lamb, 0, CHUNK + 1, SAME), array(lamb, 0, 0, SAME)]);
        let expected = [("stage0_blocks", 2), ("stage0_arrays", 1), ("stage2_elements", 2)];
        assert_eq!(names(&plan, "step"), expected.map(|(name, chunks)| (name.to_string(), 0, chunks)));
        let zeroes: Vec<_> = plan.program("step").iter().map(|launch| launch.zeroes).collect();
        assert_eq!(zeroes, [true, true, false]);
        assert_eq!(made(&[]), Plan::default());
        assert!(made(&[array(lamb, 0, 0, SAME)]).program("step").is_empty());
        // A scalar stage over all arrays has one launch for each group, whatever its arrays are.
        let prodigy = prodigy::prodigy();
        let mixed =
            [array(prodigy, 1, 5, SAME), array(prodigy, 0, 0, SAME), array(prodigy, 1, 5, (Dtype::F64, Dtype::F64))];
        let all: Vec<_> = names(&made(&mixed), "step").into_iter().filter(|(name, ..)| name.ends_with("all")).collect();
        let each = ["stage0_all", "stage0_all", "stage2_all", "stage2_all"].map(String::from);
        assert_eq!(all, each.into_iter().zip([1, 0, 1, 0]).map(|(name, group)| (name, group, 1)).collect::<Vec<_>>());
    }

    #[test]
    fn rows_and_columns_are_summed_as_they_lie_in_memory() {
        let of = |transposed| {
            let matrix = Matrix { batch: 1, rows: 100, cols: 5000, transposed, interleaved: 1 };
            let one = Array { matrix: Some(matrix), ..array(adafactor::adafactor(), 0, 500_000, SAME) };
            let sums = names(&made(&[one]), "step").into_iter().filter(|(name, ..)| name.starts_with("stage0_"));
            sums.map(|(name, _, chunks)| (name["stage0_".len()..].to_string(), chunks)).collect::<Vec<_>>()
        };
        // A row of 5 blocks takes 8 groups of threads. There are two panels of 64 rows, and cells of two strips each.
        let cells = [("pieces", 4 * 16), ("cells", 1), ("arrays", 1)];
        let expected = |rest: [(&str, usize); 3]| {
            rest.iter().chain(&cells).map(|&(name, chunks)| (name.to_string(), chunks)).collect::<Vec<_>>()
        };
        assert_eq!(of(false), expected([("along_rows", 50), ("across_cols", 40), ("panels_of_cols", 20)]));
        let mut turned = expected([("across_rows", 40), ("panels_of_rows", 20), ("along_cols", 50)]);
        assert_eq!(of(true), turned.split_off(0));
    }
}
