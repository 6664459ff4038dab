//! Sixteen float64 numbers in whole registers of each CPU level: the compiler by itself would often use a quarter of each.

/// How many numbers: the lanes of a sum.
pub(crate) const LANES: usize = 16;

/// Numbers to which others are added lane by lane.
pub(crate) trait Lanes: Copy {
    /// # Safety
    /// The CPU must have the registers.
    unsafe fn new(numbers: [f64; LANES]) -> Self;

    /// The numbers.
    fn numbers(self) -> [f64; LANES];

    /// The sums.
    fn plus(self, other: Self) -> Self;

    /// The sums with products; `fused` rounds once, otherwise each product is rounded first.
    fn plus_product(self, a: Self, b: Self, fused: bool) -> Self;

    /// The bits that a mask has too.
    fn masked(self, mask: Self) -> Self;
}

/// Lanes of the baseline: an array, for which the compiler chooses the registers.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f64; LANES]);

impl Lanes for Plain {
    #[inline(always)]
    unsafe fn new(numbers: [f64; LANES]) -> Plain {
        Plain(numbers)
    }

    #[inline(always)]
    fn numbers(self) -> [f64; LANES] {
        self.0
    }

    #[inline(always)]
    fn plus(mut self, other: Plain) -> Plain {
        for i in 0..LANES {
            self.0[i] += other.0[i];
        }
        self
    }

    #[inline(always)]
    fn plus_product(mut self, a: Plain, b: Plain, fused: bool) -> Plain {
        for i in 0..LANES {
            self.0[i] = if fused { a.0[i].mul_add(b.0[i], self.0[i]) } else { self.0[i] + a.0[i] * b.0[i] };
        }
        self
    }

    #[inline(always)]
    fn masked(mut self, mask: Plain) -> Plain {
        for i in 0..LANES {
            self.0[i] = f64::from_bits(self.0[i].to_bits() & mask.0[i].to_bits());
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes};

    macro_rules! registers {
        ($name:ident, $count:literal of $register:ty: $add:ident, $mul:ident, $fma:ident, $and:ident) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name([$register; $count]);

            // Loops, since a closure is a function of its own, which the compiler does not always inline.
            impl Lanes for $name {
                #[inline(always)]
                unsafe fn new(numbers: [f64; LANES]) -> $name {
                    // SAFETY: registers of so many numbers, without padding.
                    unsafe { std::mem::transmute(numbers) }
                }

                #[inline(always)]
                fn numbers(self) -> [f64; LANES] {
                    // SAFETY: as above.
                    unsafe { std::mem::transmute(self) }
                }

                #[inline(always)]
                fn plus(mut self, other: $name) -> $name {
                    for i in 0..$count {
                        // SAFETY: who made the value has said that the CPU has these registers.
                        self.0[i] = unsafe { $add(self.0[i], other.0[i]) };
                    }
                    self
                }

                #[inline(always)]
                fn plus_product(mut self, a: $name, b: $name, fused: bool) -> $name {
                    for i in 0..$count {
                        // SAFETY: who made the value has said that the CPU has these registers.
                        self.0[i] = unsafe {
                            match fused {
                                true => $fma(a.0[i], b.0[i], self.0[i]),
                                false => $add(self.0[i], $mul(a.0[i], b.0[i])),
                            }
                        };
                    }
                    self
                }

                #[inline(always)]
                fn masked(mut self, mask: $name) -> $name {
                    for i in 0..$count {
                        // SAFETY: who made the value has said that the CPU has these registers.
                        self.0[i] = unsafe { $and(self.0[i], mask.0[i]) };
                    }
                    self
                }
            }
        };
    }
    registers!(Avx2, 4 of __m256d: _mm256_add_pd, _mm256_mul_pd, _mm256_fmadd_pd, _mm256_and_pd);
    registers!(Avx512, 2 of __m512d: _mm512_add_pd, _mm512_mul_pd, _mm512_fmadd_pd, _mm512_and_pd);
}
