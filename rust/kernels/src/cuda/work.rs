//! The arrays of an optimizer on a device, and the launches of a step over them.
//!
//! Nothing here waits for the device, but for the one question that the host needs an answer to: whether gradients are
//! finite, when the step depends on it. The factor of clipping is computed on the device and read by the updates there.

use super::device::{Block, Device, Event, Result};
use super::plan::{Launch, Plan};
use super::tables::{Tables, Total};
use crate::Dtype;
use crate::norm::BLOCK;
use crate::rule::Scalars;
use crate::segment::{After, Segment};

/// How a step is run on a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceStep<'a> {
    /// The scalars of each group, with 1 over `grad_scale` as the gradients' factor.
    pub scalars: &'a [Scalars],
    /// What happens to gradients once they have been used.
    pub after: After,
    /// What gradients are divided by.
    pub grad_scale: f64,
    /// The bound on the global norm of the gradients.
    pub max_norm: Option<f64>,
    /// Whether the step is taken only if all gradients are finite.
    pub finite: bool,
    /// The stream that the step runs in.
    pub stream: u64,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It has been started; with the norm of the gradients, if the host got to know it.
    Taken {
        /// Before clipping.
        norm: Option<f64>,
    },
    /// It was not taken: the first gradient that is not finite, by array and flat index.
    NotFinite((usize, usize)),
}

/// The first gradient that is not finite, by array and flat index; the norm; the factor of clipping.
pub type Measured = (Option<(usize, usize)>, f64, f64);

/// The arrays of an optimizer, all on one device.
pub struct Work {
    device: &'static Device,
    segments: Vec<Segment>,
    tables: Option<Tables>,
    /// Whether the tables are for other arrays, or other types of gradients.
    stale: bool,
    /// The last step's stream, and its end there.
    last: Option<(u64, Event)>,
    answer: Option<Block>,
}

// SAFETY: the pointers are only followed on the device, by `run`, whose callers answer for them.
unsafe impl Send for Work {}
// SAFETY: as above.
unsafe impl Sync for Work {}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Work({} arrays on {:?})", self.segments.len(), self.device)
    }
}

impl Work {
    /// None yet.
    pub fn new(device: &'static Device) -> Work {
        Work { device, segments: Vec::new(), tables: None, stale: true, last: None, answer: None }
    }

    /// Adds arrays behind those already there.
    pub fn extend(&mut self, segments: impl IntoIterator<Item = Segment>) {
        self.segments.extend(segments);
        self.stale = true;
    }

    /// The arrays, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Sets an array's gradient for the next step.
    pub fn set_gradient(&mut self, i: usize, grad: *mut u8, grad_type: Dtype) {
        self.stale |= self.segments[i].grad_type != grad_type;
        (self.segments[i].grad, self.segments[i].grad_type) = (grad, grad_type);
    }

