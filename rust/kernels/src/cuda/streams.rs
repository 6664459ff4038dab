//! Streams and events of a device. Other libraries' streams are handles, and may be destroyed at any time. Knows no memory.

use cudarc::driver::{result, sys};

use super::device::Device;
use super::error::Result;

/// A CUDA stream of its own, which does not wait for the legacy default stream. Dropped, it still runs the work it has.
#[derive(Debug)]
pub struct Stream {
    device: &'static Device,
    raw: sys::CUstream,
}

// SAFETY: streams may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream.
    pub fn new(device: &'static Device) -> Result<Stream> {
        let kind = result::stream::StreamKind::NonBlocking;
        Ok(Stream { device, raw: device.with("making a stream", || result::stream::create(kind))? })
    }

    /// The driver's handle.
    pub fn handle(&self) -> u64 {
        self.raw as u64
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        let _ = self.device.with("giving back a stream", || unsafe { result::stream::destroy(self.raw) });
    }
}

/// A CUDA event: a point in the work of a stream.
#[derive(Debug)]
pub struct Event {
    device: &'static Device,
    raw: sys::CUevent,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that has not been recorded, which counts as reached.
    pub fn new(device: &'static Device) -> Result<Event> {
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        Ok(Event { device, raw: device.with("making an event", || result::event::create(flags))? })
    }

    /// Records it after all work submitted to a stream so far.
    pub fn record(&self, stream: u64) -> Result<()> {
        // SAFETY: the event is ours; an invalid stream is a driver error.
        self.device.with("recording an event", || unsafe { result::event::record(self.raw, stream as sys::CUstream) })
    }

    /// Makes a stream wait for it; the host does not wait.
    pub fn hold(&self, stream: u64) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as above.
        self.device.with("ordering streams", || unsafe {
            result::stream::wait_event(stream as sys::CUstream, self.raw, flags)
        })
    }

    /// Whether it has been reached; does not wait.
    pub fn reached(&self) -> bool {
        // SAFETY: the event is ours.
        self.device.with("asking for an event", || unsafe { result::event::query(self.raw) }).is_ok()
    }

    /// Waits for it.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is ours.
        self.device.with("waiting for an event", || unsafe { result::event::synchronize(self.raw) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        let _ = self.device.with("giving back an event", || unsafe { result::event::destroy(self.raw) });
    }
}
