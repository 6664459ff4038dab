//! The values that the reductions of a stage accumulate, and how they reach the driver. Generates no loop.

use crate::tree::*;

/// The operand of a reduction: a product of two factors, a square, or one factor.
pub struct Term<'a> {
    pub left: &'a Expr,
    pub right: Option<&'a Expr>,
}

/// Splits a reduction's value into factors; products are multiplied in float64.
pub fn term(reduction: &Reduction) -> Term<'_> {
    match &reduction.value {
        Expr::Binary("*", a, b) if reduction.operation != Operation::Max => Term { left: a, right: Some(b) },
        value => Term { left: value, right: None },
    }
}

/// Whether the loop of a pass adds up a reduction itself. Rows and columns, whose elements the loop does not see as such, and
/// maxima are reduced from memory.
pub fn fused(stage: &Stage, reduction: &Reduction) -> bool {
    matches!(stage.kind, Kind::Pass(_)) && !by_cells(stage) && reduction.operation != Operation::Max
}

/// Whether a stage reduces over rows or columns.
fn by_cells(stage: &Stage) -> bool {
    stage.reductions.iter().any(|one| matches!(one.scope, Scope::Row | Scope::Col))
}

/// Whether a pass that `writes` or not has a second kernel for elements of one row, which adds up all reductions. One that only
/// reads is as fast without: most of its terms are in memory.
pub fn has_row_kernel(stage: &Stage, writes: bool) -> bool {
    let fast = stage.reductions.iter().any(|reduction| reduction.operation == Operation::FastSum);
    matches!(stage.kind, Kind::Pass(_)) && by_cells(stage) && !fast && writes
}

/// Whether a reduction counts elements.
pub fn counts(reduction: &Reduction) -> bool {
    matches!(&reduction.value, Expr::Number(text, _) if text.parse() == Ok(1.0))
        && !matches!(reduction.operation, Operation::Max)
}

/// Where the factors of a stage's reductions are stored, if they are reduced from memory. Those of fast sums always are: where
/// float32 lanes overflow, the sum is taken again.
pub struct Factors<'a> {
    /// The values that the kernel writes, in tile order.
    pub tiles: Vec<&'a Expr>,
}

impl<'a> Factors<'a> {
    pub fn new(stage: &'a Stage) -> Factors<'a> {
        let mut tiles: Vec<&Expr> = Vec::new();
        let stored = |one: &&Reduction| one.operation == Operation::FastSum || !fused(stage, one);
        for reduction in stage.reductions.iter().filter(stored) {
            let term = term(reduction);
            for factor in [Some(term.left), term.right].into_iter().flatten() {
                if in_memory(stage, factor) != Some(Held::Always("p")) && !tiles.iter().any(|tile| tile.same(factor)) {
                    tiles.push(factor);
                }
            }
        }
        Factors { tiles }
    }

    pub fn tile(&self, factor: &Expr) -> Option<usize> {
        self.tiles.iter().position(|tile| tile.same(factor))
    }
}

/// When a factor is a value that is already in memory.
#[derive(PartialEq)]
pub enum Held {
    /// In every step.
    Always(&'static str),
    /// Only in steps that neither scale gradients nor add weight decay to them.
    Unscaled(&'static str),
}

pub fn in_memory(stage: &Stage, factor: &Expr) -> Option<Held> {
    let Kind::Pass(arguments) = &stage.kind else { return None };
    match factor {
        Expr::Name(name) if name == "p" && !stage.assigns("p") && arguments.restore.is_none() => {
            Some(Held::Always("p"))
        }
        Expr::Name(name) if name == "g" && !stage.assigns("g") => Some(match arguments.raw {
            true => Held::Always("g"),
            false => Held::Unscaled("g"),
        }),
        _ => None,
    }
}
