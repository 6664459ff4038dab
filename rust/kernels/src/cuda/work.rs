//! The arrays of an optimizer on a device, and the launches of a step over them.
//!
//! Nothing here waits for the device, but for the one question that the host needs an answer to: whether gradients are
//! finite, when the step depends on it. The factor of clipping, and all that texts over arrays compute, stays on the device.

use super::device::{Block, Device, Event, Result};
use super::stages::check;
use super::tables::{Gradients, Tables, Values};
use crate::numeric::reduce::BLOCK;
use crate::optimizers::tools::clip_norm;
use crate::rule::{Common, Scope};
use crate::{Array, Dtype, StateFormat};

/// How a step is run on a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceStep<'a> {
    /// The scalars of each group, with 1 over `grad_scale` as the gradients' factor.
    pub scalars: &'a [Vec<f64>],
    /// Whether gradients are set to zero once they have been used.
    pub zero_grads: bool,
    /// What gradients are divided by.
    pub grad_scale: f64,
    /// The bound on the global norm of the gradients.
    pub max_norm: Option<f64>,
    /// Whether the step is taken only if all gradients are finite.
    pub finite: bool,
    /// The group whose scalars decide about states of scope `all`.
    pub lead: usize,
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

/// What lies on the device for the arrays as they are.
struct Ready {
    gradients: Gradients,
    step: Tables,
    /// The same arrays under the rule `clip_norm`, once somebody asks for their norm.
    clip: Option<Tables>,
}

/// The arrays of an optimizer, all on one device.
pub struct Work {
    device: &'static Device,
    arrays: Vec<Array>,
    /// None when arrays, or types of gradients, are others than before.
    ready: Option<Ready>,
    /// The states of scope `all`, and how many there are.
    shared: Option<Block>,
    shared_count: usize,
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
        write!(f, "Work({} arrays on {:?})", self.arrays.len(), self.device)
    }
}

impl Work {
    /// None yet.
    pub fn new(device: &'static Device) -> Work {
        Work { device, arrays: Vec::new(), ready: None, shared: None, shared_count: 0, last: None, answer: None }
    }

    /// Adds arrays behind those already there. Their pointers are the device's; a state of scope `array` is one float64 there.
    ///
    /// # Errors
    /// A rule or a format of states that only the host has, or a rule that needs to know an array's matrix and does not.
    pub fn extend(&mut self, arrays: Vec<Array>) -> Result<()> {
        for array in &arrays {
            check(array.rule.rule)?;
            if array.format != StateFormat::Compute || array.rounded.is_some() {
                return Err("states in less memory, and float32 copies of parameters, are for the host".into());
            }
            if array.rule.rule.needs_matrix() && array.matrix.is_none() {
                return Err(format!("{} needs to know the matrix that an array is", array.rule.rule.name));
            }
        }
        self.rest()?;
        let count = arrays.iter().map(|array| array.rule.rule.states_of(Scope::All).count()).max().unwrap_or(0);
        if count > self.shared_count {
            (self.shared, self.shared_count) = (Some(Block::on(self.device, 8 * count)?), count);
        }
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
        if self.arrays[i].grad_type != grad_type {
            self.rest()?;
            self.ready = None;
        }
        (self.arrays[i].grad, self.arrays[i].grad_type) = (grad, grad_type);
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

    /// Sets the states of scope `all`, which are zeros at first; waits for the last step.
    ///
    /// # Errors
    /// The driver's, or another number of states than the rule has.
    pub fn set_shared(&mut self, values: &[f64]) -> Result<()> {
        if values.len() != self.shared_count {
            return Err(format!("{} states are shared, got {}", self.shared_count, values.len()));
        }
        self.copy_shared(|pointer| (pointer, values.as_ptr() as u64))
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
        self.prepare(None, step, true)?;
        // SAFETY: the caller's promise.
        unsafe {
            self.start_norm(step)?;
            let (nonfinite, norm, factor) = self.read_norm(step.stream)?;
            Ok((nonfinite.map(|place| self.place(place)), norm, factor))
        }
    }

    /// Makes tables, kernels and the gradients' pointers ready: what fails here has changed nothing.
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
                let arrays: Vec<Array> = self.arrays.iter().map(plain).collect();
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

    /// Starts a program; rules that have none of this name leave their arrays alone. Only `step` looks at gradients first.
    ///
    /// # Safety
    /// As for [`crate::WorkList::run`], for memory of the device, until the stream has run the step.
    ///
    /// # Errors
    /// The driver's; when kernels cannot be compiled, nothing has changed.
    pub unsafe fn run(&mut self, program: &str, step: &DeviceStep<'_>) -> Result<Outcome> {
        let sums = step.max_norm.is_some() || step.finite;
        self.prepare(Some(program), step, sums)?;
        let mut norm = None;
        // SAFETY: the caller's promise; tables stay until the device is through with them, see `Block`.
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

    /// Starts the rule `clip_norm` over the gradients.
    ///
    /// # Safety
    /// As for [`Work::run`], of the gradients.
    unsafe fn start_norm(&self, step: &DeviceStep<'_>) -> Result<()> {
        let clip = self.clip();
        let mut scalars = vec![Vec::new()];
        let hypers = [step.grad_scale, step.max_norm.unwrap_or(f64::INFINITY)];
        clip_norm().rule.scalars(&Common::default(), &hypers, 1, 1.0, &mut scalars[0]);
        let values = Values { zero_grads: false, ..self.values(step, &scalars, 0) };
        // SAFETY: the caller's promise; the word is the table's own.
        unsafe {
            self.device.fill(clip.answers.pointer, 0xff, 8, step.stream)?; // nothing that is not finite has been found
            clip.run(self.device, "step", &values)
        }
    }

    fn clip(&self) -> &Tables {
        self.ready.as_ref().and_then(|ready| ready.clip.as_ref()).expect("is prepared")
    }

    /// Reads what [`Work::start_norm`] finds, when the stream has come to it: the place of the first gradient that is not
    /// finite, the norm, and the factor of clipping.
    ///
    /// # Safety
    /// The stream has been given what writes it.
    unsafe fn read_norm(&mut self, stream: u64) -> Result<(Option<u64>, f64, f64)> {
        let device = self.device;
        let words = 1 + clip_norm().rule.scalars.len();
        if self.answer.is_none() {
            self.answer = Some(Block::pinned(device, 8 * words)?);
        }
        let pointer = self.answer.as_ref().expect("was just made").pointer;
        // SAFETY: both have as many words, and stay; they are read after the stream got there.
        let found = unsafe {
            device.copy(pointer, self.clip().answers.pointer, 8 * words, stream)?;
            device.synchronize(stream)?;
            std::slice::from_raw_parts(pointer as *const u64, words)
        };
        let number = |name| f64::from_bits(found[1 + clip_scalar(name)]);
        // Without a gradient there is no sum either, which is one of zeros.
        let nonfinite = (found[0] != u64::MAX).then_some(found[0]);
        Ok((nonfinite, number("norm"), number("factor")))
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
        match (&self.ready, &self.last) {
            (Some(Ready { clip: Some(_), .. }), Some((stream, _))) => {
                let stream = *stream;
                // SAFETY: the last step has started it.
                Ok(Some(unsafe { self.read_norm(stream)? }.1))
            }
            _ => Ok(None),
        }
    }

    /// Array and flat index of an element that is counted as if every array filled its last block.
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

/// The place of a scalar of `clip_norm`.
fn clip_scalar(name: &str) -> usize {
    clip_norm().rule.scalars.iter().position(|&scalar| scalar == name).expect("the rule has it")
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.rest(); // before the tables go
    }
}
