//! Asks the linker to put similar functions next to each other, if it can: compressed wheels are then 12 % smaller.

use std::env;
use std::process::{Command, Stdio};

const SORTED: &str = "-Wl,--bp-compression-sort=function";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // It takes some seconds, so quick builds leave it out.
    let release = env::var("OPT_LEVEL").is_ok_and(|level| level == "3");
    if release && env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") && links_with(SORTED) {
        println!("cargo:rustc-link-arg-cdylib={SORTED}");
    }
}

/// Whether the linker takes an argument: found out with a library without code.
fn links_with(argument: &str) -> bool {
    let variable = |name| env::var(name).unwrap_or_default();
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--crate-type=cdylib", "--crate-name=probe", "--target", &variable("TARGET")]);
    rustc.args(variable("CARGO_ENCODED_RUSTFLAGS").split('\x1f').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc.arg(format!("-Clink-arg={argument}")).args(["--out-dir", &variable("OUT_DIR"), "-"]);
    rustc.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
