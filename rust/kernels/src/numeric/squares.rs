//! A sum of squares that neither overflows nor vanishes. Knows no array.

/// A sum of squares of numbers that were divided by `unit` first, so that their norm is `sqrt(sum) * unit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Squares {
    /// The sum.
    pub sum: f64,
    /// A power of two; not 1 only where the squares of float64 numbers overflow or vanish.
    pub unit: f64,
}

/// The units for numbers whose squares overflow, and for those whose squares vanish.
pub(crate) const UNITS: [f64; 2] = [f64::from_bits((1023 + 600) << 52), f64::from_bits((1023 - 600) << 52)];
/// Squares that vanish do not count in a sum of squares that is larger.
pub(crate) const SMALLEST_SUM: f64 = f64::from_bits((1023 - 900) << 52);

impl Squares {
    /// The sum of both.
    pub fn plus(self, other: Squares) -> Squares {
        match (self.sum, other.sum) {
            (0.0, _) => other,
            (_, 0.0) => self,
            _ => {
                let unit = self.unit.max(other.unit);
                let of = |own: Squares| own.sum * (own.unit / unit) * (own.unit / unit);
                Squares { sum: of(self) + of(other), unit }
            }
        }
    }

    /// The unit that the sum must be computed in instead, if any.
    pub(crate) fn better_unit(self) -> Option<f64> {
        match self.sum {
            f64::INFINITY => Some(UNITS[0]),
            sum if sum < SMALLEST_SUM => Some(UNITS[1]),
            _ => None,
        }
    }
}
