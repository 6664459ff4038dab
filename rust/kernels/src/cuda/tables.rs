//! What a plan keeps on a device, the launches' arguments, and the copies that keep both up to date.
//!
//! Knows nothing of steps before or after: [`super::Work`] says when tables are stale and what waits for what.

use cudarc::driver::sys;

use super::DeviceStep;
use super::device::{Block, Device, Event, Result};
use super::plan::{Launch, Plan, THREADS};
use super::source::Unit;
use crate::Dtype;
use crate::norm::BLOCK;
use crate::rule::{MAX_SCALARS, MAX_STATES};
use crate::segment::{After, Segment};

/// As in prelude.cu.
#[repr(C)]
struct Array {
    param: *mut u8,
    states: [*mut u8; MAX_STATES],
    len: u64,
    block: u64,
    rows: u64,
    row: u64,
    strided: u64,
}

/// As in prelude.cu.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Total {
    pub nonfinite: u64,
    pub sum: f64,
    pub norm: f64,
    pub factor: f64,
    factor32: f32,
    _end: u32,
}

/// As in prelude.cu.
#[repr(C)]
struct Args {
    arrays: u64,
    grads: u64,
    chunks: u64,
    partials: u64,
    ratios: u64,
    means: u64,
    total: u64,
    blocks: u64,
    from_total: u64,
    after: u64,
    factor: u64,
    scalars: [u64; MAX_SCALARS],
    grad_scale: f64,
    max_norm: f64,
}

/// Gradient pointers on their way to the device.
struct Staging {
    memory: Block,
    sent: Event,
}

/// What lies on the device for one plan.
pub(super) struct Tables {
    pub plan: Plan,
    arrays: Block,
    chunks: Block,
    grads: Block,
    partials: Block,
    ratios: Block,
    means: Block,
    pub total: Block,
    blocks: usize,
    /// What the device's table of gradients holds.
    sent: Vec<*mut u8>,
    staging: Vec<Staging>,
}

impl Tables {
    pub fn new(device: &'static Device, segments: &[Segment], stream: u64) -> Result<Tables> {
        let plan = Plan::new(segments);
        let (mut blocks, mut rows) = (0, 0);
        let arrays: Vec<Array> = segments
            .iter()
            .map(|segment| {
                let center = segment.center;
                let (block, row) = (blocks, rows);
                blocks += segment.len.div_ceil(BLOCK);
                rows += center.map_or(0, |center| center.count);
                Array {
                    param: segment.param,
                    states: segment.states,
                    len: segment.len as u64,
                    block: block as u64,
                    rows: center.map_or(1, |center| center.count) as u64,
                    row: row as u64,
                    strided: center.is_some_and(|center| center.strided).into(),
                }
            })
            .collect();
        Ok(Tables {
            arrays: upload(device, &arrays, stream)?,
            chunks: upload(device, &plan.chunks, stream)?,
            grads: Block::on(device, 8 * segments.len())?,
            partials: Block::on(device, 16 * blocks)?,
            ratios: Block::on(device, 8 * segments.len())?,
            means: Block::on(device, 8 * rows)?,
            total: Block::on(device, size_of::<Total>())?,
            blocks,
            plan,
            sent: Vec::new(),
            staging: Vec::new(),
        })
    }

