//! The fast path for a step's options; Python converts or explains all others. Knows no optimizer.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat};

/// A gradient scale that is a plain float and valid.
pub fn plain_scale(given: Option<&Bound<'_, PyAny>>) -> Option<f64> {
    match given {
        None => Some(1.0),
        Some(value) => {
            let scale = value.cast_exact::<PyFloat>().ok()?.value();
            (scale > 0.0 && scale.is_finite() && 1.0 / scale <= f64::from(f32::MAX)).then_some(scale)
        }
    }
}

/// A flag that is a bool.
pub fn plain_flag(given: Option<&Bound<'_, PyAny>>) -> Option<bool> {
    given.map_or(Some(false), |value| value.cast_exact::<PyBool>().ok().map(|flag| flag.is_true()))
}
