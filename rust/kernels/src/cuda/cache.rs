//! A cache of compiled units on disk, so that each is compiled once per machine instead of once per process. Knows no rule.
//!
//! A file holds the whole key and a checksum besides the code: files that are damaged, truncated or of another key are ignored.
//! Files are written to a temporary name and renamed. Nothing here fails: without a writable folder, units are compiled again.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// The folder: `SCHUSS_CUDA_CACHE`, where an empty value disables the cache, or `schuss/cuda` in the user's cache folder.
fn folder() -> Option<PathBuf> {
    match std::env::var_os("SCHUSS_CUDA_CACHE") {
        Some(own) if own.is_empty() => None,
        Some(own) => Some(own.into()),
        None => {
            let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let base = set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA"));
            Some(base.or_else(|| set("HOME").map(|home| home.join(".cache")))?.join("schuss").join("cuda"))
        }
    }
}

/// FNV-1a, for checksums and file names; keys are compared in full.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

fn path(key: &str) -> Option<PathBuf> {
    Some(folder()?.join(format!("{:016x}.bin", hash(key.as_bytes()))))
}

/// The header of a file, which precedes the code.
fn header(key: &str, code: &[u8]) -> Vec<u8> {
    let mut header = format!("schuss {} {} {:016x}\n", key.len(), code.len(), hash(code)).into_bytes();
    header.extend(key.as_bytes());
    header
}

/// The code stored under a key.
pub(super) fn read(key: &str) -> Option<Vec<u8>> {
    let file = fs::read(path(key)?).ok()?;
    let line = std::str::from_utf8(file.split(|&byte| byte == b'\n').next()?).ok()?;
    let length: usize = line.split(' ').nth(2)?.parse().ok()?;
    let at = file.len().checked_sub(length)?;
    let code = &file[at..];
    (!code.is_empty() && file[..at] == header(key, code)).then(|| code.to_vec())
}

/// Stores code under a key, if possible.
pub(super) fn write(key: &str, code: &[u8]) {
    let store = || -> Option<()> {
        let path = path(key)?;
        fs::create_dir_all(path.parent()?).ok()?;
        let temporary = path.with_extension(format!("{}.{:x}.tmp", std::process::id(), code.as_ptr() as usize));
        let written = fs::File::create(&temporary).and_then(|mut file| {
            file.write_all(&header(key, code))?;
            file.write_all(code)
        });
        if written.and_then(|()| fs::rename(&temporary, &path)).is_err() {
            let _ = fs::remove_file(&temporary);
        }
        Some(())
    };
    store();
}