    /// Brings the gradients' pointers onto the device where they are new, through memory that no earlier copy still reads.
    pub fn send_gradients(&mut self, device: &'static Device, segments: &[Segment], stream: u64) -> Result<()> {
        if self.sent.len() == segments.len() && self.sent.iter().zip(segments).all(|(&sent, s)| sent == s.grad) {
            return Ok(());
        }
        let bytes = 8 * segments.len();
        let free = self.staging.iter().position(|staging| staging.sent.reached());
        let free = match free {
            Some(free) => free,
            None => {
                self.staging.push(Staging { memory: Block::pinned(device, bytes)?, sent: Event::new(device)? });
                self.staging.len() - 1
            }
        };
        self.sent.clear();
        let staging = &self.staging[free];
        for (i, segment) in segments.iter().enumerate() {
            // SAFETY: the memory has a place for each array, and no copy out of it is under way.
            unsafe { (staging.memory.pointer as *mut *mut u8).add(i).write(segment.grad) };
        }
        // SAFETY: both have as many places; the memory is left alone until the event.
        unsafe { device.copy(self.grads.pointer, staging.memory.pointer, bytes, stream)? };
        staging.sent.record(stream)?;
        self.sent.extend(segments.iter().map(|segment| segment.grad));
        Ok(())
    }

    fn args(&self, step: &DeviceStep<'_>, chunk: usize) -> Args {
        Args {
            arrays: self.arrays.pointer,
            grads: self.grads.pointer,
            chunks: self.chunks.pointer + (chunk * size_of::<super::plan::Chunk>()) as u64,
            partials: self.partials.pointer,
            ratios: self.ratios.pointer,
            means: self.means.pointer,
            total: self.total.pointer,
            blocks: self.blocks as u64,
            from_total: 0,
            after: 0,
            factor: 0,
            scalars: [0; MAX_SCALARS],
            grad_scale: step.grad_scale,
            max_norm: step.max_norm.unwrap_or(f64::INFINITY),
        }
    }

    /// # Safety
    /// As for [`super::Work::run`].
    pub unsafe fn start(
        &self,
        device: &'static Device,
        launch: &Launch,
        step: &DeviceStep<'_>,
        clips: bool,
    ) -> Result<()> {
        let mut args = self.args(step, launch.chunks.start);
        let scalars = &step.scalars[launch.group];
        // A ratio is computed from norms, in float64; all else in the compute type.
        let compute = if launch.kernel == "ratio" { Dtype::F64 } else { launch.unit.compute() };
        let bits = |x: f64| if compute == Dtype::F64 { x.to_bits() } else { (x as f32).to_bits().into() };
        args.scalars = scalars.map(bits);
        args.scalars[0] = bits(scalars[0].signum());
        args.factor = bits(scalars[0].abs());
        args.from_total = clips.into();
        if launch.kernel == "update" {
            args.after = match step.after {
                After::Keep => 0,
                After::Zero => 1,
                After::Copy => 2,
            };
        }
        // SAFETY: the caller's promise.
        unsafe { start(device, launch.unit, launch.kernel, launch.chunks.len(), &args, step.stream) }
    }

    /// # Safety
    /// As for [`super::Work::run`], of the gradients.
    pub unsafe fn start_sums(&self, device: &'static Device, step: &DeviceStep<'_>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            device.fill(self.total.pointer, 0xff, 8, step.stream)?; // nothing that is not finite has been found
            for launch in &self.plan.squares {
                self.start(device, launch, step, false)?;
            }
            start(device, Plan::total(), "total", 1, &self.args(step, 0), step.stream)
        }
    }
}

/// # Safety
/// As for [`super::Work::run`].
unsafe fn start(device: &Device, unit: Unit, kernel: &str, blocks: usize, args: &Args, stream: u64) -> Result<()> {
    let function: sys::CUfunction = device.kernels(unit)?[kernel];
    let blocks = u32::try_from(blocks).map_err(|_| "too many elements for one launch")?;
    // SAFETY: the caller's promise; every kernel takes one Args.
    unsafe { device.launch(function, blocks, THREADS, args, stream) }
}

fn upload<T>(device: &'static Device, table: &[T], stream: u64) -> Result<Block> {
    let bytes = size_of_val(table);
    let block = Block::on(device, bytes)?;
    // SAFETY: the block is as large; pageable memory is read before the call returns.
    unsafe { device.copy(block.pointer, table.as_ptr() as u64, bytes, stream)? };
    Ok(block)
}
