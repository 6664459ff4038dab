//! A plan's tables on the device, and the launches' arguments.
//!
//! Knows nothing of earlier or later steps: [`super::Work`] decides when tables are stale and what waits for what.

use std::collections::HashMap;

use cudarc::driver::sys::CUfunction;

use super::device::{Block, Device};
use super::error::Result;
use super::plan::{Chunk, Launch, Plan, THREADS, pieces};
use super::stages::{Part, over, summed};
use crate::exec::{Cells, by_cells};
use crate::memory::try_extend;
use crate::numeric::reduce::BLOCK;
use crate::rule::{Kind, L2, Rule, Scope, Stage};
use crate::{Array, Dtype};

/// As in prelude.cu.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DeviceArray {
    len: u64,
    pointers: u64,
    own: u64,
    block: u64,
    cell: u64,
    piece: u64,
    column: u64,
    run: u64,
    batch: u64,
    rows: u64,
    cols: u64,
    transposed: u64,
    interleaved: u64,
    panel: u64,
    panels: u64,
    together: u64,
    cells: u64,
    pieces: u64,
}

/// Arguments before the scalars, as in prelude.cu.
const HEAD: usize = 22;

/// Size of the arguments of a rule's kernels in bytes.
#[cfg(test)]
pub(super) fn argument_bytes(rule: &Rule) -> usize {
    8 * (HEAD + rule.scalars.len())
}

/// The partial sums of a rule's arrays: the offset of each kind, and the stride from one reduction to the next.
#[derive(Clone, Copy)]
struct Sums {
    rule: &'static Rule,
    partials: usize,
    pieces: usize,
    columns: usize,
    runs: usize,
    stride: usize,
    piece_stride: usize,
    column_stride: usize,
    run_stride: usize,
    blocks: usize,
    cells: usize,
}

/// The values that change from step to step, for the arguments of launches.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    /// The scalars of each group.
    pub scalars: &'a [Vec<f64>],
    /// The table of the gradients' pointers.
    pub grads: u64,
    /// The states of scope `all`, and the group that determines them.
    pub shared: u64,
    pub lead: usize,
    /// A pointer to the factor of gradients that replaces their scalar, whose sign stays; 0 for none.
    pub factor: u64,
    pub zero_grads: bool,
    pub stream: u64,
}

/// The device memory of one plan.
pub(super) struct Tables {
    plan: Plan,
    arrays: Block,
    pointers: Block,
    chunks: Block,
    /// Vectors of rows and columns that are not states.
    _vectors: Block,
    sums: Block,
    own: Block,
    /// A word for the position of the first gradient that is not finite, then the scalars computed on the device for each
    /// group.
    pub answers: Block,
    groups: Vec<usize>,
    of_rules: Vec<Sums>,
    /// The kernels of the launches of programs that have run before.
    functions: HashMap<&'static str, Vec<CUfunction>>,
}

// SAFETY: functions may be used from any thread.
unsafe impl Send for Tables {}
// SAFETY: as above.
unsafe impl Sync for Tables {}

