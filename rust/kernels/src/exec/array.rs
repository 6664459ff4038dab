//! One array of a step: its rule, its group, and where its numbers lie.

use crate::exec::matrix::Matrix;
use crate::kernel::CompiledRule;
use crate::numeric::{Dtype, StateFormat};

/// An array as bindings describe it.
#[derive(Clone, Debug)]
pub struct Array {
    /// What updates it.
    pub rule: &'static CompiledRule,
    /// Which entry of a step's scalars is its own.
    pub group: usize,
    /// Elements.
    pub len: usize,
    /// The parameter's type; what it is computed in is also the type of its states, if `format` says no other.
    pub param_type: Dtype,
    /// The parameter.
    pub param: *mut u8,
    /// The gradient's type.
    pub grad_type: Dtype,
    /// The gradient; it is written only when a step sets gradients to zero. Rules that read none do not look at it.
    pub grad: *mut u8,
    /// Its states, in the order of the rule's: element, row and column states are vectors, array states one float64. Backups,
    /// and states of scope `all`, have a null pointer here.
    pub states: Vec<*mut u8>,
    /// What its element states are kept in.
    pub format: StateFormat,
    /// Where the parameter goes, rounded to nearest even, when what is updated is a float32 copy of it.
    pub rounded: Option<(Dtype, *mut u8)>,
    /// The matrix that it is; rules with rows or columns need one.
    pub matrix: Option<Matrix>,
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
            states: vec![std::ptr::null_mut(); rule.rule.states.len()],
            format: StateFormat::Compute,
            rounded: None,
            matrix: None,
        }
    }
}
