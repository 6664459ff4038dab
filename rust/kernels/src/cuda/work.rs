//! The arrays of an optimizer on a device, and the launches of a step over them. Knows no Python.
//!
//! Nothing here waits for the device, except when the step depends on whether gradients are finite. The clipping factor, and
//! everything that scalar stages compute, stays on the device.

use super::device::{Block, Device, Event, Result};
use super::stages::check;
use super::tables::{Gradients, Tables, Values};
use crate::memory::try_collect;
use crate::numeric::reduce::{BLOCK, UNITS};
use crate::optimizers::tools::clip_norm;
use crate::rule::{Common, Scope};
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
    Taken {
        /// The norm of the gradients before clipping, if the host has read it.
        norm: Option<f64>,
    },
    /// It was skipped: the first gradient that is not finite, by array and flat index.
    NotFinite((usize, usize)),
}

/// The first gradient that is not finite, by array and flat index; the norm; the clipping factor.
pub type Measured = (Option<(usize, usize)>, f64, f64);

/// The device tables for the current arrays.
struct Ready {
    gradients: Gradients,
    step: Tables,
    /// The same arrays under the rule `clip_norm`; built when a norm is first needed.
    clip: Option<Tables>,
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
    /// The last step's stream, and its end there.
    last: Option<(u64, Event)>,
    answer: Option<Block>,
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
        Work {
            device,
            arrays: Vec::new(),
            lengths: Vec::new(),
            ready: None,
            shared: None,
            shared_count: 0,
            last: None,
            answer: None,
        }
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
        let stream = self.last.as_ref().map_or(0, |(stream, _)| *stream);
        // SAFETY: both are as long, and stay until the stream has been waited for.
        unsafe { self.device.copy(to, from, 8 * self.shared_count, stream)? };
        self.device.synchronize(stream)
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
            let (nonfinite, norm, factor) = self.read_norm(step.stream)?;
            Ok((nonfinite.map(|place| self.place(place)), norm, factor))
        }
    }

    /// Prepares tables, kernels and the gradients' pointers: if this fails, nothing has changed.
    fn prepare(&mut self, program: Option<&str>, step: &DeviceStep<'_>, sums: bool) -> Result<()> {
        let (device, stream) = (self.device, step.stream);
        if self.ready.is_none() {
            let gradients = Gradients::new(device, self.arrays.len())?;
            self.ready = Some(Ready { gradients, step: Tables::new(device, &self.arrays, stream)?, clip: None });
        }
        let ready = self.ready.as_mut().expect("was just made");
        if let Some(program) = program {
            ready.step.prepare(device, program)?;
        }
        if sums {
            if ready.clip.is_none() {
                let plain = |array: &Array| Array {
                    grad_type: array.grad_type,
                    ..Array::new(clip_norm(), 0, std::ptr::null_mut(), array.param_type.compute(), array.len)
                };
                let arrays = try_collect(self.arrays.iter().map(plain))?;
                ready.clip = Some(Tables::new(device, &arrays, stream)?);
            }
            ready.clip.as_mut().expect("was just made").prepare(device, "step")?;
        }
        if let Some((last, end)) = &self.last
            && *last != stream
        {
            end.hold(stream)?;
        }
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
        let mut norm = None;
        // SAFETY: upheld by the caller; tables stay until the device has finished with them, see `Block`.
        unsafe {
            if sums {
                self.start_norm(step)?;
            }
            if step.finite {
                let (nonfinite, found, _) = self.read_norm(step.stream)?;
                if let Some(place) = nonfinite {
                    if step.zero_grads {
                        for array in &self.arrays {
                            let bytes = array.len * array.grad_type.size();
                            self.device.fill(array.grad as u64, 0, bytes, step.stream)?;
                        }
                    }
                    return Ok(Outcome::NotFinite(self.place(place)));
                }
                norm = Some(found);
            }
            let ready = self.ready.as_ref().expect("is prepared");
            let factor = match &ready.clip {
                Some(clip) if step.max_norm.is_some() => clip.answer(0, clip_scalar("factor")),
                _ => 0,
            };
            ready.step.run(self.device, program, &self.values(step, step.scalars, factor))?;
        }
        let end = match self.last.take() {
            Some((_, end)) => end,
            None => Event::new(self.device)?,
        };
        end.record(step.stream)?;
        self.last = Some((step.stream, end));
        Ok(Outcome::Taken { norm })
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

    /// Launches the rule `clip_norm` over the gradients.
    ///
    /// # Safety
    /// As for [`Work::run`], for the gradients.
    unsafe fn start_norm(&self, step: &DeviceStep<'_>) -> Result<()> {
        let clip = self.clip();
        let mut scalars = vec![Vec::new()];
        // SAFETY: upheld by the caller; the word is the table's own.
        unsafe {
            self.device.fill(clip.answers.pointer, 0xff, 8, step.stream)?; // no nonfinite gradient found yet
        }
        let is_float64 = |array: &Array| (array.grad_type, array.param_type.compute()) == (Dtype::F64, Dtype::F64);
        // In other units the kernels only run if the sum in the unit before it needs that.
        let others = if self.arrays.iter().any(is_float64) { &UNITS[..] } else { &[] };
        for &unit in [1.0].iter().chain(others) {
            let hypers = [step.grad_scale, step.max_norm.unwrap_or(f64::INFINITY), unit];
            clip_norm().rule.scalars(&Common::default(), &hypers, 1, 1.0, &mut scalars[0]);
            let values = Values { zero_grads: false, ..self.values(step, &scalars, 0) };
            // SAFETY: upheld by the caller.
            unsafe { clip.run(self.device, "step", &values)? };
        }
        Ok(())
    }

    fn clip(&self) -> &Tables {
        self.ready.as_ref().and_then(|ready| ready.clip.as_ref()).expect("is prepared")
    }

    /// Waits for the results of [`Work::start_norm`] and reads them: the position of the first gradient that is not finite, the
    /// norm, and the clipping factor.
    ///
    /// # Safety
    /// The work that writes them has been submitted to the stream.
    unsafe fn read_norm(&mut self, stream: u64) -> Result<(Option<u64>, f64, f64)> {
        let device = self.device;
        let words = 1 + clip_norm().rule.scalars.len();
        if self.answer.is_none() {
            self.answer = Some(Block::pinned(device, 8 * words)?);
        }
        let pointer = self.answer.as_ref().expect("was just made").pointer;
        // SAFETY: both have this many words, and stay valid; they are read after the stream is synchronized.
        let found = unsafe {
            device.copy(pointer, self.clip().answers.pointer, 8 * words, stream)?;
            device.synchronize(stream)?;
            std::slice::from_raw_parts(pointer as *const u64, words)
        };
        let number = |name| f64::from_bits(found[1 + clip_scalar(name)]);
        // Without gradients there is nothing to sum: the norm is zero.
        let nonfinite = (found[0] != u64::MAX).then_some(found[0]);
        Ok((nonfinite, number("norm"), number("factor")))
    }

    /// Waits for the last step, after which its memory may be freed.
    fn rest(&self) -> Result<()> {
        self.last.as_ref().map_or(Ok(()), |(_, end)| end.wait())
    }

    /// The norm that the last step measured for clipping; waits for it.
    ///
    /// # Errors
    /// The driver's.
    pub fn norm(&mut self) -> Result<Option<f64>> {
        match (&self.ready, &self.last) {
            (Some(Ready { clip: Some(_), .. }), Some((stream, _))) => {
                let stream = *stream;
                // SAFETY: the last step has started it.
                Ok(Some(unsafe { self.read_norm(stream)? }.1))
            }
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

/// The index of a scalar of `clip_norm`.
fn clip_scalar(name: &str) -> usize {
    clip_norm().rule.scalars.iter().position(|&scalar| scalar == name).expect("the rule has it")
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.rest(); // before the tables are freed
    }
}
