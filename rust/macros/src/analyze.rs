//! Semantic checks of a parsed family: name resolution, storage of scalars and vectors, and limits. Generates no code.

use std::collections::{HashMap, HashSet};

use syn::{Error, Ident, Result};

use crate::flow;
use crate::terms::Factors;
use crate::tree::*;
use crate::used;

/// The scalars of every rule, which come before its own; `each_step` may set them.
pub const PROLOGUE: [&str; 3] = ["gradient_factor", "l2", "decay"];
/// Limits, with the drivers' names for them: every family asserts that they are the same.
pub const MAX_STREAMS: usize = 16;
pub const MAX_STATES: usize = 24;
pub const MAX_TERMS: usize = 14;

/// Checks a family and assigns the indices of its scalars and vectors.
pub fn check(mut family: Family) -> Result<Family> {
    let host_names = check_host(&family)?;
    let mut given: HashSet<String> = family.hypers.iter().map(Ident::to_string).collect();
    given.extend(PROLOGUE.map(String::from).into_iter().chain(host_names.iter().cloned()));
    let mut rules = std::mem::take(&mut family.rules);
    for rule in &mut rules {
        used::share(&family, rule);
        lay_out(&family, &host_names, rule)?;
        for program in &rule.programs {
            for (number, stage) in program.stages.iter().enumerate() {
                check_stage(&host_names, rule, stage)?;
                for statement in stage.statements.iter().filter(|statement| statement.recall) {
                    if recalled_tile(program, number, &statement.name).is_none() {
                        let message = "what is recalled is a factor of a fast sum of the pass before: fast sum array { uu = u * u; }";
                        return Err(Error::new(statement.name.span(), message));
                    }
                }
            }
        }
        flow::check(rule, &given)?;
    }
    family.rules = rules;
    Ok(family)
}

/// The tile in which the pass before a stage stored this name for its reductions. A scalar stage over all arrays in between
/// rules out reuse: by then the array is no longer in the cache.
pub fn recalled_tile(program: &Program, before: usize, name: &Ident) -> Option<usize> {
    let earlier = program.stages[..before].iter().rev();
    let stage = earlier
        .take_while(|stage| !matches!(stage.kind, Kind::Text(Scope::All)))
        .find(|stage| matches!(stage.kind, Kind::Pass(_)))?;
    let declared = stage.statements.iter().any(|statement| statement.local && statement.name == *name);
    Factors::new(stage).tile(&Expr::Name(name.clone())).filter(|_| declared)
}

fn check_host(family: &Family) -> Result<Vec<String>> {
    let mut known: HashSet<String> = family.hypers.iter().map(Ident::to_string).collect();
    known.extend(PROLOGUE.map(String::from));
    known.extend([family.rate.to_string(), family.step.to_string()]);
    let mut names = Vec::new();
    for statement in &family.host {
        check_value(&statement.value, &known, true)?;
        let name = statement.name.to_string();
        if statement.name == family.rate || statement.name == family.step {
            return Err(Error::new(statement.name.span(), format!("{name} is given; use another name")));
        }
        if statement.local && known.contains(&name) {
            return Err(Error::new(statement.name.span(), format!("{name} is declared already; use another name")));
        }
        if !statement.local && !PROLOGUE.contains(&name.as_str()) && !names.contains(&name) {
            names.push(name.clone());
        }
        known.insert(name);
    }
    Ok(names)
}