impl Tables {
    pub fn new(device: &'static Device, arrays: &[Array], stream: u64) -> Result<Tables> {
        let plan = Plan::new(arrays)?;
        let mut of_rules: Vec<Sums> = Vec::new();
        let (mut described, mut pointers, mut own) = (Vec::new(), Vec::new(), 0);
        let mut vectors = Vec::new(); // indices of pointers, with the bytes of each
        described.try_reserve_exact(arrays.len())?;
        for array in arrays {
            let rule = array.rule.rule;
            let place = of_rules.iter().position(|sums| std::ptr::eq(sums.rule, rule)).unwrap_or_else(|| {
                of_rules.push(Sums::of(rule));
                of_rules.len() - 1
            });
            let cells = array.matrix.filter(|_| rule.needs_matrix()).map(Cells::new);
            if rule.needs_matrix() && cells.is_none() {
                return Err(format!("{} needs the shape of each array as a matrix", rule.name).into());
            }
            described.push(of_rules[place].add(array, cells.as_ref(), (pointers.len(), own)));
            own += rule.scalars.len() - rule.array_scalars;
            try_extend(&mut pointers, [array.param as u64])?;
            try_extend(&mut pointers, rule.streams().map(|(state, _)| array.states[state] as u64))?;
            for (scope, names) in [(Scope::Row, rule.rows), (Scope::Col, rule.cols)] {
                let states = rule.states_of(scope);
                let first = pointers.len();
                try_extend(&mut pointers, states.map(|(state, _)| array.states[state] as u64))?;
                let length = array.matrix.map_or(0, |matrix| matrix.vector(scope));
                for _ in pointers.len() - first..names.len() {
                    let bytes = (length * array.param_type.compute().size()).next_multiple_of(8);
                    try_extend(&mut vectors, [(pointers.len(), bytes)])?;
                    try_extend(&mut pointers, [0])?;
                }
            }
            try_extend(&mut pointers, rule.states_of(Scope::Array).map(|(state, _)| array.states[state] as u64))?;
        }
        let memory = Block::on(device, vectors.iter().map(|(_, bytes)| bytes).sum())?;
        let mut next = memory.pointer;
        for (place, bytes) in vectors {
            pointers[place] = next;
            next += bytes as u64;
        }
        let mut sums = 0;
        of_rules.iter_mut().for_each(|one| one.lay_out(&mut sums));
        let mut groups = Vec::new();
        let mut answers = 1;
        for array in arrays {
            let more = (array.group + 1).saturating_sub(groups.len());
            try_extend(&mut groups, std::iter::repeat_n(0, more))?;
            if groups[array.group] == 0 {
                groups[array.group] = answers;
                answers += array.rule.rule.scalars.len();
            }
        }
        Ok(Tables {
            arrays: upload(device, &described, stream)?,
            pointers: upload(device, &pointers, stream)?,
            chunks: upload(device, &plan.chunks, stream)?,
            _vectors: memory,
            sums: Block::on(device, 8 * sums)?,
            own: Block::on(device, 8 * own)?,
            answers: Block::on(device, 8 * answers)?,
            groups,
            of_rules,
            plan,
            functions: HashMap::new(),
        })
    }

    /// Loads the kernels of a program.
    pub fn prepare(&mut self, device: &'static Device, program: &str) -> Result<()> {
        let Some((name, launches)) = self.plan.programs.iter().find(|(name, _)| *name == program) else {
            return Ok(());
        };
        if !self.functions.contains_key(name) {
            let one = |launch: &Launch| -> Result<CUfunction> {
                Ok(device.kernels(launch.unit)?[&launch.kernel.to_string()])
            };
            let mut found = Vec::new();
            found.try_reserve_exact(launches.len())?;
            for launch in launches {
                found.push(one(launch)?);
            }
            self.functions.insert(name, found);
        }
        Ok(())
    }

    /// The address of a scalar that the device computes for a group.
    pub fn answer(&self, group: usize, scalar: usize) -> u64 {
        self.answers.pointer + 8 * (self.groups[group] + scalar) as u64
    }

    /// Launches all kernels of a program, which must be loaded.
    ///
    /// # Safety
    /// As for [`super::Work::run`].
    pub unsafe fn run(&self, device: &'static Device, program: &str, values: &Values<'_>) -> Result<()> {
        let Some(functions) = self.functions.get(program) else { return Ok(()) };
        let launches = self.plan.program(program);
        let mut at = 0;
        while at < launches.len() {
            let kernel = (launches[at].unit, launches[at].kernel);
            let mut end = at + 1;
            let mut lead = None;
            if launches[at].kernel.part == Part::All {
                end += launches[end..].iter().take_while(|one| (one.unit, one.kernel) == kernel).count();
                let groups = || launches[at..end].iter().map(|launch| launch.group);
                lead = groups().find(|&group| group == values.lead).or_else(|| groups().min());
            }
            // The other groups first, so that all of them read the old states.
            for leads in [false, true] {
                for (launch, &function) in launches[at..end].iter().zip(&functions[at..end]) {
                    let skipped = launch.only_zeroes && !values.zero_grads;
                    if leads == (lead == Some(launch.group)) && !skipped {
                        let args = self.args(launch, values, leads);
                        let blocks =
                            u32::try_from(launch.chunks.len()).map_err(|_| "too many elements for one launch")?;
                        // SAFETY: upheld by the caller; every kernel takes these arguments.
                        unsafe { device.launch(function, blocks, THREADS, &args, values.stream)? };
                    }
                }
            }
            at = end;
        }
        Ok(())
    }

