//! Maps the stages of a program to kernels, and numbers their reductions. Data about rules; knows no C++ and no device.

use std::fmt;

use crate::exec::by_cells;
use crate::rule::{Kind, Operation, Program, Reduction, Rule, Scope, Stage, Stream};

/// What a kernel does for a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A pass without sums over blocks or cells.
    Elements,
    /// A pass with sums over blocks.
    Blocks,
    /// A pass with sums over pieces of cells, which `Cells` then combines.
    Pieces,
    /// The sums of cells from those of their pieces.
    Cells,
    /// Sums of rows or columns whose elements are contiguous in memory.
    Along(Scope),
    /// Sums of rows or columns whose elements are strided, by panels.
    Across(Scope),
    /// The sums of columns from those of their panels.
    Panels(Scope),
    /// A stage over rows or columns.
    Numbers,
    /// A stage over rows or columns, with sums.
    Matrices,
    /// The sums of arrays, and the scalar stages over arrays that follow.
    Arrays,
    /// The sums over all arrays, and a scalar stage over them.
    All,
}

/// A kernel of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The index of its stage in the program.
    pub stage: usize,
    /// Its part of the stage.
    pub part: Part,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Elements => "elements",
            Part::Blocks => "blocks",
            Part::Pieces => "pieces",
            Part::Cells => "cells",
            Part::Along(Scope::Row) => "along_rows",
            Part::Along(_) => "along_cols",
            Part::Across(Scope::Row) => "across_rows",
            Part::Across(_) => "across_cols",
            Part::Panels(Scope::Row) => "panels_of_rows",
            Part::Panels(_) => "panels_of_cols",
            Part::Numbers => "numbers",
            Part::Matrices => "matrices",
            Part::Arrays => "arrays",
            Part::All => "all",
        };
        write!(f, "stage{}_{part}", self.stage)
    }
}

/// The kernels of a program's passes and of its stages over rows and columns, in launch order. Within a stage, kernels that
/// store something come last, so that the others read the values from before the stage.
pub fn kernels(program: &Program) -> Vec<Kernel> {
    let last = program.last_gradient();
    let mut kernels = Vec::new();
    for (place, stage) in program.stages.iter().enumerate() {
        let mut add = |parts: &[Part]| kernels.extend(parts.iter().map(|&part| Kernel { stage: place, part }));
        match &stage.kind {
            Kind::Pass(pass) => {
                for scope in [Scope::Row, Scope::Col].into_iter().filter(|&scope| !over(stage, scope).is_empty()) {
                    add(&[Part::Along(scope), Part::Across(scope), Part::Panels(scope)]);
                }
                if !summed(stage).is_empty() {
                    add(if by_cells(stage) { &[Part::Pieces, Part::Cells] } else { &[Part::Blocks] });
                } else if stores(pass) || last == Some(place) {
                    add(&[Part::Elements]);
                }
            }
            Kind::Vector { .. } if stage.reductions.is_empty() => add(&[Part::Numbers]),
            Kind::Vector { .. } => add(&[Part::Matrices]),
            Kind::Text(_) => {}
        }
    }
    kernels
}

/// The kernels of a program's scalar stages over arrays and over all of them.
pub fn text_kernels(program: &Program) -> Vec<Kernel> {
    let one = |(stage, one): (usize, &Stage)| {
        let all = matches!(one.kind, Kind::Text(Scope::All));
        let part = if all { Part::All } else { Part::Arrays };
        let first = !matches!(one.kind, Kind::Text(Scope::Array)) || texts_at(program, stage) == Some(stage);
        let needed = all || !over(one, Scope::Array).is_empty() || texts_at(program, stage).is_some();
        (first && needed).then_some(Kernel { stage, part })
    };
    program.stages.iter().enumerate().filter_map(one).collect()
}

/// The first of the scalar stages over arrays that run directly after a stage, or with it if it is the first one itself.
pub fn texts_at(program: &Program, stage: usize) -> Option<usize> {
    let is_text =
        |place: usize| matches!(program.stages.get(place), Some(Stage { kind: Kind::Text(Scope::Array), .. }));
    let before = stage.checked_sub(1).map(|place| &program.stages[place].kind);
    match &program.stages[stage].kind {
        Kind::Text(Scope::Array) => matches!(before, None | Some(Kind::Text(Scope::All))).then_some(stage),
        Kind::Text(_) => None,
        _ => is_text(stage + 1).then_some(stage + 1),
    }
}

/// Whether a pass stores anything.
pub fn stores(pass: &crate::rule::Pass) -> bool {
    pass.writes_param || pass.writes != 0
}

