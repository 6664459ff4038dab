//! The stages of a rule's programs, grouped for the drivers into rounds between scalar stages over all arrays. Built once; runs
//! nothing.

use crate::kernel::CompiledRule;
use crate::rule::{Kind, Program, Scope, Stage};

/// The programs of a rule.
#[derive(Debug)]
pub(super) struct Plan {
    pub compiled: &'static CompiledRule,
    pub programs: Vec<ProgramPlan>,
    /// The index of the program that runs, if the rule has it: names are compared once for each rule, not for each array.
    running: Option<usize>,
    /// Whether each program is one pass without reductions.
    pub plain: bool,
}

/// A program, split at its scalar stages over all arrays.
#[derive(Debug)]
pub(super) struct ProgramPlan {
    pub name: &'static str,
    pub rounds: Vec<Round>,
}

/// The stages between two scalar stages over all arrays.
pub(super) struct Round {
    /// The stages, each with its index among those of all programs of the rule.
    pub stages: Vec<Numbered>,
    /// The indices of the passes among them.
    pub passes: Vec<usize>,
    /// The scalar stage over all arrays that ends the round.
    pub text: Option<&'static Stage>,
    /// Whether no later round has a pass.
    pub ends: bool,
}

/// A stage, and what depends on its position.
pub(super) struct Numbered {
    pub stage: &'static Stage,
    pub number: usize,
    /// Whether it is the last pass of its program that reads gradients.
    pub last_gradient: bool,
    /// Which of its terms the next pass reuses.
    pub recalled: Option<usize>,
    /// Whether it is a pass without operands whose kernel adds up all reductions.
    pub in_kernel: bool,
}

impl std::fmt::Debug for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stages.fmt(f)
    }
}

impl Numbered {
    pub fn is_pass(&self) -> bool {
        matches!(self.stage.kind, Kind::Pass(_))
    }
}

impl std::fmt::Debug for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stage {}", self.number)
    }
}

impl Plan {
    /// The rounds of the program of this name; empty if the rule has no such program.
    pub fn rounds(&self, program: &str) -> &[Round] {
        self.programs.iter().find(|own| own.name == program).map_or(&[], |own| &own.rounds)
    }

    /// Chooses the program that [`Plan::running`] is about.
    pub fn start(&mut self, program: &str) {
        self.running = self.programs.iter().position(|own| own.name == program);
    }

    /// The rounds of the program that runs.
    pub fn running(&self) -> &[Round] {
        self.running.map_or(&[], |program| &self.programs[program].rounds)
    }
}

/// The plan of a rule.
pub(super) fn plans(compiled: &'static CompiledRule) -> Plan {
    let rule = compiled.rule;
    let mut number = 0;
    let programs: Vec<ProgramPlan> = rule
        .programs
        .iter()
        .map(|program| {
            let first = number;
            number += program.stages.len();
            ProgramPlan { name: program.name, rounds: rounds(program, first) }
        })
        .collect();
    let one_pass = |program: &Program| matches!(program.stages, [Stage { kind: Kind::Pass(_), reductions, .. }] if reductions.is_empty());
    Plan { compiled, programs, running: None, plain: rule.programs.iter().all(one_pass) }
}

fn rounds(program: &'static Program, first: usize) -> Vec<Round> {
    let last = program.last_gradient();
    let mut rounds = Vec::new();
    let mut stages = Vec::new();
    let mut finish = |stages: Vec<Numbered>, text| {
        let passes = (0..stages.len()).filter(|&place| stages[place].is_pass()).collect();
        rounds.push(Round { stages, passes, text, ends: false });
    };
    for (place, stage) in program.stages.iter().enumerate() {
        if matches!(stage.kind, Kind::Text(Scope::All)) {
            finish(std::mem::take(&mut stages), Some(stage));
            continue;
        }
        if let Kind::Pass(pass) = &stage.kind
            && let Some(before) = stages.iter_mut().rev().find(|one: &&mut Numbered| one.is_pass())
        {
            before.recalled = pass.recalls.as_ref().map(|recall| recall.tile);
        }
        let last_gradient = last == Some(place);
        let in_kernel = matches!(&stage.kind, Kind::Pass(pass) if pass.operands.is_empty())
            && stage.reductions.iter().all(|reduction| reduction.fused);
        stages.push(Numbered { stage, number: first + place, last_gradient, recalled: None, in_kernel });
    }
    if !stages.is_empty() {
        finish(stages, None);
    }
    if let Some(round) = rounds.iter_mut().rfind(|round| !round.passes.is_empty()) {
        round.ends = true;
    }
    rounds
}
