//! The rules, one file a family, and the registry of them all.

pub mod adagrad;
pub mod adam;
pub mod lamb;
pub mod lars;
pub mod radam;
pub mod rmsprop;
pub mod sgd;
pub mod tools;

use crate::rule::Rule;

/// Every rule that an optimizer can stand for. First phases of layerwise rules and [`tools`] are not among them.
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
    radam::radam(),
    lars::lars(),
    lamb::lamb(),
];

/// The rule of this name, one of the tools' too.
pub fn find(name: &str) -> Option<&'static Rule> {
    ALL.iter().chain(tools::ALL).copied().find(|rule| rule.name == name)
}