    fn args(&self, launch: &Launch, values: &Values<'_>, leads: bool) -> Vec<u64> {
        let rule = launch.unit.rule();
        let sums = self.of_rules.iter().find(|sums| std::ptr::eq(sums.rule, rule)).expect("launches have arrays");
        let scalars = &values.scalars[launch.group];
        let compute = launch.unit.compute();
        let bits = |x: f64| if compute == Dtype::F64 { x.to_bits() } else { (x as f32).to_bits().into() };
        let at = |place: usize| self.sums.pointer + 8 * place as u64;
        let mut args = vec![
            self.arrays.pointer,
            self.pointers.pointer,
            values.grads,
            self.chunks.pointer + (launch.chunks.start * size_of::<Chunk>()) as u64,
            at(sums.partials),
            at(sums.pieces),
            at(sums.columns),
            at(sums.runs),
            self.own.pointer,
            self.answer(launch.group, 0),
            values.shared,
            values.factor,
            self.answers.pointer,
        ];
        let numbers = [
            sums.stride,
            sums.piece_stride,
            sums.column_stride,
            sums.run_stride,
            sums.blocks,
            sums.cells,
            usize::from(scalars[L2] != 0.0),
            usize::from(values.zero_grads && launch.zeroes),
            usize::from(leads),
        ];
        args.extend(numbers.map(|x| x as u64));
        debug_assert_eq!(args.len(), HEAD);
        args.extend(scalars.iter().map(|&x| bits(x)));
        if values.factor != 0 {
            args[HEAD] = bits(scalars[0].signum());
        }
        args
    }
}

impl Sums {
    fn of(rule: &'static Rule) -> Sums {
        Sums {
            rule,
            partials: 0,
            pieces: 0,
            columns: 0,
            runs: 0,
            stride: 0,
            piece_stride: 0,
            column_stride: 0,
            run_stride: 0,
            blocks: 0,
            cells: 0,
        }
    }

    /// Reserves the entries of another array.
    fn add(&mut self, array: &Array, cells: Option<&Cells>, (pointers, own): (usize, usize)) -> DeviceArray {
        let mut described = DeviceArray {
            len: array.len as u64,
            pointers: pointers as u64,
            own: own as u64,
            block: self.blocks as u64,
            cell: self.cells as u64,
            piece: self.piece_stride as u64,
            column: self.column_stride as u64,
            run: self.run_stride as u64,
            ..DeviceArray::default()
        };
        self.blocks += array.len.div_ceil(BLOCK);
        if let Some(cells) = cells {
            let matrix = cells.matrix;
            described.batch = matrix.batch as u64;
            described.rows = matrix.rows as u64;
            described.cols = matrix.cols as u64;
            described.transposed = matrix.transposed.into();
            described.interleaved = matrix.interleaved as u64;
            described.panel = cells.panel as u64;
            described.panels = cells.panels as u64;
            described.together = cells.together as u64;
            described.cells = cells.units() as u64;
            described.pieces = pieces(cells) as u64;
            self.cells += cells.units();
            self.piece_stride += cells.units() * pieces(cells);
            self.column_stride += cells.col_partials();
            self.run_stride += matrix.batch * matrix.interleaved;
        }
        self.stride = self.blocks.max(self.cells);
        described
    }

    /// Assigns an offset from `next` on to each kind of sums, with the size that the rule's stages need.
    fn lay_out(&mut self, next: &mut usize) {
        let passes = |stages: &'static [Stage]| stages.iter().filter(|stage| matches!(stage.kind, Kind::Pass(_)));
        let most = |count: &dyn Fn(&Stage) -> usize| self.rule.stages().map(count).max().unwrap_or(0);
        let in_all =
            self.rule.programs.iter().map(|program| passes(program.stages).map(|stage| summed(stage).len()).sum());
        let partials: usize = in_all.max().unwrap_or(0);
        let pieces = most(&|stage| if by_cells(stage) { summed(stage).len() } else { 0 });
        let columns = most(&|stage| over(stage, Scope::Row).len().max(over(stage, Scope::Col).len()));
        let vector = |stage: &Stage| matches!(stage.kind, Kind::Vector { .. });
        let runs = most(&|stage| if vector(stage) { over(stage, Scope::Array).len() } else { 0 });
        let mut take = |count: usize| {
            *next += count;
            *next - count
        };
        self.partials = take(partials * self.stride);
        self.pieces = take(pieces * self.piece_stride);
        self.columns = take(columns * self.column_stride);
        self.runs = take(runs * self.run_stride);
    }
}

fn upload<T>(device: &'static Device, table: &[T], stream: u64) -> Result<Block> {
    let bytes = size_of_val(table);
    let block = Block::on(device, bytes)?;
    // SAFETY: the block is as large; both stay until the stream has run the copy.
    unsafe { device.copy(block.pointer, table.as_ptr() as u64, bytes, stream)? };
    device.synchronize(stream)?;
    Ok(block)
}
