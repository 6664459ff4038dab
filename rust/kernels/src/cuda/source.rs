//! CUDA C++ from the rules' texts: what a CPU kernel and a GPU kernel compute stands in one place, the rule.
//!
//! A unit of source holds the kernels of one rule for one choice of types, or the sums over gradients of one type. It is
//! CUDA C++ for NVRTC; with a few definitions in front it is C++17 for the host too, which is how tests run it.

use std::fmt::Write;

use crate::rule::{PROLOGUE, PROLOGUE_NAMES, Rule};
use crate::storage::Dtype;

/// What a unit of source is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// The update of a rule, and of a layerwise one its first phase and its ratio.
    Rule {
        /// The rule's name.
        rule: &'static str,
        /// The parameters' type.
        param: Dtype,
        /// The gradients' type.
        grad: Dtype,
        /// Whether the means of their rows are taken off the gradients.
        centered: bool,
    },
    /// Sums over gradients of a type that are computed in another.
    Sums {
        /// The gradients' type.
        grad: Dtype,
        /// What they are computed in.
        compute: Dtype,
    },
}

impl Unit {
    /// The names of the kernels in it.
    pub fn kernels(&self) -> &'static [&'static str] {
        match self {
            Unit::Rule { rule, .. } if find(rule).layer.is_some() => &["update", "measure", "ratio"],
            Unit::Rule { .. } => &["update"],
            Unit::Sums { .. } => &["squares", "means", "total"],
        }
    }

    /// What arithmetic is done in.
    pub fn compute(&self) -> Dtype {
        match self {
            Unit::Rule { param, .. } => param.compute(),
            Unit::Sums { compute, .. } => *compute,
        }
    }

    /// Its source.
    pub fn source(&self) -> String {
        let (param, grad) = match *self {
            Unit::Rule { param, grad, .. } => (param, grad),
            Unit::Sums { grad, compute } => (compute, grad),
        };
        let compute = self.compute();
        let mut text = format!("typedef {} F;\n{}\nnamespace schuss {{\n", name(compute), include_str!("prelude.cu"));
        for (alias, dtype) in [("P", param), ("G", grad), ("S", compute)] {
            writeln!(text, "typedef {} {alias};", name(dtype)).expect("strings take everything");
        }
        text.push_str("#define let const auto\n");
        if let Unit::Rule { rule, centered, .. } = *self {
            let rule = find(rule);
            text.push_str(&prologue(compute));
            text.push_str(&structure("Rule", rule, compute));
            if let Some(layer) = &rule.layer {
                text.push_str(&structure("Direction", (layer.direction)(), compute));
            }
            writeln!(text, "#define CENTERED {}\n#define LAYERWISE {}", centered as u8, rule.layer.is_some() as u8)
                .expect("strings take everything");
        }
        text.push_str("#undef let\n} // namespace schuss\n\n");
        text.push_str(match self {
            Unit::Rule { .. } => include_str!("update.cu"),
            Unit::Sums { .. } => include_str!("sums.cu"),
        });
        text
    }
}

/// Every unit that some optimizer can ask for, with and without centering.
pub fn all() -> Vec<Unit> {
    const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::Bf16];
    let mut units = Vec::new();
    for grad in DTYPES {
        for rule in crate::rules::ALL.iter().chain(crate::rules::tools::ALL) {
            for param in DTYPES {
                for centered in [false, true] {
                    units.push(Unit::Rule { rule: rule.name, param, grad, centered });
                }
            }
        }
        units.extend([Dtype::F32, Dtype::F64].map(|compute| Unit::Sums { grad, compute }));
    }
    units
}

pub(crate) fn find(rule: &str) -> &'static Rule {
    crate::rules::find(rule).expect("units are made of rules that exist")
}

fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float",
        Dtype::F64 => "double",
        Dtype::F16 => "schuss::f16",
        Dtype::Bf16 => "schuss::bf16",
    }
}