/// Assigns an index to every scalar and every vector of a rule.
fn lay_out(family: &Family, host: &[String], rule: &mut Rule) -> Result<()> {
    if rule.programs.iter().all(|program| program.stages.is_empty()) {
        return Err(Error::new(rule.name.span(), "a rule needs a stage, such as pass(p, g) { … }"));
    }
    let mut seen = HashSet::new();
    for state in &rule.states {
        let name = state.name.to_string();
        let taken = PROLOGUE.contains(&name.as_str()) || host.contains(&name) || ["p", "g"].contains(&name.as_str());
        if taken || !seen.insert(name) {
            return Err(Error::new(state.name.span(), format!("{} is declared twice", state.name)));
        }
        if let Some(Initial::Scalar(Expr::Name(name))) = &state.initial
            && !family.hypers.contains(name)
        {
            return Err(Error::new(
                name.span(),
                format!("{name} is no hyperparameter; the rule has {}", list(&family.hypers)),
            ));
        }
    }
    let streams = 2 + rule.states.iter().filter(|state| state.scope.is_stream()).count();
    if streams > MAX_STREAMS {
        return Err(Error::new(rule.name.span(), format!("a rule has at most {} element states", MAX_STREAMS - 2)));
    }
    if rule.states.len() > MAX_STATES {
        return Err(Error::new(rule.name.span(), format!("a rule has at most {MAX_STATES} states")));
    }
    let mut scalars: Vec<String> = PROLOGUE.map(String::from).into();
    for statement in rule.host.iter().filter(|statement| !statement.local) {
        let name = statement.name.to_string();
        if !scalars.contains(&name) {
            scalars.push(name);
        }
    }
    // Hyperparameters that scalar statements read directly.
    let mut used = HashSet::new();
    for stage in rule.stages() {
        stage.each_expr(|expr| expr.names(&mut |name| _ = used.insert(name.to_string())));
    }
    for name in rule.hypers.iter().map(Ident::to_string) {
        if used.contains(&name) && !scalars.contains(&name) {
            scalars.push(name);
        }
    }
    let (mut rows, mut cols) = (Vec::new(), Vec::new());
    for scope in [Scope::All, Scope::Array, Scope::Row, Scope::Col] {
        if scope == Scope::Array {
            rule.array_scalars = scalars.len();
        }
        let into = match scope {
            Scope::Row => &mut rows,
            Scope::Col => &mut cols,
            _ => &mut scalars,
        };
        let mut add = |name: &Ident| {
            let name = name.to_string();
            if !into.contains(&name) {
                into.push(name);
            }
        };
        rule.states.iter().filter(|state| state.scope == scope).for_each(|state| add(&state.name));
        for stage in rule.stages() {
            for reduction in &stage.reductions {
                // A mean over the matrix is stored once for each of its rows or columns.
                let kept = match (reduction.scope, &stage.kind) {
                    (Scope::Matrix, Kind::Text(scope)) => *scope,
                    (Scope::Matrix, Kind::Pass(_)) => {
                        let message = "a matrix's reduction is over its rows or columns: put it into row or col";
                        return Err(Error::new(reduction.name.span(), message));
                    }
                    (scope, _) => scope,
                };
                if kept == scope {
                    add(&reduction.name);
                }
            }
            if matches!(stage.kind, Kind::Text(text) if text == scope) {
                stage.statements.iter().filter(|s| !s.local).for_each(|s| add(&s.name));
            }
        }
    }
    (rule.scalars, rule.rows, rule.cols) = (scalars, rows, cols);
    Ok(())
}

impl Scope {
    /// Whether a kernel accesses it as a stream of elements.
    pub fn is_stream(self) -> bool {
        matches!(self, Scope::Element | Scope::Backup)
    }
}

impl Stage {
    pub fn each_expr(&self, mut f: impl FnMut(&Expr)) {
        self.statements.iter().for_each(|statement| f(&statement.value));
        self.reductions.iter().for_each(|reduction| f(&reduction.value));
    }

    pub fn reads(&self, name: &str) -> bool {
        let mut found = false;
        self.each_expr(|expr| expr.names(&mut |n| found |= n == name));
        found
    }

    pub fn assigns(&self, name: &str) -> bool {
        self.statements.iter().any(|statement| !statement.local && statement.name == name)
    }
}

