//! The table of the gradients' pointers on the device, which changes when a step's gradients are elsewhere than the last one's.

use super::device::{Block, Device};
use super::error::Result;
use super::streams::Event;
use crate::Array;

/// The table of the gradients' pointers, and the memory that it is filled from.
pub(super) struct Gradients {
    table: Block,
    /// The contents of the table.
    sent: Vec<*mut u8>,
    staging: Vec<Staging>,
}

// SAFETY: the pointers are only compared and copied.
unsafe impl Send for Gradients {}
// SAFETY: as above.
unsafe impl Sync for Gradients {}

/// Staging memory for gradient pointers.
struct Staging {
    memory: Block,
    sent: Event,
}

impl Gradients {
    pub fn new(device: &'static Device, arrays: usize) -> Result<Gradients> {
        let mut sent = Vec::new();
        sent.try_reserve_exact(arrays)?;
        Ok(Gradients { table: Block::on(device, 8 * arrays)?, sent, staging: Vec::new() })
    }

    pub fn pointer(&self) -> u64 {
        self.table.pointer
    }

    /// Copies the pointers to the device if they changed, from memory that no earlier copy still reads.
    pub fn send(&mut self, device: &'static Device, arrays: &[Array], stream: u64) -> Result<()> {
        if self.sent.len() == arrays.len() && self.sent.iter().zip(arrays).all(|(&sent, array)| sent == array.grad) {
            return Ok(());
        }
        let bytes = 8 * arrays.len();
        let free = match self.staging.iter().position(|staging| staging.sent.reached()) {
            Some(free) => free,
            None => {
                self.staging.push(Staging { memory: Block::pinned(device, bytes)?, sent: Event::new(device)? });
                self.staging.len() - 1
            }
        };
        self.sent.clear();
        let staging = &self.staging[free];
        for (i, array) in arrays.iter().enumerate() {
            // SAFETY: the memory has an entry for each array, and no copy from it is in progress.
            unsafe { (staging.memory.pointer as *mut *mut u8).add(i).write(array.grad) };
        }
        // SAFETY: both have this many entries; the memory is not changed before the event.
        unsafe { device.copy(self.table.pointer, staging.memory.pointer, bytes, stream)? };
        staging.sent.record(stream)?;
        self.sent.extend(arrays.iter().map(|array| array.grad));
        Ok(())
    }
}
