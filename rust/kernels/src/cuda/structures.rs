//! Generates the stages of a rule as C++ structures, which the templates in `passes.cu`, `vectors.cu` and `scalars.cu` run.
//! Knows no launch.
//!
//! Members have the names of the rule, and methods begin with a capital, which no name of a rule does.

use std::fmt::Write;

use super::stages::{Part, Source, assigns, first_summed, over, reads, source, summed, vector};
use super::translate::{expr, name, statements};
use crate::exec::form;
use crate::numeric::Dtype;
use crate::numeric::reduce::Form;
use crate::rule::{
    Expr, Operation, PROLOGUE, PROLOGUE_NAMES, Pass, Program, Reduction, Right, Rule, Scope, Stage, Stream,
};

/// The context of a structure.
#[derive(Clone, Copy)]
pub struct Context {
    pub rule: &'static Rule,
    pub program: &'static Program,
    /// The types of parameters and of arithmetic.
    pub param: Dtype,
    pub compute: Dtype,
}

/// Appends a line of C++.
macro_rules! line {
    ($text:expr, $($format:tt)*) => { writeln!($text, $($format)*).expect("strings take everything") };
}
pub(super) use line;

/// The structure of a pass, and those of its sums.
pub fn pass(context: Context, place: usize, pass: &Pass) -> String {
    let Context { rule, program, compute, .. } = context;
    let stage = &program.stages[place];
    let streams: Vec<&str> = rule.streams().map(|(_, state)| state.name).collect();
    let scales = pass.reads_grad && !pass.raw;
    let decays = scales && pass.reads_param;
    let mut wanted: Vec<usize> = (0..rule.scalars.len()).filter(|&k| reads(stage, rule.scalars[k])).collect();
    for (k, needed) in [scales, decays, pass.writes_param].into_iter().enumerate() {
        if needed && !wanted.contains(&k) {
            wanted.push(k);
        }
    }
    let operands = pass.operands.iter().map(|operand| operand.name);
    let mut members = vec!["p".to_string(), "g".into()];
    members.extend(streams.iter().copied().chain(operands).chain(wanted.iter().map(|&k| rule.scalars[k])).map(name));
    for (k, reduction) in stage.reductions.iter().enumerate() {
        members.push(format!("Left{k}"));
        if matches!(reduction.right, Right::Factor(_)) {
            members.push(format!("Right{k}"));
        }
    }
    let mut text = format!(
        "struct Stage{place} {{\n    enum {{ PARAM = {}, WRITES_PARAM = {}, GRAD = {}, STATES = {}, READS = {}, WRITES = {}, \
         OPERANDS = {} }};\n",
        u8::from(pass.reads_param),
        u8::from(pass.writes_param),
        u8::from(pass.reads_grad),
        streams.len(),
        pass.reads,
        pass.writes,
        pass.operands.len(),
    );
    line!(text, "    F {};\n    bool L2;", members.join(", "));
    text += &scalars(rule, &wanted, decays);
    text += "    METHOD void In(const F* states) {\n";
    for (k, state) in streams.iter().enumerate().filter(|(k, _)| pass.reads >> k & 1 != 0) {
        line!(text, "        {} = states[{k}];", name(state));
    }
    text += "    }\n    METHOD void Out(F* states) const {\n";
    for (k, state) in streams.iter().enumerate().filter(|(k, _)| pass.writes >> k & 1 != 0) {
        line!(text, "        states[{k}] = {};", name(state));
    }
    text += "    }\n    METHOD void Operands(void* const* pointers, const Array& array, Place place) {\n";
    for operand in pass.operands {
        let (at, row) = (vector(rule, operand.scope, operand.place), operand.scope == Scope::Row);
        let place = format!("schuss::adjacent(array, {row}) ? place.along : place.across");
        line!(
            text,
            "        {} = schuss::get((const F*)schuss::get(pointers + {at}) + ({place}));",
            name(operand.name)
        );
    }
    text += "    }\n    METHOD void Text() {\n";
    let [scale, decay, shrink] = PROLOGUE;
    if scales {
        line!(text, "        {scale};");
    }
    if decays {
        line!(text, "        if (L2) {{ {}; }}", decay.replace("fma", "schuss::fma"));
    }
    if pass.writes_param {
        line!(text, "        {shrink};");
    }
    text += &statements(stage.statements, compute);
    text += &terms(stage, compute);
    text += "    }\n};\n";
    for (suffix, of) in [("Sums", summed(stage)), ("Rows", over(stage, Scope::Row)), ("Cols", over(stage, Scope::Col))]
    {
        if !of.is_empty() {
            line!(text, "struct Stage{place}{suffix} : Stage{place} {{");
            line!(text, "    enum {{ FIRST = {} }};", first_summed(program, place));
            text += &sums(context, Scope::Element, &of);
            text += "};\n";
        }
    }
    text
}

