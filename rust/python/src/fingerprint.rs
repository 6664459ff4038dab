//! A hash of what must be the same in all processes that take a step together. It sends nothing.

use pyo3::prelude::*;

use crate::group::GroupValues;
use crate::inner::Inner;
use crate::memory::List;

/// Hashes what must be the same in all processes that share the arrays.
pub fn fingerprint(
    py: Python<'_>,
    inner: &Inner,
    program: &str,
    steps: u64,
    scheduled: Option<&[List<f64>]>,
    grad_scale: f64,
) -> u64 {
    let mut hash = Fingerprint::new(program).with(steps).with(grad_scale.to_bits());
    hash = Fingerprint::new(inner.nonfinite.name()).with(hash.value());
    hash = hash
        .with(inner.max_grad_norm.map_or(0, f64::to_bits))
        .with(u64::from(inner.seed.is_some()))
        .with(inner.seed.unwrap_or(0))
        .with(u64::from(inner.track_norm));
    hash = inner.group_steps.iter().chain(&inner.missed).fold(hash, |hash, &steps| hash.with(steps));
    hash = (0..inner.work.len()).fold(hash, |hash, i| hash.with(u64::from(inner.work.is_absent(i))));
    for (i, entry) in inner.entries.iter().enumerate() {
        let values = match scheduled {
            Some(values) => GroupValues(&values[i].0),
            None => entry.values(py),
        };
        hash = values.0.iter().fold(hash, |hash, value| hash.with(value.to_bits()));
    }
    hash.value()
}

/// A hash of what a step depends on.
struct Fingerprint(u64);

impl Fingerprint {
    /// The hash of a text.
    fn new(text: &str) -> Fingerprint {
        text.bytes().fold(Fingerprint(0xcbf2_9ce4_8422_2325), |hash, byte| hash.with(u64::from(byte)))
    }

    /// The hash of what was hashed before and this number (FNV-1a, over words).
    fn with(self, word: u64) -> Fingerprint {
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        Fingerprint(mixed ^ mixed >> 32)
    }

    fn value(&self) -> u64 {
        self.0
    }
}
