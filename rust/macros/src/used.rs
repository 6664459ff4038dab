//! Gives each rule those of its family's hyperparameters and statements of `each_step` that it uses. Checks nothing.

use std::collections::HashSet;

use syn::Ident;

use crate::analyze::PROLOGUE;
use crate::tree::*;

/// Fills in the hyperparameters and the statements of `each_step` that a rule needs.
pub fn share(family: &Family, rule: &mut Rule) {
    let mut needed: HashSet<String> = PROLOGUE.map(String::from).into();
    let mut need = |name: &Ident| _ = needed.insert(name.to_string());
    for stage in rule.stages() {
        stage.each_expr(|expr| expr.names(&mut need));
    }
    for state in &rule.states {
        if let Some(Initial::Scalar(value)) = &state.initial {
            value.names(&mut need);
        }
    }
    let mut host = Vec::new();
    for statement in family.host.iter().rev() {
        if needed.contains(&statement.name.to_string()) {
            statement.value.names(&mut |name| _ = needed.insert(name.to_string()));
            host.push(statement.clone());
        }
    }
    host.reverse();
    rule.host = host;
    rule.hypers = family.hypers.iter().filter(|name| needed.contains(&name.to_string())).cloned().collect();
}