/// The reductions of a stage over this scope, with their indices.
pub fn over(stage: &Stage, scope: Scope) -> Vec<(usize, &'static Reduction)> {
    stage.reductions.iter().enumerate().filter(|(_, reduction)| reduction.scope == scope).collect()
}

/// The reductions of a pass that are summed over blocks or cells: those over arrays, then those over all.
pub fn summed(stage: &Stage) -> Vec<(usize, &'static Reduction)> {
    [over(stage, Scope::Array), over(stage, Scope::All)].concat()
}

/// The index of the first of them among those of the program.
pub fn first_summed(program: &Program, stage: usize) -> usize {
    let passes = program.stages[..stage].iter().filter(|stage| matches!(stage.kind, Kind::Pass(_)));
    passes.map(|stage| summed(stage).len()).sum()
}

/// The passes between a scalar stage over all arrays and the previous one.
pub fn round(program: &Program, text: usize) -> std::ops::Range<usize> {
    let before = program.stages[..text].iter().rposition(|stage| matches!(stage.kind, Kind::Text(Scope::All)));
    before.map_or(0, |place| place + 1)..text
}

/// Where a device finds a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The factor of the gradients.
    Factor,
    /// The scalar of this index, computed by the host.
    Host(usize),
    /// The scalar of this index, computed on the device for a group.
    Group(usize),
    /// This state of scope `all`.
    Shared(usize),
    /// This one of an array's own scalars.
    Own(usize),
    /// This one of an array's pointers: a state of scope `array`.
    State(usize),
}

/// Where a device finds a scalar of a rule.
pub fn source(rule: &Rule, place: usize) -> Source {
    let name = rule.scalars[place];
    let of = |scope: Scope| rule.states_of(scope).position(|(_, state)| state.name == name);
    if let Some(shared) = of(Scope::All) {
        return Source::Shared(shared);
    }
    if place >= rule.array_scalars {
        return match of(Scope::Array) {
            Some(state) => Source::State(first_array_state(rule) + state),
            None => Source::Own(place - rule.array_scalars),
        };
    }
    let computed = |stage: &Stage| {
        !over(stage, Scope::All).iter().all(|(_, reduction)| reduction.place != place)
            || (matches!(stage.kind, Kind::Text(Scope::All)) && assigns(stage, name))
    };
    match place {
        _ if rule.stages().any(computed) => Source::Group(place),
        0 => Source::Factor,
        _ => Source::Host(place),
    }
}

/// The index of a row or column vector among an array's pointers.
pub fn vector(rule: &Rule, scope: Scope, place: usize) -> usize {
    1 + rule.streams().count() + if scope == Scope::Row { 0 } else { rule.rows.len() } + place
}

/// The index of the first state of scope `array` among an array's pointers, after all others.
pub fn first_array_state(rule: &Rule) -> usize {
    vector(rule, Scope::Col, rule.cols.len())
}

/// Whether a stage assigns a name that is not a local variable.
pub fn assigns(stage: &Stage, name: &str) -> bool {
    stage.statements.iter().any(|statement| !statement.local && statement.name == name)
}

/// Whether a stage reads a name.
pub fn reads(stage: &Stage, name: &str) -> bool {
    let values = stage.statements.iter().map(|statement| &statement.value);
    let mut found = false;
    values
        .chain(stage.reductions.iter().map(|reduction| &reduction.value))
        .for_each(|value| value.names(&mut |other| found |= other == name));
    found
}

/// Whether a rule can run on a device.
///
/// # Errors
/// The rule has something that only the host supports; the message names it.
pub fn check(rule: &Rule) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("{} does not run on a GPU: {what}", rule.name));
    if rule.states_of(Scope::Backup).next().is_some() {
        return refuse("it looks ahead, which only the host does");
    }
    for stage in rule.stages() {
        let of_gradient = |reduction: &Reduction| {
            let fast = reduction.operation == Operation::FastSum;
            fast && !reduction.fused && reduction.left.memory == Some(Stream::Grad)
        };
        if stage.reductions.iter().any(of_gradient) {
            return refuse("it has a fast sum of the gradient over rows or columns");
        }
        if matches!(stage.kind, Kind::Text(Scope::Array)) {
            let others = rule.scalars.iter().take(rule.array_scalars);
            if let Some(name) = others.into_iter().find(|name| assigns(stage, name)) {
                return refuse(&format!("a text over arrays assigns {name}, which is no array's own"));
            }
        }
    }
    Ok(())
}