fn check_stage(host: &[String], rule: &Rule, stage: &Stage) -> Result<()> {
    let mut known: HashSet<String> = host.iter().chain(&rule.scalars).cloned().collect();
    let mut assignable: HashSet<String> = HashSet::new();
    match &stage.kind {
        Kind::Pass(arguments) => {
            let names = [("p", arguments.param), ("g", arguments.grad)];
            assignable.extend(names.iter().filter(|(_, has)| *has).map(|(name, _)| (*name).to_string()));
            let element = rule.states.iter().filter(|state| state.scope == Scope::Element);
            assignable.extend(element.map(|state| state.name.to_string()));
            known.extend(rule.rows.iter().chain(&rule.cols).cloned());
            for backup in arguments.save.iter().chain(&arguments.restore) {
                if !rule.states.iter().any(|state| state.scope == Scope::Backup && state.name == *backup) {
                    return Err(Error::new(
                        backup.span(),
                        format!("{backup} is no backup; declare it: backup {backup};"),
                    ));
                }
            }
        }
        Kind::Text(scope) => {
            let vectors: &[String] = match scope {
                Scope::Row => &rule.rows,
                Scope::Col => &rule.cols,
                _ => &[],
            };
            known.extend(vectors.iter().cloned());
            assignable.extend(known.iter().filter(|name| !PROLOGUE.contains(&name.as_str())).cloned());
        }
    }
    known.extend(assignable.iter().cloned());
    let mut locals: HashSet<String> = HashSet::new();
    for statement in &stage.statements {
        check_value(&statement.value, &known, false)?;
        let name = statement.name.to_string();
        if statement.local {
            if known.contains(&name) {
                return Err(Error::new(statement.name.span(), format!("{name} is declared already; use another name")));
            }
            known.insert(name.clone());
            locals.insert(name);
        } else if !assignable.contains(&name) {
            let message = match known.contains(&name) {
                true => format!("{name} cannot be assigned here"),
                false => format!("{name} is not declared; write `let {name} = …` or declare it as a state"),
            };
            return Err(Error::new(statement.name.span(), message));
        }
    }
    for reduction in &stage.reductions {
        check_value(&reduction.value, &known, false)?;
        let allowed: &[Scope] = match &stage.kind {
            Kind::Pass(_) => &[Scope::Row, Scope::Col, Scope::Array, Scope::All],
            Kind::Text(Scope::Row | Scope::Col) => &[Scope::Matrix, Scope::Array],
            Kind::Text(_) => &[],
        };
        if !allowed.contains(&reduction.scope) {
            let message = format!("no reduction over {} can stand here", reduction.scope.word());
            return Err(Error::new(reduction.name.span(), message));
        }
        if reduction.operation == Operation::Mean && reduction.scope == Scope::All {
            let message = "no mean is over all arrays; divide by sum all { count = 1.0; }";
            return Err(Error::new(reduction.name.span(), message));
        }
    }
    Ok(())
}

fn check_expr(expr: &Expr, known: &HashSet<String>, each_step: bool) -> Result<()> {
    match expr {
        Expr::Number(..) => Ok(()),
        Expr::Name(name) if known.contains(&name.to_string()) => Ok(()),
        Expr::Name(name) => {
            let mut names: Vec<_> = known.iter().map(String::as_str).collect();
            names.sort_unstable();
            Err(Error::new(name.span(), format!("{name} is not known here; there are {}", names.join(", "))))
        }
        Expr::Unary(_, a) => check_expr(a, known, each_step),
        Expr::Binary(_, a, b) => check_expr(a, known, each_step).and_then(|()| check_expr(b, known, each_step)),
        Expr::Call(name, arguments) => {
            let Some((_, count, each_step_only)) = FUNCTIONS.iter().find(|(f, ..)| name == f) else {
                let names: Vec<_> = FUNCTIONS.iter().map(|f| f.0).collect();
                return Err(Error::new(
                    name.span(),
                    format!("{name} is no function here; there are {}", names.join(", ")),
                ));
            };
            if *each_step_only && !each_step {
                return Err(Error::new(name.span(), format!("{name} is for each_step")));
            }
            if arguments.len() != *count {
                let message = format!("{name} takes {count} arguments, got {}", arguments.len());
                return Err(Error::new(name.span(), message));
            }
            arguments.iter().try_for_each(|argument| check_expr(argument, known, each_step))
        }
    }
}

