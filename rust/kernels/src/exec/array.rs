//! One array of a step: its rule, its group, and the pointers to its data. Knows neither threads nor kernels.

use std::ops::Range;

use crate::exec::matrix::Matrix;
use crate::kernel::{CompiledRule, MAX_STATES};
use crate::numeric::{Dtype, StateFormat};

/// The description of an array that bindings pass.
#[derive(Clone, Debug)]
pub struct Array {
    /// The rule that updates it.
    pub rule: &'static CompiledRule,
    /// The index of its group among a step's scalars.
    pub group: usize,
    /// Number of elements.
    pub len: usize,
    /// The parameter's type; its compute type is also the type of the states, unless `format` says otherwise.
    pub param_type: Dtype,
    /// The parameter.
    pub param: *mut u8,
    /// The gradient's type.
    pub grad_type: Dtype,
    /// The gradient; written only when a step sets gradients to zero. Rules that do not use gradients ignore it.
    pub grad: *mut u8,
    /// Its states, in the rule's order: element, row and column states are vectors, array states one float64. Backups, and
    /// states of scope `all`, have a null pointer here.
    pub states: [*mut u8; MAX_STATES],
    /// The storage format of its element states.
    pub format: StateFormat,
    /// Where to store the parameter, rounded to nearest even, when the step updates a float32 copy of it.
    pub rounded: Option<(Dtype, *mut u8)>,
    /// Its shape as a matrix; required by rules with rows or columns.
    pub matrix: Option<Matrix>,
    /// The elements that this process updates: all, unless processes share the array. Element states, the float32 parameter of
    /// a rounded one and the gradient then begin with the first of these elements. It begins and ends where
    /// [`cut_size`](super::cut_size) says, or with the array.
    pub part: Range<usize>,
}

impl Array {
    /// An array of `len` elements without states; the gradient has the parameter's type, and is set later.
    pub fn new(rule: &'static CompiledRule, group: usize, param: *mut u8, param_type: Dtype, len: usize) -> Array {
        Array {
            rule,
            group,
            len,
            param_type,
            param,
            grad_type: param_type,
            grad: std::ptr::null_mut(),
            states: [std::ptr::null_mut(); MAX_STATES],
            format: StateFormat::Compute,
            rounded: None,
            matrix: None,
            part: 0..len,
        }
    }
}
