//! The rules as Python objects: their properties, and the tree of their statements. Runs none.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use schuss::rule::{Expr, Initial, Kind, Operation, PROLOGUE, PROLOGUE_NAMES, Rule, Scope, Stage, State, Statement};
use schuss::{CompiledRule, optimizers};

/// The properties of each rule that the package needs: ``hypers``, ``states`` (each a dict of ``name``, ``scope``,
/// ``nonnegative``, ``exact``, ``scratch`` and ``initial``), ``needs_matrix``, ``elementwise``, ``joint``, ``programs``. Tools
/// are left out.
#[pyfunction]
pub fn rules(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let all = PyDict::new(py);
    for compiled in optimizers::ALL {
        let rule = compiled.rule;
        let one = PyDict::new(py);
        one.set_item("hypers", rule.hypers)?;
        one.set_item("states", states(py, rule)?)?;
        one.set_item("needs_matrix", rule.needs_matrix())?;
        one.set_item("elementwise", rule.is_elementwise())?;
        one.set_item("joint", rule.is_joint())?;
        one.set_item("programs", rule.programs.iter().map(|program| program.name).collect::<Vec<_>>())?;
        all.set_item(rule.name, one)?;
    }
    Ok(all)
}

/// The statements of a rule or tool as a tree, for the documentation: tuples ``("number", text)``, ``("name", name)``,
/// ``("unary", operator, a)``, ``("binary", operator, a, b)`` and ``("call", function, a, ...)``; statements are ``(name,
/// is_let, value)``.
#[pyfunction]
pub fn rule_tree<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(CompiledRule { rule, .. }) = optimizers::find(name) else { return Ok(None) };
    let one = PyDict::new(py);
    one.set_item("hypers", rule.hypers)?;
    one.set_item("states", states(py, rule)?)?;
    one.set_item("each_step", statements(py, rule.each_step)?)?;
    let programs = PyDict::new(py);
    for program in rule.programs {
        let stages = program.stages.iter().map(|one| stage(py, rule, one)).collect::<PyResult<Vec<_>>>()?;
        programs.set_item(program.name, stages)?;
    }
    one.set_item("programs", programs)?;
    Ok(Some(one))
}

/// The statements that run before a rule's own where a pass reads the gradient, and in the pass that writes the parameter: the
/// names of its scalars, and its three statements.
#[pyfunction]
pub fn prologue() -> ([&'static str; 3], [&'static str; 3]) {
    (PROLOGUE_NAMES, PROLOGUE)
}

fn states<'py>(py: Python<'py>, rule: &Rule) -> PyResult<Bound<'py, PyList>> {
    let one = |state: &State| {
        let one = PyDict::new(py);
        one.set_item("name", state.name)?;
        one.set_item("scope", state.scope.name())?;
        one.set_item("nonnegative", state.nonnegative)?;
        one.set_item("exact", state.exact)?;
        one.set_item("scratch", state.scratch)?;
        match state.initial {
            Initial::Number(x) => one.set_item("initial", x)?,
            Initial::Hyper(name) => one.set_item("initial", name)?,
            Initial::Param => one.set_item("initial", "p")?,
        }
        Ok(one)
    };
    PyList::new(py, rule.states.iter().map(one).collect::<PyResult<Vec<_>>>()?)
}

/// The names of element states and backups in a bit mask.
fn streams(rule: &Rule, bits: u32) -> Vec<&'static str> {
    let streams = rule.states.iter().filter(|state| matches!(state.scope, Scope::Element | Scope::Backup));
    streams.enumerate().filter(|(k, _)| bits >> k & 1 != 0).map(|(_, state)| state.name).collect()
}

fn stage<'py>(py: Python<'py>, rule: &Rule, stage: &Stage) -> PyResult<Bound<'py, PyDict>> {
    let one = PyDict::new(py);
    match &stage.kind {
        Kind::Pass(pass) => {
            one.set_item("kind", "pass")?;
            one.set_item("reads_param", pass.reads_param)?;
            one.set_item("writes_param", pass.writes_param)?;
            one.set_item("reads_grad", pass.reads_grad)?;
            one.set_item("reads", streams(rule, pass.reads))?;
            one.set_item("writes", streams(rule, pass.writes))?;
            one.set_item("recalls", pass.recalls.is_some())?;
        }
        Kind::Vector { scope, .. } => one.set_item("kind", scope.name())?,
        Kind::Text(scope) => one.set_item("kind", scope.name())?,
    }
    one.set_item("statements", statements(py, stage.statements)?)?;
    let mut reductions = Vec::new();
    for reduction in stage.reductions {
        let operation = match reduction.operation {
            Operation::Sum | Operation::FastSum => "sum",
            Operation::Mean => "mean",
            Operation::Max => "max",
        };
        reductions.push((operation, reduction.scope.name(), reduction.name, expr(py, &reduction.value)?));
    }
    one.set_item("reductions", reductions)?;
    Ok(one)
}

fn statements<'py>(
    py: Python<'py>,
    statements: &[Statement],
) -> PyResult<Vec<(&'static str, bool, Bound<'py, PyTuple>)>> {
    statements.iter().map(|one| Ok((one.name, one.local, expr(py, &one.value)?))).collect()
}

fn expr<'py>(py: Python<'py>, value: &Expr) -> PyResult<Bound<'py, PyTuple>> {
    match value {
        Expr::Number(text) => ("number", *text).into_pyobject(py),
        Expr::Name(name) => ("name", *name).into_pyobject(py),
        Expr::Unary(operator, a) => ("unary", *operator, expr(py, a)?).into_pyobject(py),
        Expr::Binary(operator, a, b) => ("binary", *operator, expr(py, a)?, expr(py, b)?).into_pyobject(py),
        Expr::Call(function, arguments) => {
            let mut items = vec!["call".into_pyobject(py)?.into_any(), function.into_pyobject(py)?.into_any()];
            for argument in *arguments {
                items.push(expr(py, argument)?.into_any());
            }
            PyTuple::new(py, items)
        }
    }
}
