//! The norm of a step's gradients on a device, the clipping factor, and the first gradient that is not finite.
//!
//! All come from the rule `clip_norm` over the gradients. They stay on the device until they are read.

use super::device::{Block, Device};
use super::error::Result;
use super::tables::{Tables, Values};
use super::work::DeviceStep;
use crate::memory::try_collect;
use crate::numeric::squares::UNITS;
use crate::optimizers::tools::clip_norm;
use crate::rule::Common;
use crate::{Array, Dtype};

/// The gradients of some arrays under the rule `clip_norm`.
pub(super) struct Norm {
    device: &'static Device,
    tables: Tables,
    /// Whether a sum of squares may need another unit than 1.
    float64: bool,
    /// Host memory that results are read into.
    answer: Option<Block>,
}

impl Norm {
    pub fn new(device: &'static Device, arrays: &[Array], stream: u64) -> Result<Norm> {
        let gradients = |array: &Array| Array {
            grad_type: array.grad_type,
            ..Array::new(clip_norm(), 0, std::ptr::null_mut(), array.param_type.compute(), array.len)
        };
        let is_float64 = |array: &Array| (array.grad_type, array.param_type.compute()) == (Dtype::F64, Dtype::F64);
        let tables = Tables::new(device, &try_collect(arrays.iter().map(gradients))?, stream)?;
        Ok(Norm { device, tables, float64: arrays.iter().any(is_float64), answer: None })
    }

    /// Loads the kernels.
    pub fn prepare(&mut self) -> Result<()> {
        self.tables.prepare(self.device, "step")
    }

    /// The address of the clipping factor on the device.
    pub fn factor(&self) -> u64 {
        self.tables.answer(0, scalar("factor"))
    }

    /// Launches the kernels; of `values`, the scalars are those of the rule, and gradients are not set to zero.
    ///
    /// # Safety
    /// As for [`super::Work::run`], for the gradients.
    pub unsafe fn start(&self, step: &DeviceStep<'_>, values: Values<'_>) -> Result<()> {
        // SAFETY: upheld by the caller; the word is the table's own.
        unsafe {
            self.device.fill(self.tables.answers.pointer, 0xff, 8, step.stream)?; // no nonfinite gradient found yet
        }
        let mut scalars = vec![Vec::new()];
        // In other units the kernels only run if the sum in the unit before it needs that.
        let others = if self.float64 { &UNITS[..] } else { &[] };
        for &unit in [1.0].iter().chain(others) {
            let hypers = [step.grad_scale, step.max_norm.unwrap_or(f64::INFINITY), unit];
            clip_norm().rule.scalars(&Common::default(), &hypers, 1, 1.0, &mut scalars[0]);
            let values = Values { scalars: &scalars, zero_grads: false, ..values };
            // SAFETY: upheld by the caller.
            unsafe { self.tables.run(self.device, "step", &values)? };
        }
        Ok(())
    }

    /// Waits for the results and reads them: the position of the first gradient that is not finite, the norm, and the clipping
    /// factor. The position counts every array as whole blocks.
    ///
    /// # Safety
    /// [`Norm::start`] has been called for this stream.
    pub unsafe fn read(&mut self, stream: u64) -> Result<(Option<u64>, f64, f64)> {
        let words = 1 + clip_norm().rule.scalars.len();
        if self.answer.is_none() {
            self.answer = Some(Block::pinned(self.device, 8 * words)?);
        }
        let pointer = self.answer.as_ref().expect("was just made").pointer;
        // SAFETY: both have this many words, and stay valid; they are read after the stream is synchronized.
        let found = unsafe {
            self.device.copy(pointer, self.tables.answers.pointer, 8 * words, stream)?;
            self.device.synchronize(stream)?;
            std::slice::from_raw_parts(pointer as *const u64, words)
        };
        let number = |name| f64::from_bits(found[1 + scalar(name)]);
        // Without gradients there is nothing to sum: the norm is zero.
        let nonfinite = (found[0] != u64::MAX).then_some(found[0]);
        Ok((nonfinite, number("norm"), number("factor")))
    }
}

/// The index of a scalar of `clip_norm`.
fn scalar(name: &str) -> usize {
    clip_norm().rule.scalars.iter().position(|&scalar| scalar == name).expect("the rule has it")
}