fn prologue(compute: Dtype) -> String {
    let names = scalars(&PROLOGUE_NAMES, 0, "F");
    format!("DEVICE void prologue(F& p, F& g, const F* scalars) {{\n{names}    {}\n}}\n", cpp(PROLOGUE, compute))
}

/// A rule as a C++ structure, whose update is the rule's own text.
fn structure(name: &str, rule: &Rule, compute: Dtype) -> String {
    let prefix = PROLOGUE_NAMES.len();
    let mut states = String::new();
    let mut back = String::new();
    for (i, state) in rule.states.iter().enumerate() {
        writeln!(states, "        F {state} = states[{i}];").expect("strings take everything");
        writeln!(back, "        states[{i}] = {state};").expect("strings take everything");
    }
    let mut text = format!(
        "// {}\nstruct {name} {{\n    enum {{ STATES = {}, SCALARS = {}, READS_GRADIENT = {}, WRITES_STATES = {} }};\n    \
         DEVICE void update(F& p, F& g, F* states, const F* scalars) {{\n{}{states}        {}\n{back}    }}\n",
        rule.name,
        rule.states.len(),
        rule.scalars.len(),
        rule.reads_gradient as u8,
        rule.writes_states as u8,
        scalars(rule.scalars, prefix, "F"),
        cpp(rule.update, compute),
    );
    if let Some(layer) = &rule.layer {
        let [first, second] = layer.norms;
        let (ratio, others) = rule.scalars.split_first().expect("a layerwise rule has a ratio");
        write!(
            text,
            "    DEVICE double ratio(double {first}, double {second}, const double* scalars) {{\n{}        double {ratio};\n        \
             {}\n        return {ratio};\n    }}\n",
            scalars(others, prefix + 1, "double"),
            cpp(layer.text, Dtype::F64),
        )
        .expect("strings take everything");
    }
    text + "};\n"
}

/// Scalars by name, from their places.
fn scalars(names: &[&str], first: usize, compute: &str) -> String {
    let one = |(i, name): (usize, &&str)| format!("        const {compute} {name} = scalars[{}];\n", first + i);
    names.iter().enumerate().map(one).collect()
}

/// A text in the common subset of Rust and C++ with its literals in the compute type: a float's would be doubles in C++.
fn cpp(text: &str, compute: Dtype) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        // A word, or a number with its fraction and exponent.
        let numeric = from.starts_with(|c: char| c.is_ascii_digit());
        let mut previous = ' ';
        let inside = |c: char| {
            let sign = numeric && matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            previous = c;
            c.is_ascii_alphanumeric() || c == '_' || (numeric && c == '.') || sign
        };
        let end = from.find(not(inside)).unwrap_or(from.len());
        out.push_str(&from[..end]);
        if numeric && compute == Dtype::F32 {
            out.push('f');
        }
        rest = &from[end..];
    }
    out + rest
}

fn not(mut f: impl FnMut(char) -> bool) -> impl FnMut(char) -> bool {
    move |c| !f(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_take_the_compute_type() {
        assert_eq!(cpp("p = max(a1, 0.0) + 1e-6 - 2.5E+3;", Dtype::F32), "p = max(a1, 0.0f) + 1e-6f - 2.5E+3f;");
        assert_eq!(cpp("select(l2 != 0.0, x2, g)", Dtype::F64), "select(l2 != 0.0, x2, g)");
    }

    #[test]
    fn every_rule_s_text_is_in_its_unit() {
        for rule in crate::rules::ALL {
            let unit = Unit::Rule { rule: rule.name, param: Dtype::F64, grad: Dtype::Bf16, centered: false };
            let source = unit.source();
            assert!(source.contains(rule.update), "{rule:?}");
            assert!(source.contains("typedef double P;") && source.contains("typedef schuss::bf16 G;"));
            if let Some(layer) = &rule.layer {
                assert!(source.contains((layer.direction)().update) && source.contains(layer.text), "{rule:?}");
            }
        }
    }
}
