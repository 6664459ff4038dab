//! The exchange of gradients among processes: each sends its sums, in buckets, and adds what it receives to its own parts.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use schuss::level::Level;
use schuss::{Dtype, LocalSum, WorkList, try_collect};

use super::{Buffer, Shards};
use crate::memory::no_memory;

/// The gradients of a step.
pub(super) struct Gradients {
    /// Memory for this process's parts of the sums, and where those of each array begin.
    pub(super) block: Vec<u64>,
    parts: Vec<*mut u8>,
    /// The gradients that the caller passed; null where there is none. Empty between steps, with room for all arrays.
    local: Vec<(*mut u8, Dtype)>,
    /// Sums of earlier gradients of this process, all arrays one after the other.
    pub(super) earlier: Vec<Buffer>,
}

// SAFETY: the pointers are dereferenced only during a step, under the optimizer's lock.
unsafe impl Send for Gradients {}

impl Gradients {
    /// With `bytes` for this process's parts of the sums, where those of each array begin at `starts`.
    pub(super) fn new(bytes: usize, starts: &[usize]) -> PyResult<Gradients> {
        let mut block: Vec<u64> = Vec::new();
        block.try_reserve_exact(bytes / 8).map_err(no_memory)?;
        block.resize(bytes / 8, 0);
        let first: *mut u8 = block.as_mut_ptr().cast();
        let parts = try_collect(starts.iter().map(|&start| first.wrapping_add(start))).map_err(no_memory)?;
        let mut local = Vec::new();
        local.try_reserve_exact(starts.len()).map_err(no_memory)?;
        Ok(Gradients { block, parts, local, earlier: Vec::new() })
    }
}

impl Shards {
    /// Raises unless all sums are there that this process sends: the earlier ones, and one that the call itself is given.
    pub fn check_sums(&self) -> PyResult<()> {
        let (found, needed) = (self.locked().earlier.len() + 1, self.layout.own_sums());
        let message = || format!("this process has {found} sums of gradients, and has to send {needed}");
        if found == needed { Ok(()) } else { Err(PyRuntimeError::new_err(message())) }
    }

    /// Puts the caller's gradients back into the work list, where the next step looks for them.
    pub fn restore(&self, work: &mut WorkList) {
        for (i, (gradient, dtype)) in self.locked().local.drain(..).enumerate() {
            if !gradient.is_null() {
                work.set_gradient(i, gradient, dtype);
            }
        }
    }

    /// Adds the gradients of all processes, bucket by bucket, and puts this process's parts into the work list. `done` follows each
    /// bucket, while the next is on its way.
    pub fn add_gradients<'py>(
        &self,
        py: Python<'py>,
        (level, threads): (Level, usize),
        work: &mut WorkList,
        mut done: impl FnMut(&mut WorkList, usize) -> PyResult<()>,
    ) -> PyResult<()> {
        let connection = self.connected()?;
        let mut gradients = self.locked();
        let gradients = &mut *gradients;
        gradients.local.clear();
        for i in 0..work.len() {
            // Arrays without gradients stay out of the step; every process has the same ones.
            let (data, dtype, _) = work.gradient(i);
            let absent = work.is_absent(i);
            gradients.local.push((if absent { std::ptr::null_mut() } else { data }, dtype));
            if !absent {
                work.set_gradient_part(i, gradients.parts[i]);
            }
        }
        let earlier = gradients.earlier.iter().map(|memory| LocalSum::Packed(memory.1, &self.offsets));
        let sums = earlier.chain([LocalSum::Arrays(&gradients.local)]);
        let start = |bucket: usize| {
            for (number, sum) in sums.clone().enumerate() {
                let message = connection.messages[0][bucket % 2].1;
                // SAFETY: gradients were checked and are kept alive; Python made the message long enough.
                unsafe { self.layout.pack_gradients((level, threads), (bucket, number), sum, message) };
            }
            self.started(py, 0, bucket)
        };
        let buckets = self.layout.buckets();
        let mut pending = if buckets > 0 { Some(start(0)?) } else { None };
        for bucket in 0..buckets {
            let next = if bucket + 1 < buckets { Some(start(bucket + 1)?) } else { None };
            self.wait(pending)?;
            // SAFETY: the message has arrived; the parts are as long as in the layout.
            unsafe { self.layout.add(threads, bucket, connection.messages[1][bucket % 2].1, &gradients.parts) };
            done(work, bucket)?;
            pending = next;
        }
        Ok(())
    }

    /// Makes the sums that have been added the means of the gradients.
    pub fn average(&self) {
        // SAFETY: the parts are as long as in the layout, and locked.
        unsafe { self.layout.divide(&self.locked().parts, self.count as f64) };
    }
}