/// The name of the structure that a kernel of a pass, or of a stage over rows or columns, runs.
pub fn structure(stage: usize, part: Part) -> String {
    let suffix = match part {
        Part::Blocks | Part::Pieces | Part::Cells => "Sums",
        Part::Along(scope) | Part::Across(scope) | Part::Panels(scope) if scope == Scope::Row => "Rows",
        Part::Along(_) | Part::Across(_) | Part::Panels(_) => "Cols",
        _ => "",
    };
    format!("Stage{stage}{suffix}")
}

/// The structure of a stage over rows or columns.
pub fn vectors(context: Context, place: usize, scope: Scope) -> String {
    let Context { rule, program, compute, .. } = context;
    let stage = &program.stages[place];
    let names = if scope == Scope::Row { rule.rows } else { rule.cols };
    let used = || names.iter().enumerate().filter(|(_, name)| reads(stage, name) || assigns(stage, name));
    let wanted: Vec<usize> = (0..rule.scalars.len()).filter(|&k| reads(stage, rule.scalars[k])).collect();
    let mut members: Vec<String> = used().map(|(_, text)| name(text)).collect();
    members.extend(wanted.iter().map(|&k| name(rule.scalars[k])));
    for (k, reduction) in stage.reductions.iter().enumerate() {
        members.push(format!("Left{k}"));
        if matches!(reduction.right, Right::Factor(_)) {
            members.push(format!("Right{k}"));
        }
    }
    let by_matrix = u8::from(!over(stage, Scope::Matrix).is_empty());
    let mut text = format!(
        "struct Stage{place} {{\n    enum {{ ROW = {}, BY_MATRIX = {by_matrix} }};\n    F {};\n",
        u8::from(scope == Scope::Row),
        members.join(", "),
    );
    text += &scalars(rule, &wanted, false);
    text += "    METHOD void In(void* const* pointers, u64 i) {\n";
    for (k, one) in used() {
        let at = vector(rule, scope, k);
        line!(text, "        {} = schuss::get((const F*)schuss::get(pointers + {at}) + i);", name(one));
    }
    text += "    }\n    METHOD void Out(void* const* pointers, u64 i) const {\n";
    for (k, one) in used().filter(|(_, name)| assigns(stage, name)) {
        let at = vector(rule, scope, k);
        line!(text, "        F Kept{k};\n        schuss::store(Kept{k}, {});", name(one));
        line!(text, "        schuss::put((F*)schuss::get(pointers + {at}) + i, Kept{k});");
    }
    text += "    }\n    METHOD void Text() {\n";
    text += &statements(stage.statements, compute);
    text += &terms(stage, compute);
    text += "    }\n";
    if !stage.reductions.is_empty() {
        text += &sums(context, scope, &stage.reductions.iter().enumerate().collect::<Vec<_>>());
    }
    text + "};\n"
}

/// The structure of a scalar stage, over one array or over all of them.
pub fn text(context: Context, place: usize) -> String {
    let Context { rule, program, .. } = context;
    let stage = &program.stages[place];
    let used = || (0..rule.scalars.len()).filter(|&k| reads(stage, rule.scalars[k]) || assigns(stage, rule.scalars[k]));
    let members: Vec<String> = used().map(|k| name(rule.scalars[k])).collect();
    let mut text = format!("struct Stage{place} {{\n");
    if !members.is_empty() {
        line!(text, "    double {};", members.join(", "));
    }
    text += &scalars(rule, &used().collect::<Vec<_>>(), false);
    text += "    METHOD void Text() {\n";
    text += &statements(stage.statements, Dtype::F64);
    text += "    }\n    METHOD void Out(const Args& args, const Array& array) const {\n";
    for k in used().filter(|&k| assigns(stage, rule.scalars[k])) {
        line!(text, "        {}", stored(rule, k, &name(rule.scalars[k])));
    }
    text + "    }\n};\n"
}

/// The statement that stores a scalar computed on the device.
pub fn stored(rule: &Rule, place: usize, value: &str) -> String {
    match source(rule, place) {
        Source::Shared(k) => format!("if (args.lead) schuss::put_state(args.shared + {k}, {value});"),
        Source::State(at) => {
            format!("schuss::put_state((double*)schuss::get(args.pointers + array.pointers + {at}), {value});")
        }
        Source::Own(k) => format!("schuss::put(args.own + array.own + {k}, {value});"),
        Source::Group(k) | Source::Host(k) => format!("schuss::put(args.group + {k}, {value});"),
        Source::Factor => unreachable!("texts do not assign the prologue's scalars"),
    }
}

