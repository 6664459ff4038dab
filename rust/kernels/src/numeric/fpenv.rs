//! The floating-point environment of a step: round to nearest, subnormals kept. Knows no number and no rule.
//!
//! Libraries built with fast-math make the calling thread flush subnormals to zero, while the pool's threads keep them, so
//! results would depend on which thread ran a chunk. A guard sets the standard environment and restores the old one.

use std::hint::black_box;

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    pub type Word = u32;

    const STATUS_FLAGS: u32 = 0x3f;
    const STANDARD: u32 = 0x1f80;

    pub fn get() -> u32 {
        let mut value = 0u32;
        // SAFETY: stores the 4-byte control register into a 4-byte local.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
        value
    }

    pub fn set(value: u32) {
        // SAFETY: the value was read from the register or is the power-on default: no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
    }

    pub fn standard(value: u32) -> u32 {
        STANDARD | (value & STATUS_FLAGS)
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    pub type Word = u64;

    pub fn get() -> u64 {
        let value: u64;
        // SAFETY: reads the floating-point control register.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub fn set(value: u64) {
        // SAFETY: the value was read from the register or is zero, the architecture's default.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }

    pub fn standard(_: u64) -> u64 {
        0
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    pub type Word = ();

    pub fn get() {}
    pub fn set(_: ()) {}
    pub fn standard(_: ()) {}
}

/// Runs `f` in the standard environment, then restores the thread's own.
#[allow(clippy::unit_arg, clippy::let_unit_value, clippy::unit_cmp)] // the control word is () on architectures without one
pub(crate) fn standard<R>(f: impl FnOnce() -> R) -> R {
    let own = control::get();
    let wanted = control::standard(own);
    if own == wanted {
        return f();
    }
    control::set(wanted);
    let _restored = Restored(own);
    // The compiler does not know that arithmetic depends on the environment, and would move it past the guard.
    black_box(black_box(f)())
}

/// A thread's own environment, restored on drop, also after a panic.
struct Restored(control::Word);

impl Drop for Restored {
    fn drop(&mut self) {
        control::set(self.0);
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn subnormals_survive_a_thread_that_flushes_them() {
        let tiny = std::hint::black_box(f32::from_bits(1));
        let own = control::get();
        control::set(own | 0x8040); // flush-to-zero and subnormals-are-zero
        let inside = standard(|| (std::hint::black_box(tiny) * 1.0).to_bits());
        let outside = (std::hint::black_box(tiny) * std::hint::black_box(1.0)).to_bits();
        control::set(own);
        assert_eq!((inside, outside), (1, 0));
    }
}
