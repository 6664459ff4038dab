//! CPU levels: which instruction sets this machine has, and which one is in use. Knows no kernel.
//!
//! The level is chosen once per process. It changes speed, never bits.

use std::sync::OnceLock;

/// An instruction-set level that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The instructions that every CPU of the architecture has.
    Baseline,
    /// x86-64 with AVX2 and FMA (2013 and later).
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL (servers from 2017).
    Avx512,
}

/// How many levels there are: the length of a kernel table.
pub(crate) const LEVELS: usize = 3;

impl Level {
    /// All levels, slowest first.
    pub const ALL: [Level; LEVELS] = [Level::Baseline, Level::Avx2, Level::Avx512];

    /// The name that `SCHUSS_CPU` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Baseline => "baseline",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Whether this CPU supports it.
    #[cfg(target_arch = "x86_64")]
    pub fn available(self) -> bool {
        match self {
            Level::Baseline => true,
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Level::Avx512 => {
                Level::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }

    /// Whether this CPU supports it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn available(self) -> bool {
        self == Level::Baseline
    }

    /// The levels that this CPU supports, slowest first.
    pub fn found() -> Vec<Level> {
        Level::ALL.into_iter().filter(|level| level.available()).collect()
    }
}

/// Compiles functions once for each level, into modules named after the levels. The only place that lists their features; `FMA`
/// says whether a fused multiply-add is one instruction, `OwnLanes` which registers sums use.
macro_rules! each {
    ($($function:item)*) => {
        mod baseline {
            use super::*;
            #[allow(dead_code)]
            const FMA: bool = cfg!(target_arch = "aarch64"); // each of these CPUs has it
            #[allow(dead_code)]
            type OwnLanes = crate::cpu::lanes::Plain;
            $($function)*
        }
        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            use super::*;
            #[allow(dead_code)]
            const FMA: bool = true;
            #[allow(dead_code)]
            type OwnLanes = crate::cpu::lanes::Avx2;
            $(#[target_feature(enable = "avx2,fma")] $function)*
        }
        #[cfg(target_arch = "x86_64")]
        mod avx512 {
            use super::*;
            #[allow(dead_code)]
            const FMA: bool = true;
            #[allow(dead_code)]
            type OwnLanes = crate::cpu::lanes::Avx512;
            $(#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")] $function)*
        }
    };
}
pub(crate) use each;

/// A table of the functions that [`each`] has compiled, by level; `row!(level)` builds one row.
macro_rules! rows {
    ($row:ident) => {{
        #[cfg(target_arch = "x86_64")]
        let rows = [$row!(baseline), $row!(avx2), $row!(avx512)];
        #[cfg(not(target_arch = "x86_64"))]
        let rows = [$row!(baseline), $row!(baseline), $row!(baseline)];
        rows
    }};
}
pub(crate) use rows;

static IN_USE: OnceLock<Result<Level, String>> = OnceLock::new();

/// The level in use: `SCHUSS_CPU` if set, else the fastest that this CPU supports. Chosen at the first call.
///
/// # Errors
/// `SCHUSS_CPU` is not a level, or one that this CPU lacks; the message lists the supported ones.
pub fn in_use() -> Result<Level, String> {
    IN_USE.get_or_init(|| choose(std::env::var("SCHUSS_CPU").ok().as_deref())).clone()
}

fn choose(wanted: Option<&str>) -> Result<Level, String> {
    let found = Level::found();
    match wanted {
        None | Some("") => Ok(found[found.len() - 1]),
        Some(name) => found.iter().copied().find(|level| level.name() == name).ok_or_else(|| {
            let names: Vec<_> = found.iter().map(|level| level.name()).collect();
            format!("SCHUSS_CPU={name:?} is not a level that this CPU has; it has {}", names.join(", "))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_is_the_default_and_any_found_can_be_asked_for() {
        assert_eq!(choose(None).as_ref(), Ok(Level::found().last().unwrap()));
        for level in Level::found() {
            assert_eq!(choose(Some(level.name())), Ok(level));
        }
        assert!(choose(Some("mmx")).unwrap_err().contains("it has baseline"));
    }
}