/// The method that reads scalars, called once per thread.
fn scalars(rule: &Rule, wanted: &[usize], decays: bool) -> String {
    let mut text = String::from("    METHOD void Scalars(const Args& args, const Array& array) {\n");
    if decays {
        text += "        L2 = args.l2 != 0;\n";
    }
    for &place in wanted {
        let value = match source(rule, place) {
            Source::Factor => "schuss::gradient_factor_of(args)".into(),
            Source::Host(k) => format!("schuss::value(args.scalars[{k}], F())"),
            Source::Group(k) => format!("schuss::rounded(args.group + {k})"),
            Source::Shared(k) => format!("schuss::rounded(args.shared + {k})"),
            Source::Own(k) => format!("schuss::rounded(args.own + array.own + {k})"),
            Source::State(at) => {
                format!("schuss::rounded((const double*)schuss::get(args.pointers + array.pointers + {at}))")
            }
        };
        line!(text, "        {} = {value};", name(rule.scalars[place]));
    }
    debug_assert_eq!(rule.scalars[..PROLOGUE_NAMES.len()], PROLOGUE_NAMES);
    text + "    }\n"
}

/// The factors of a reduction's value: products are multiplied in float64.
fn factors(reduction: &Reduction) -> (&Expr, Option<&Expr>) {
    match (&reduction.right, &reduction.value) {
        (Right::None, value) => (value, None),
        (Right::Same, Expr::Binary(_, a, _)) => (a, None),
        (Right::Factor(_), Expr::Binary(_, a, b)) => (a, Some(b)),
        _ => unreachable!("squares and products are products"),
    }
}

/// The lines that compute the factors of all reductions of a stage.
fn terms(stage: &Stage, compute: Dtype) -> String {
    let mut text = String::new();
    for (k, reduction) in stage.reductions.iter().enumerate() {
        let (left, right) = factors(reduction);
        line!(text, "        Left{k} = {};", expr(left, compute));
        if let Some(right) = right {
            line!(text, "        Right{k} = {};", expr(right, compute));
        }
    }
    text
}

/// The members of a structure that describe its sums; `scope` is that of a stage over rows or columns.
fn sums(context: Context, scope: Scope, of: &[(usize, &Reduction)]) -> String {
    let Context { rule, param, compute, .. } = context;
    let mut text = format!("    enum {{ SUMS = {} }};\n    METHOD void Terms(F* left, F* right) const {{\n", of.len());
    for (i, (k, reduction)) in of.iter().enumerate() {
        line!(text, "        left[{i}] = Left{k};");
        if matches!(reduction.right, Right::Factor(_)) {
            line!(text, "        right[{i}] = Right{k};");
        }
    }
    text += "    }\n";
    let fast = |reduction: &Reduction| match reduction.left.memory {
        // The host reduces it from memory.
        Some(Stream::Param) if !reduction.fused => param == Dtype::F32,
        _ => compute == Dtype::F32,
    };
    let form = |reduction: &Reduction| match form(reduction) {
        Form::Plain => "PLAIN",
        Form::FastSquare if fast(reduction) => "FAST",
        Form::Square | Form::FastSquare => "SQUARE",
        Form::Product => "PRODUCT",
        Form::Max => "MAX",
    };
    text += &choice("int", "Form", of, |_, reduction| form(reduction).into());
    text += &choice("bool", "Mean", of, |_, reduction| (reduction.operation == Operation::Mean).to_string());
    let kept = |reduction: &Reduction| match reduction.scope {
        Scope::Row | Scope::Col => Some(reduction.scope),
        Scope::Matrix => Some(scope),
        _ => None,
    };
    text += &choice("int", "Vector", of, |_, reduction| match kept(reduction) {
        Some(scope) => vector(rule, scope, reduction.place).to_string(),
        None => "-1".into(),
    });
    let mut runs = 0..;
    text += &choice("int", "Run", of, |_, reduction| match reduction.scope {
        Scope::Array => runs.next().unwrap_or_default().to_string(),
        _ => "-1".into(),
    });
    text
}

/// A method that returns one value for each of some sums.
fn choice(
    kind: &str,
    name: &str,
    of: &[(usize, &Reduction)],
    mut value: impl FnMut(usize, &Reduction) -> String,
) -> String {
    let values: Vec<String> = of.iter().enumerate().map(|(i, (_, reduction))| value(i, reduction)).collect();
    let (last, others) = values.split_last().expect("there is a sum");
    let mut text = format!("    DEVICE {kind} {name}(int k) {{ return ");
    for (i, value) in others.iter().enumerate() {
        write!(text, "k == {i} ? {value} : ").expect("strings take everything");
    }
    text + last + "; }\n"
}
