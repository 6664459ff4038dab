//! The rules, one file a family, and the registry of them all.

pub mod adagrad;
pub mod adam;
pub mod rmsprop;
pub mod sgd;

use crate::rule::Rule;

/// Every rule of the crate.
pub static ALL: &[&Rule] = &[
    sgd::sgd(),
    sgd::momentum(),
    adagrad::adagrad(),
    rmsprop::rmsprop(),
    rmsprop::rmsprop_momentum(),
    rmsprop::rmsprop_centered(),
    rmsprop::rmsprop_centered_momentum(),
    adam::adam(),
    adam::amsgrad(),
];

/// The rule of this name.
pub fn find(name: &str) -> Option<&'static Rule> {
    ALL.iter().copied().find(|rule| rule.name == name)
}