    /// Sums up the gradients without a step, and waits for it: the first that is not finite, the sum's root over
    /// `grad_scale`, and the factor of clipping.
    ///
    /// # Safety
    /// As for [`Work::run`], of the gradients.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn measure(&mut self, step: &DeviceStep<'_>) -> Result<Measured> {
        // SAFETY: the caller's promise.
        let total = unsafe {
            self.prepare(step, true, false)?;
            let tables = self.tables.as_ref().expect("was just made");
            tables.start_sums(self.device, step)?;
            read_total(self.device, tables, &mut self.answer, step.stream)?
        };
        let nonfinite = (total.nonfinite != u64::MAX).then(|| place(&self.segments, total.nonfinite as usize));
        Ok((nonfinite, total.norm, total.factor))
    }

    /// Makes tables, kernels and the gradients' pointers ready: what fails here has changed nothing.
    fn prepare(&mut self, step: &DeviceStep<'_>, sums: bool, update: bool) -> Result<()> {
        if self.stale {
            self.rest()?;
            self.tables = Some(Tables::new(self.device, &self.segments, step.stream)?);
            self.stale = false;
        }
        let tables = self.tables.as_mut().expect("made when arrays were added");
        let none: &[Launch] = &[];
        let first = if sums { &tables.plan.squares } else { none };
        for launch in first.iter().chain(if update { &tables.plan.step } else { none }) {
            self.device.kernels(launch.unit)?;
        }
        if sums {
            self.device.kernels(Plan::total())?;
        }
        if let Some((stream, end)) = &self.last
            && *stream != step.stream
        {
            end.hold(step.stream)?;
        }
        tables.send_gradients(self.device, &self.segments, step.stream)
    }

    /// Starts a step.
    ///
    /// # Safety
    /// As for [`crate::WorkList::run`], for memory of the device, until the stream has run the step.
    ///
    /// # Errors
    /// The driver's; when kernels cannot be compiled, nothing has changed.
    pub unsafe fn run(&mut self, step: &DeviceStep<'_>) -> Result<Outcome> {
        let summed = step.max_norm.is_some() || step.finite;
        self.prepare(step, summed, true)?;
        let tables = self.tables.as_ref().expect("was just made");
        let mut norm = None;
        // SAFETY: the caller's promise; tables stay until the device is through with them, see `Block`.
        unsafe {
            if summed {
                tables.start_sums(self.device, step)?;
            }
            if step.finite {
                let total = read_total(self.device, tables, &mut self.answer, step.stream)?;
                if total.nonfinite != u64::MAX {
                    if step.after == After::Zero {
                        for s in self.segments.iter() {
                            self.device.fill(s.grad as u64, 0, s.len * s.grad_type.size(), step.stream)?;
                        }
                    }
                    return Ok(Outcome::NotFinite(place(&self.segments, total.nonfinite as usize)));
                }
                norm = Some(total.norm);
            }
            for launch in &tables.plan.step {
                tables.start(self.device, launch, step, step.max_norm.is_some())?;
            }
        }
        let end = match self.last.take() {
            Some((_, end)) => end,
            None => Event::new(self.device)?,
        };
        end.record(step.stream)?;
        self.last = Some((step.stream, end));
        Ok(Outcome::Taken { norm })
    }

    /// Waits for the last step: what it uses may go then.
    fn rest(&self) -> Result<()> {
        self.last.as_ref().map_or(Ok(()), |(_, end)| end.wait())
    }

    /// The norm that the last step measured for clipping; waits for it.
    ///
    /// # Errors
    /// The driver's.
    pub fn norm(&mut self) -> Result<Option<f64>> {
        match (&self.tables, &self.last) {
            (Some(tables), Some((stream, _))) => {
                // SAFETY: the total is the tables' own.
                Ok(Some(unsafe { read_total(self.device, tables, &mut self.answer, *stream)? }.norm))
            }
            _ => Ok(None),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.rest(); // before the tables go
    }
}

/// Reads the total, when the stream has come to it.
///
/// # Safety
/// The stream has been given what writes it.
unsafe fn read_total(
    device: &'static Device,
    tables: &Tables,
    answer: &mut Option<Block>,
    stream: u64,
) -> Result<Total> {
    let bytes = size_of::<Total>();
    if answer.is_none() {
        *answer = Some(Block::pinned(device, bytes)?);
    }
    let pointer = answer.as_ref().expect("was just made").pointer;
    // SAFETY: both are as large as a total, and stay; it is read after the stream got there.
    unsafe {
        device.copy(pointer, tables.total.pointer, bytes, stream)?;
        device.synchronize(stream)?;
        Ok((pointer as *const Total).read())
    }
}

/// Array and flat index of an element that is counted as if every array filled its last block.
fn place(segments: &[Segment], position: usize) -> (usize, usize) {
    let mut before = 0;
    for (i, segment) in segments.iter().enumerate() {
        let here = segment.len.div_ceil(BLOCK) * BLOCK;
        if position < before + here {
            return (i, position - before);
        }
        before += here;
    }
    unreachable!("positions lie within the arrays")
}
