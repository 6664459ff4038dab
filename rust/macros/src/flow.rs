//! Checks that every name of a rule has one scope, and a value wherever it is read. Generates no code.

use std::collections::{HashMap, HashSet};

use syn::{Error, Ident, Result};

use crate::analyze::MAX_TERMS;
use crate::streams::{operands, recalled};
use crate::terms::Factors;
use crate::tree::*;

/// Checks the programs of a rule. `given` are the names that have a value for the whole step: hyperparameters and the results
/// of `each_step`.
pub fn check(rule: &Rule, given: &HashSet<String>) -> Result<()> {
    let scopes = scopes(rule, given)?;
    let states: HashSet<String> = rule.states.iter().map(|state| state.name.to_string()).collect();
    for program in &rule.programs {
        let mut flow = Flow { scopes: &scopes, known: states.clone(), pending: Vec::new() };
        for stage in &program.stages {
            flow.stage(stage)?;
            let of_cols = stage.reductions.iter().filter(|reduction| reduction.scope == Scope::Col).count();
            let terms = operands(rule, stage).len() + Factors::new(stage).tiles.len() + of_cols;
            if terms + usize::from(recalled(stage).is_some()) > MAX_TERMS {
                let message = format!("a pass has at most {MAX_TERMS} row and column operands and reduced terms");
                return Err(Error::new(program.name.span(), message));
            }
        }
        if let Some(name) = flow.pending.first() {
            return Err(Error::new(name.span(), format!("no text `all {{ … }}` follows that could use {name}")));
        }
    }
    Ok(())
}

/// The scope of every name that is not given: states, reductions and assigned variables.
fn scopes(rule: &Rule, given: &HashSet<String>) -> Result<HashMap<String, Scope>> {
    let mut scopes: HashMap<String, Scope> = HashMap::new();
    let mut add = |name: &Ident, scope: Scope| {
        if given.contains(&name.to_string()) {
            return Err(Error::new(name.span(), format!("{name} is given; use another name")));
        }
        match scopes.insert(name.to_string(), scope) {
            Some(other) if other != scope => {
                let message = format!("{name} has the scope {} already; use another name", other.word());
                Err(Error::new(name.span(), message))
            }
            _ => Ok(()),
        }
    };
    rule.states.iter().try_for_each(|state| add(&state.name, state.scope))?;
    for stage in rule.stages() {
        let text = match stage.kind {
            Kind::Pass(_) => None,
            Kind::Text(scope) => Some(scope),
        };
        if let Some(scope) = text {
            stage.statements.iter().filter(|one| !one.local).try_for_each(|one| add(&one.name, scope))?;
        }
        for reduction in &stage.reductions {
            // A mean over the matrix is stored once for each of its rows or columns.
            add(
                &reduction.name,
                if reduction.scope == Scope::Matrix { text.unwrap_or(Scope::Matrix) } else { reduction.scope },
            )?;
        }
    }
    Ok(scopes)
}

/// The names that have a value at one point of a program.
struct Flow<'a> {
    scopes: &'a HashMap<String, Scope>,
    known: HashSet<String>,
    /// Reductions over all arrays, which only a scalar stage over all arrays completes.
    pending: Vec<Ident>,
}

impl Flow<'_> {
    fn stage(&mut self, stage: &Stage) -> Result<()> {
        if matches!(stage.kind, Kind::Text(Scope::All)) {
            self.known.extend(self.pending.drain(..).map(|name| name.to_string()));
        }
        let mut locals = HashSet::new();
        for statement in &stage.statements {
            self.read(&statement.value, stage, &locals)?;
            let own = if statement.local { &mut locals } else { &mut self.known };
            own.insert(statement.name.to_string());
        }
        for reduction in &stage.reductions {
            self.read(&reduction.value, stage, &locals)?;
        }
        for reduction in &stage.reductions {
            let name = &reduction.name;
            if self.known.contains(&name.to_string())
                || self.pending.contains(name)
                || locals.contains(&name.to_string())
            {
                return Err(Error::new(name.span(), format!("{name} is declared already; use another name")));
            }
            if reduction.scope == Scope::All {
                self.pending.push(name.clone());
            } else {
                self.known.insert(name.to_string());
            }
        }
        Ok(())
    }

    fn read(&self, value: &Expr, stage: &Stage, locals: &HashSet<String>) -> Result<()> {
        let mut result = Ok(());
        value.names(&mut |name| {
            let word = name.to_string();
            let Some(scope) = self.scopes.get(&word).filter(|_| !locals.contains(&word)) else { return };
            let message = if *scope == Scope::Array && matches!(stage.kind, Kind::Text(Scope::All)) {
                format!("{name} has a value for each array; a text over all arrays cannot read it")
            } else if self.pending.contains(name) {
                format!("{name} is over all arrays; it has no value before the next stage `all {{ … }}`")
            } else if !self.known.contains(&word) {
                format!("{name} has no value yet")
            } else {
                return;
            };
            if result.is_ok() {
                result = Err(Error::new(name.span(), message));
            }
        });
        result
    }
}
