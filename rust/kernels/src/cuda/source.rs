//! Generates CUDA C++ from the rules' trees, so that the rule is the single source for CPU and GPU kernels. Knows no device.
//!
//! A unit of source has the kernels of a rule's program: its passes for one combination of types, or its scalar stages. It is
//! CUDA C++ for NVRTC; with a few definitions before it, it is also C++17 for the host, which the tests run.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};

use super::stages::{Kernel, Part, check, first_summed, kernels, over, round, summed, text_kernels, texts_at};
use super::structures::{Context, line, pass, stored, structure, text, vectors};
use crate::exec::{by_cells, form};
use crate::numeric::Dtype;
use crate::numeric::reduce::Form;
use crate::numeric::squares::SMALLEST_SUM;
use crate::optimizers::{ALL, TOOLS, tools};
use crate::rule::{Kind, Operation, Program, Reduction, Rule, Scope, Stage};

/// The contents of a unit of source.
#[derive(Clone, Copy)]
pub enum Unit {
    /// The passes of a program, and its stages over rows and columns.
    Passes {
        /// The rule.
        rule: &'static Rule,
        /// One of its programs.
        program: &'static Program,
        /// The parameters' type.
        param: Dtype,
        /// The gradients' type.
        grad: Dtype,
    },
    /// The scalar stages of a program, over one array and over all of them.
    Texts {
        /// The rule.
        rule: &'static Rule,
        /// One of its programs.
        program: &'static Program,
    },
}

impl Unit {
    /// Its rule.
    pub fn rule(&self) -> &'static Rule {
        match self {
            Unit::Passes { rule, .. } | Unit::Texts { rule, .. } => rule,
        }
    }

    /// Its program.
    pub fn program(&self) -> &'static Program {
        match self {
            Unit::Passes { program, .. } | Unit::Texts { program, .. } => program,
        }
    }

    /// The types of parameters and gradients, if it has passes over them.
    pub fn types(&self) -> Option<(Dtype, Dtype)> {
        match self {
            Unit::Passes { param, grad, .. } => Some((*param, *grad)),
            Unit::Texts { .. } => None,
        }
    }

    /// Identifies it among units.
    fn key(&self) -> (&'static str, &'static str, Option<(Dtype, Dtype)>) {
        (self.rule().name, self.program().name, self.types())
    }

    /// The kernels in it.
    pub fn kernels(&self) -> Vec<Kernel> {
        match self {
            Unit::Passes { .. } => kernels(self.program()),
            Unit::Texts { .. } => text_kernels(self.program()),
        }
    }

    /// The compute type.
    pub fn compute(&self) -> Dtype {
        match self {
            Unit::Passes { param, .. } => param.compute(),
            Unit::Texts { .. } => Dtype::F64,
        }
    }

    /// Its source.
    pub fn source(&self) -> String {
        let (rule, program, compute) = (self.rule(), self.program(), self.compute());
        let mut source = format!("typedef {} F;\n#define SCALARS {}\n", type_name(compute), rule.scalars.len());
        source += include_str!("prelude.cu");
        source += "namespace schuss {\n";
        let (param, kernels) = match *self {
            Unit::Passes { param, grad, .. } => {
                for (alias, dtype) in [("P", param), ("G", grad), ("S", compute)] {
                    line!(source, "typedef {} {alias};", type_name(dtype));
                }
                (param, concat!(include_str!("passes.cu"), include_str!("vectors.cu")))
            }
            Unit::Texts { .. } => (compute, include_str!("scalars.cu")),
        };
        let of_norm = rule.name == tools::clip_norm().rule.name;
        line!(source, "}} // namespace schuss\n#define FINITE {}", u8::from(of_norm));
        source += kernels;
        line!(source, "namespace schuss {{\n// {}, {}", rule.name, program.name);
        let context = Context { rule, program, param, compute };
        for (place, stage) in program.stages.iter().enumerate() {
            match (&stage.kind, self) {
                (Kind::Pass(one), Unit::Passes { .. }) => source += &pass(context, place, one),
                (Kind::Vector { scope, .. }, Unit::Passes { .. }) => source += &vectors(context, place, *scope),
                (Kind::Text(_), Unit::Texts { .. }) => source += &text(context, place),
                _ => {}
            }
        }
        source += "} // namespace schuss\n";
        for kernel in self.kernels() {
            line!(source, "\nKERNEL({kernel}) {{");
            if of_norm {
                source += &unless_summed(rule);
            }
            match kernel.part {
                Part::Arrays => source += &arrays(rule, program, kernel.stage),
                Part::All => source += &all(rule, program, kernel.stage),
                part => {
                    let template = match part {
                        Part::Elements => "elements",
                        Part::Blocks => "blocks",
                        Part::Pieces => "pieces",
                        Part::Cells => "cells",
                        Part::Along(_) => "sums_along",
                        Part::Across(_) => "sums_across",
                        Part::Panels(_) => "panels",
                        Part::Numbers => "numbers",
                        _ => "matrices",
                    };
                    line!(source, "    schuss::{template}<schuss::{}>(args);", structure(kernel.stage, part));
                }
            }
            source += "}\n";
        }
        source
    }
}

