//! The arrays of an optimizer on a device, and the launches of a step over them. Knows no Python.
//!
//! Nothing here waits for the device, except when the step depends on whether gradients are finite. The clipping factor, and
//! everything that scalar stages compute, stays on the device.

use super::device::{Block, Device, LEGACY};
use super::error::Result;
use super::gradients::Gradients;
use super::norm::Norm;
use super::stages::check;
use super::streams::Event;
use super::tables::{Tables, Values};
use crate::numeric::reduce::BLOCK;
use crate::rule::Scope;
use crate::{Array, Dtype, StateFormat};

/// The settings of a step on a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceStep<'a> {
    /// The scalars of each group, with 1 / `grad_scale` as the factor of the gradients.
    pub scalars: &'a [Vec<f64>],
    /// Whether gradients are set to zero after use.
    pub zero_grads: bool,
    /// What gradients are divided by.
    pub grad_scale: f64,
    /// The bound on the global norm of the gradients.
    pub max_norm: Option<f64>,
    /// Whether the step is skipped if a gradient is not finite.
    pub finite: bool,
    /// Whether the norm is measured in any case.
    pub tracked: bool,
    /// The group whose scalars determine states of scope `all`.
    pub lead: usize,
    /// The stream that the step runs in.
    pub stream: u64,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It has been started.
    Taken,
    /// It was skipped.
    NotFinite {
        /// The first gradient that is not finite, by array and flat index.
        place: (usize, usize),
        /// The norm of the gradients.
        norm: f64,
    },
}

/// The first gradient that is not finite, by array and flat index; the norm; the clipping factor.
pub type Measured = (Option<(usize, usize)>, f64, f64);

/// The device tables for the current arrays.
struct Ready {
    gradients: Gradients,
    step: Tables,
    /// Built when a norm is first needed.
    norm: Option<Norm>,
}

/// The arrays of an optimizer, all on one device.
pub struct Work {
    device: &'static Device,
    /// Those without a gradient have no elements here.
    arrays: Vec<Array>,
    lengths: Vec<usize>,
    /// None when arrays, types of gradients, or which there are, have changed.
    ready: Option<Ready>,
    /// The states of scope `all`, and how many there are.
    shared: Option<Block>,
    shared_count: usize,
    /// The end of what was started last. Its stream is not kept: it may no longer exist when the next work starts.
    last: Option<Event>,
}

// SAFETY: the pointers are only dereferenced on the device, by `run`, whose callers guarantee their validity.
unsafe impl Send for Work {}
// SAFETY: as above.
unsafe impl Sync for Work {}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Work({} arrays on {:?})", self.arrays.len(), self.device)
    }
}

impl Work {
    /// Without arrays.
    pub fn new(device: &'static Device) -> Work {
        Work { device, arrays: Vec::new(), lengths: Vec::new(), ready: None, shared: None, shared_count: 0, last: None }
    }

    /// Appends arrays. Their pointers are device pointers; a state of scope `array` is one float64 there.
    ///
    /// # Errors
    /// A rule or state format that only the host supports, or a rule that needs an array's matrix, which is missing.
    pub fn extend(&mut self, arrays: Vec<Array>) -> Result<()> {
        for array in &arrays {
            check(array.rule.rule)?;
            if array.format != StateFormat::Compute || array.rounded.is_some() {
                return Err("states in less memory, and float32 copies of parameters, are for the host".into());
            }
            if array.rule.rule.needs_matrix() && array.matrix.is_none() {
                return Err(format!("{} needs the shape of each array as a matrix", array.rule.rule.name).into());
            }
        }
        self.lengths.try_reserve(arrays.len())?;
        self.arrays.try_reserve(arrays.len())?;
        self.rest()?;
        let count = arrays.iter().map(|array| array.rule.rule.states_of(Scope::All).count()).max().unwrap_or(0);
        if count > self.shared_count {
            (self.shared, self.shared_count) = (Some(Block::on(self.device, 8 * count)?), count);
        }
        self.lengths.extend(arrays.iter().map(|array| array.len));
        self.arrays.extend(arrays);
        self.ready = None;
        Ok(())
    }

    /// The arrays, in order.
    pub fn arrays(&self) -> &[Array] {
        &self.arrays
    }

