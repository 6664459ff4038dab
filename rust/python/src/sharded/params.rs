//! The exchange of parameters among processes: each sends its parts, in buckets, and gets those of the others.

use pyo3::prelude::*;

use super::Shards;

/// An exchange of parameters in buckets, of which two are on their way at a time.
pub struct ParamExchange<'a, 'py> {
    shards: &'a Shards,
    py: Python<'py>,
    threads: usize,
    pending: [Option<Bound<'py, PyAny>>; 2],
    next: usize,
}

impl<'a, 'py> ParamExchange<'a, 'py> {
    pub(super) fn new(shards: &'a Shards, py: Python<'py>, threads: usize) -> ParamExchange<'a, 'py> {
        ParamExchange { shards, py, threads, pending: [None, None], next: 0 }
    }

    /// Starts the exchange of the next bucket.
    pub fn start(&mut self) -> PyResult<()> {
        let bucket = self.next;
        if bucket >= 2 {
            self.finish(bucket - 2)?;
        }
        let message = self.shards.connected()?.messages[2][bucket % 2].1;
        // SAFETY: parameters are pinned and unchanged; Python made the message long enough.
        unsafe { self.shards.layout.pack_params(self.threads, bucket, &self.shards.params.0, message) };
        self.pending[bucket % 2] = Some(self.shards.started(self.py, 1, bucket)?);
        self.next += 1;
        Ok(())
    }

    fn finish(&mut self, bucket: usize) -> PyResult<()> {
        self.shards.wait(self.pending[bucket % 2].take())?;
        let message = self.shards.connected()?.messages[3][bucket % 2].1;
        // SAFETY: as above; the message has arrived.
        unsafe { self.shards.layout.unpack_params(self.threads, bucket, &self.shards.params.0, message) };
        Ok(())
    }

    /// Waits for all buckets.
    pub fn end(mut self) -> PyResult<()> {
        (self.next.saturating_sub(2)..self.next).try_for_each(|bucket| self.finish(bucket))
    }
}