impl PartialEq for Unit {
    fn eq(&self, other: &Unit) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Unit {}

impl Hash for Unit {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

/// Every unit that any optimizer or tool may need.
pub fn all_units() -> Vec<Unit> {
    const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::Bf16];
    let mut units = Vec::new();
    for rule in ALL.iter().chain(TOOLS).map(|compiled| compiled.rule).filter(|rule| check(rule).is_ok()) {
        for program in rule.programs {
            let pairs = DTYPES.iter().flat_map(|&param| DTYPES.map(|grad| (param, grad)));
            units.extend(pairs.map(|(param, grad)| Unit::Passes { rule, program, param, grad }));
            units.push(Unit::Texts { rule, program });
        }
    }
    units.retain(|unit| !unit.kernels().is_empty());
    units
}

fn type_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float",
        Dtype::F64 => "double",
        Dtype::F16 => "schuss::f16",
        Dtype::Bf16 => "schuss::bf16",
    }
}

/// Generates the lines that reduce arrays of numbers in order, with the results in `found`.
fn fold(numbers: &str, stride: &str, count: &str, reductions: &[(usize, &Reduction)], found: usize) -> String {
    let mut source = String::new();
    for (i, eight) in reductions.chunks(8).enumerate() {
        let largest = |(k, (_, reduction)): (usize, &(usize, &Reduction))| u32::from(form(reduction) == Form::Max) << k;
        let largest: u32 = eight.iter().enumerate().map(largest).sum();
        let from = format!("{numbers} + {} * {stride}", 8 * i);
        let found = found + 8 * i;
        line!(source, "    schuss::fold<{}>({from}, {stride}, {count}, {largest}, found + {found});", eight.len());
    }
    source
}

/// Leaves a kernel of the norm's if its unit is another than 1, and the sum in memory does not need it.
fn unless_summed(rule: &Rule) -> String {
    let place = |name| rule.scalars.iter().position(|&scalar| scalar == name).expect("the rule has it");
    format!(
        "    const double unit = (double)schuss::value(args.scalars[{}], F()), sum = schuss::get(args.group + {});\n    \
         if ((unit > 1.0 && sum != schuss::Constants<double>::infinity()) || (unit < 1.0 && !(sum < {SMALLEST_SUM:?}))) return;\n",
        place("unit"),
        place("gg")
    )
}

/// The body of a kernel that computes one array's reductions, and runs the scalar stages after them.
fn arrays(rule: &Rule, program: &Program, place: usize) -> String {
    let stage = &program.stages[place];
    let of = over(stage, Scope::Array);
    let mut source = String::from(
        "    const schuss::Chunk chunk = schuss::get(args.chunks + blockIdx.x);\n    \
         const schuss::Array array = schuss::get(args.arrays + chunk.array);\n",
    );
    if !of.is_empty() {
        line!(source, "    SHARED double found[{}];", of.len());
    }
    let mut divisor = "(double)array.len".to_string();
    match &stage.kind {
        Kind::Pass(_) => {
            let at = if by_cells(stage) { "array.cell" } else { "array.block" };
            let numbers = format!("args.partials + {} * args.stride + {at}", first_summed(program, place));
            let count = if by_cells(stage) { "array.cells" } else { "schuss::over_up(array.len, schuss::BLOCK)" };
            source += &fold(&numbers, "args.stride", count, &of, 0);
        }
        Kind::Vector { scope, .. } => {
            let count = if over(stage, Scope::Matrix).is_empty() { "1" } else { "array.batch * array.interleaved" };
            source += &fold("args.runs + array.run", "args.run_stride", count, &of, 0);
            divisor = format!("(double)schuss::vector_length(array, {})", *scope == Scope::Row);
        }
        Kind::Text(_) => {}
    }
    source += "    if (threadIdx.x != 0) return;\n";
    for (i, (_, reduction)) in of.iter().enumerate() {
        let mean = reduction.operation == Operation::Mean;
        let value = if mean { format!("found[{i}] / {divisor}") } else { format!("found[{i}]") };
        line!(source, "    {}", stored(rule, reduction.place, &value));
    }
    let first = texts_at(program, place).unwrap_or(program.stages.len());
    let is_text = |stage: &&Stage| matches!(stage.kind, Kind::Text(Scope::Array));
    for text in first..first + program.stages.iter().skip(first).take_while(is_text).count() {
        run(&mut source, text);
    }
    source
}