    /// Sets an array's gradient for the next step.
    pub fn set_gradient(&mut self, i: usize, grad: *mut u8, grad_type: Dtype) -> Result<()> {
        if self.arrays[i].grad_type != grad_type || self.is_absent(i) {
            self.rest()?;
            self.ready = None;
        }
        (self.arrays[i].grad, self.arrays[i].grad_type) = (grad, grad_type);
        self.arrays[i].len = self.lengths[i];
        Ok(())
    }

    /// Leaves an array out of what runs, and of norms, until it gets a gradient again.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_absent(&mut self, i: usize) -> Result<()> {
        if self.arrays[i].len > 0 {
            self.rest()?;
            self.ready = None;
            self.arrays[i].len = 0;
        }
        Ok(())
    }

    /// Whether an array with elements is left out.
    pub fn is_absent(&self, i: usize) -> bool {
        self.arrays[i].len != self.lengths[i]
    }

    /// Sets the index of each array's scalars among a step's.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_groups(&mut self, groups: &[usize]) -> Result<()> {
        if self.arrays.iter().zip(groups).any(|(array, &group)| array.group != group) {
            self.rest()?;
            self.ready = None;
            self.arrays.iter_mut().zip(groups).for_each(|(array, &group)| array.group = group);
        }
        Ok(())
    }

    /// The states of scope `all`; waits for the last step.
    ///
    /// # Errors
    /// The driver's.
    pub fn shared(&self) -> Result<Vec<f64>> {
        let mut values = vec![0.0; self.shared_count];
        self.copy_shared(|pointer| (values.as_mut_ptr() as u64, pointer))?;
        Ok(values)
    }

    /// Copies the states of scope `all` to the first of two places from the second; waits for it.
    fn copy_shared(&self, places: impl FnOnce(u64) -> (u64, u64)) -> Result<()> {
        let Some(block) = &self.shared else { return Ok(()) };
        self.rest()?;
        let (to, from) = places(block.pointer);
        // SAFETY: both are as long, and stay until the stream has been waited for.
        unsafe { self.device.copy(to, from, 8 * self.shared_count, LEGACY)? };
        self.device.synchronize(LEGACY)
    }

    /// Sets the states of scope `all`, which are initially zero; waits for the last step.
    ///
    /// # Errors
    /// The driver's, or the wrong number of states.
    pub fn set_shared(&mut self, values: &[f64]) -> Result<()> {
        if values.len() != self.shared_count {
            return Err(format!("{} states are shared, got {}", self.shared_count, values.len()).into());
        }
        self.copy_shared(|pointer| (pointer, values.as_ptr() as u64))
    }

    /// Measures the gradients without a step, and waits for the result: the first that is not finite, the norm after division
    /// by `grad_scale`, and the clipping factor.
    ///
    /// # Safety
    /// As for [`Work::run`], for the gradients.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn measure(&mut self, step: &DeviceStep<'_>) -> Result<Measured> {
        self.prepare(None, step, true)?;
        // SAFETY: upheld by the caller.
        unsafe {
            self.start_norm(step)?;
            let (nonfinite, norm, factor) = self.measured().read(step.stream)?;
            Ok((nonfinite.map(|place| self.place(place)), norm, factor))
        }
    }

    /// Prepares tables, kernels and the gradients' pointers: if this fails, nothing has changed.
    fn prepare(&mut self, program: Option<&str>, step: &DeviceStep<'_>, sums: bool) -> Result<()> {
        let (device, stream) = (self.device, step.stream);
        device.refuse_capture(stream)?;
        if self.ready.is_none() {
            let gradients = Gradients::new(device, self.arrays.len())?;
            self.ready = Some(Ready { gradients, step: Tables::new(device, &self.arrays, stream)?, norm: None });
        }
        let ready = self.ready.as_mut().expect("was just made");
        if let Some(program) = program {
            ready.step.prepare(device, program)?;
        }
        if sums {
            if ready.norm.is_none() {
                ready.norm = Some(Norm::new(device, &self.arrays, stream)?);
            }
            ready.norm.as_mut().expect("was just made").prepare()?;
        }
        self.last.as_ref().map_or(Ok(()), |end| end.hold(stream))?;
        ready.gradients.send(device, &self.arrays, stream)
    }

    /// Starts a program; arrays whose rule has no such program are left alone. Only `step` checks gradients first.
    ///
    /// # Safety
    /// As for [`crate::WorkList::run`], for device memory, until the stream has run the step.
    ///
    /// # Errors
    /// The driver's; when kernels cannot be compiled, nothing has changed.
    pub unsafe fn run(&mut self, program: &str, step: &DeviceStep<'_>) -> Result<Outcome> {
        let sums = step.max_norm.is_some() || step.finite || step.tracked;
        self.prepare(Some(program), step, sums)?;
        // SAFETY: upheld by the caller; tables stay until the device has finished with them, see `Block`.
        unsafe {
            if sums {
                self.start_norm(step)?;
            }
            if step.finite {
                let (nonfinite, norm, _) = self.measured().read(step.stream)?;
                if let Some(position) = nonfinite {
                    if step.zero_grads {
                        for array in &self.arrays {
                            let bytes = array.len * array.grad_type.size();
                            self.device.fill(array.grad as u64, 0, bytes, step.stream)?;
                        }
                        self.mark(step.stream)?;
                    }
                    return Ok(Outcome::NotFinite { place: self.place(position), norm });
                }
            }
            self.end()?; // before anything is written
            let ready = self.ready.as_ref().expect("is prepared");
            let factor = match &ready.norm {
                Some(norm) if step.max_norm.is_some() => norm.factor(),
                _ => 0,
            };
            ready.step.run(self.device, program, &self.values(step, step.scalars, factor))?;
        }
        self.mark(step.stream)?;
        Ok(Outcome::Taken)
    }

    fn values<'a>(&self, step: &DeviceStep<'_>, scalars: &'a [Vec<f64>], factor: u64) -> Values<'a> {
        Values {
            scalars,
            grads: self.ready.as_ref().map_or(0, |ready| ready.gradients.pointer()),
            shared: self.shared.as_ref().map_or(0, |block| block.pointer),
            lead: step.lead,
            factor,
            zero_grads: step.zero_grads,
            stream: step.stream,
        }
    }

    /// Launches the kernels of the norm.
    ///
    /// # Safety
    /// As for [`Work::run`], for the gradients.
    unsafe fn start_norm(&mut self, step: &DeviceStep<'_>) -> Result<()> {
        let values = self.values(step, &[], 0);
        // SAFETY: upheld by the caller.
        unsafe { self.measured().start(step, values) }
    }

    fn measured(&mut self) -> &mut Norm {
        self.ready.as_mut().and_then(|ready| ready.norm.as_mut()).expect("is prepared")
    }

    /// The event for the end of what was started last.
    fn end(&mut self) -> Result<&Event> {
        if self.last.is_none() {
            self.last = Some(Event::new(self.device)?);
        }
        Ok(self.last.as_ref().expect("was just made"))
    }

    /// Records the end of the work in this stream so far. Later work on these arrays waits for it, in any stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn mark(&mut self, stream: u64) -> Result<()> {
        self.end()?.record(stream)
    }

    /// Makes a stream wait for the end that was recorded last.
    ///
    /// # Errors
    /// The driver's.
    pub fn hold(&self, stream: u64) -> Result<()> {
        self.last.as_ref().map_or(Ok(()), |end| end.hold(stream))
    }

    /// Waits for the last step, after which its memory may be freed.
    fn rest(&self) -> Result<()> {
        self.last.as_ref().map_or(Ok(()), Event::wait)
    }

    /// The norm that the last step measured for clipping; waits for it.
    ///
    /// # Errors
    /// The driver's.
    pub fn norm(&mut self) -> Result<Option<f64>> {
        self.rest()?;
        match &mut self.ready {
            // SAFETY: the last step has measured it.
            Some(Ready { norm: Some(norm), .. }) => Ok(Some(unsafe { norm.read(LEGACY)? }.1)),
            _ => Ok(None),
        }
    }

    /// Array and flat index of an element, from a position that counts every array as whole blocks.
    fn place(&self, position: u64) -> (usize, usize) {
        let (position, mut before) = (position as usize, 0);
        for (i, array) in self.arrays.iter().enumerate() {
            let here = array.len.div_ceil(BLOCK) * BLOCK;
            if position < before + here {
                return (i, position - before);
            }
            before += here;
        }
        unreachable!("positions lie within the arrays")
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.rest(); // before the tables are freed
    }
}