fn list(names: &[Ident]) -> String {
    names.iter().map(Ident::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether an expression is a condition. Checks that operands are numbers or conditions where the operator requires it.
fn is_condition(expr: &Expr) -> Result<bool> {
    let expect = |expr: &Expr, condition: bool| match (is_condition(expr)?, condition) {
        (true, false) => Err(Error::new(expr.span(), "expected a number, found a condition")),
        (false, true) => Err(Error::new(expr.span(), "expected a condition such as x > 0.0, found a number")),
        _ => Ok(()),
    };
    match expr {
        Expr::Number(..) | Expr::Name(_) => Ok(false),
        Expr::Unary(operator, a) => expect(a, *operator == "!").map(|()| *operator == "!"),
        Expr::Binary(operator, a, b) => {
            let of_conditions = matches!(*operator, "&&" | "||");
            expect(a, of_conditions)?;
            expect(b, of_conditions)?;
            Ok(!matches!(*operator, "+" | "-" | "*" | "/"))
        }
        Expr::Call(name, arguments) => {
            for (k, argument) in arguments.iter().enumerate() {
                expect(argument, name == "select" && k == 0)?;
            }
            Ok(false)
        }
    }
}

/// Checks that the value of a statement or a reduction is a number and reads only known names.
fn check_value(value: &Expr, known: &HashSet<String>, each_step: bool) -> Result<()> {
    check_expr(value, known, each_step)?;
    match is_condition(value)? {
        true => Err(Error::new(value.span(), "expected a number, found a condition")),
        false => Ok(()),
    }
}

/// The variables that a loop must test for NaN so that no stored NaN is missed: a NaN in a stored state or parameter makes at
/// least one of these NaN too.
pub fn tested_for_nan(stage: &Stage, stored: &[String]) -> Vec<String> {
    // For each variable, the definitions whose NaN propagates to it.
    let mut current: HashMap<String, usize> = HashMap::new();
    let mut from: Vec<HashSet<usize>> = Vec::new();
    fn sources(expr: &Expr, current: &mut HashMap<String, usize>, from: &mut Vec<HashSet<usize>>) -> HashSet<usize> {
        match expr {
            Expr::Number(..) => HashSet::new(),
            Expr::Name(name) => {
                let place = *current.entry(name.to_string()).or_insert_with(|| {
                    from.push(HashSet::from([from.len()]));
                    from.len() - 1
                });
                from[place].clone()
            }
            Expr::Unary(_, a) => sources(a, current, from),
            Expr::Binary(_, a, b) => &sources(a, current, from) | &sources(b, current, from),
            Expr::Call(name, arguments) if name == "select" => {
                &sources(&arguments[1], current, from) & &sources(&arguments[2], current, from)
            }
            Expr::Call(_, arguments) => arguments.iter().flat_map(|a| sources(a, current, from)).collect(),
        }
    }
    let mut order = Vec::new();
    for statement in &stage.statements {
        let mut found = sources(&statement.value, &mut current, &mut from);
        found.insert(from.len());
        current.insert(statement.name.to_string(), from.len());
        from.push(found);
        order.push(statement.name.to_string());
    }
    let covers = |tested: &str, name: &String| from[current[tested]].contains(&current[name]);
    let mut left: Vec<&String> = stored.iter().collect();
    let mut tested = Vec::new();
    while !left.is_empty() {
        // The parameter is preferred: it is computed last.
        let best = stored.iter().chain(&order).max_by_key(|name| {
            let count = left.iter().filter(|state| covers(name, state)).count();
            (count, *name == "p", stored.contains(name))
        });
        let best = best.expect("something is stored").clone();
        left.retain(|state| !covers(&best, state));
        tested.push(best);
    }
    tested
}