/// The body of a kernel that computes the reductions over all arrays of a rule, and runs a scalar stage over them.
fn all(rule: &Rule, program: &Program, place: usize) -> String {
    let passes: Vec<usize> =
        round(program, place).filter(|&k| !over(&program.stages[k], Scope::All).is_empty()).collect();
    let mut source = String::from("    const schuss::Array array = {};\n");
    let counts: Vec<usize> = passes.iter().map(|&k| over(&program.stages[k], Scope::All).len()).collect();
    if !passes.is_empty() {
        line!(source, "    SHARED double found[{}];", counts.iter().sum::<usize>());
    }
    let mut results = Vec::new();
    for &k in &passes {
        let stage = &program.stages[k];
        let of = over(stage, Scope::All);
        let first = first_summed(program, k) + summed(stage).len() - of.len();
        let count = if by_cells(stage) { "args.cells" } else { "args.blocks" };
        source += &fold(&format!("args.partials + {first} * args.stride"), "args.stride", count, &of, results.len());
        results.extend(of.iter().map(|(_, reduction)| reduction.place));
    }
    source += "    if (threadIdx.x != 0) return;\n";
    for (i, &scalar) in results.iter().enumerate() {
        line!(source, "    {}", stored(rule, scalar, &format!("found[{i}]")));
    }
    run(&mut source, place);
    source
}

fn run(source: &mut String, text: usize) {
    line!(source, "    schuss::Stage{text} text{text};");
    line!(source, "    text{text}.Scalars(args, array);\n    text{text}.Text();\n    text{text}.Out(args, array);");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizers::find;

    #[test]
    fn only_rules_that_look_ahead_stay_on_the_host() {
        let refused: Vec<_> = ALL.iter().chain(TOOLS).filter_map(|one| check(one.rule).err()).collect();
        assert_eq!(refused, ["nag does not run on a GPU: it looks ahead, which only the host does"]);
    }

    #[test]
    fn the_text_of_a_pass_is_in_its_unit() {
        let unit = |name, param| {
            let rule = find(name).unwrap().rule;
            Unit::Passes { rule, program: &rule.programs[0], param, grad: Dtype::Bf16 }
        };
        let source = unit("lion", Dtype::F64).source();
        assert!(source.contains("typedef double P;") && source.contains("typedef schuss::bf16 G;"));
        assert!(source.contains("m = schuss::fma(beta2, m, (one_minus_beta2 * g));"), "{source}");
        assert!(source.contains(
            "g = g * gradient_factor;\n        if (L2) { g = schuss::fma(l2, p, g); }\n        p = p * decay;"
        ));
        assert!(unit("adagrad", Dtype::F32).source().contains("KERNEL(stage0_elements)"));
        let form = |param| {
            let source = unit("lamb", param).source();
            source.lines().find(|line| line.contains(" Form(")).map(str::to_string).unwrap()
        };
        assert!(form(Dtype::F32).contains("return k == 0 ? FAST : FAST;"));
        assert!(form(Dtype::Bf16).contains("return k == 0 ? FAST : FAST;"));
        assert!(form(Dtype::F64).contains("return k == 0 ? SQUARE : SQUARE;"));
    }

    #[test]
    fn the_formula_of_clipping_comes_from_its_rule() {
        let all = [
            include_str!("prelude.cu"),
            include_str!("passes.cu"),
            include_str!("vectors.cu"),
            include_str!("scalars.cu"),
        ];
        for file in all {
            assert!(!file.contains("1e-6") && !file.contains("max_norm"));
        }
        let rule = tools::clip_norm().rule;
        let source = Unit::Texts { rule, program: &rule.programs[0] }.source();
        assert!(source.contains("const auto coefficient = ((max_norm / unit) / (root + (1e-6 / unit)));"), "{source}");
    }

    #[test]
    fn stages_become_kernels_in_order() {
        let names = |rule| {
            let program = &find(rule).unwrap().rule.programs[0];
            let all = kernels(program).into_iter().chain(text_kernels(program));
            all.map(|kernel| kernel.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("adam"), ["stage0_elements"]);
        assert_eq!(names("lamb"), ["stage0_blocks", "stage2_elements", "stage0_arrays"]);
        assert_eq!(names("prodigy"), ["stage1_blocks", "stage3_elements", "stage0_all", "stage2_all"]);
        let rows = ["stage0_along_rows", "stage0_across_rows", "stage0_panels_of_rows"];
        assert_eq!(names("radam_centralized"), [&rows[..], &["stage1_elements"]].concat());
        let cols = ["stage0_along_cols", "stage0_across_cols", "stage0_panels_of_cols"];
        let rest =
            ["stage0_pieces", "stage0_cells", "stage1_matrices", "stage2_numbers", "stage3_numbers", "stage4_blocks"];
        let last = ["stage6_elements", "stage0_arrays", "stage4_arrays"];
        assert_eq!(names("adafactor"), [&rows[..], &cols, &rest, &last].concat());
    }

    #[test]
    fn arguments_fit_into_a_launch() {
        for compiled in ALL.iter().chain(TOOLS) {
            assert!(super::super::tables::argument_bytes(compiled.rule) <= 4096, "{compiled:?}");
        }
    }
}
