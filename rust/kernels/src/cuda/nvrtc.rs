//! NVRTC, the compiler of CUDA C++: loaded at run time, any version from 11.7 on. Knows no rule.
//!
//! It needs no GPU. The options below keep results bit-identical to the CPU's: no contraction of `a * b + c`, subnormals kept,
//! division and square root correctly rounded.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::OnceLock;

use libloading::Library;

/// Compiler options of every unit, besides the architecture.
pub const OPTIONS: [&str; 5] = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

type Program = *mut std::ffi::c_void;
type Status = c_int;

/// Declares the library's functions and their symbols.
macro_rules! functions {
    ($($field:ident: $symbol:literal ($($type:ty),*);)*) => {
        struct Functions { $($field: unsafe extern "C" fn($($type),*) -> Status,)* }
        impl Functions {
            fn find(library: &Library) -> Result<Functions, libloading::Error> {
                // SAFETY: the signatures are those of nvrtc.h, which have not changed since they were introduced.
                unsafe { Ok(Functions { $($field: *library.get($symbol)?,)* }) }
            }
        }
    };
}
functions! {
    version: b"nvrtcVersion\0" (*mut c_int, *mut c_int);
    create: b"nvrtcCreateProgram\0" (*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char);
    destroy: b"nvrtcDestroyProgram\0" (*mut Program);
    compile: b"nvrtcCompileProgram\0" (Program, c_int, *const *const c_char);
    log_size: b"nvrtcGetProgramLogSize\0" (Program, *mut usize);
    log: b"nvrtcGetProgramLog\0" (Program, *mut c_char);
    cubin_size: b"nvrtcGetCUBINSize\0" (Program, *mut usize);
    cubin: b"nvrtcGetCUBIN\0" (Program, *mut c_char);
    ptx_size: b"nvrtcGetPTXSize\0" (Program, *mut usize);
    ptx: b"nvrtcGetPTX\0" (Program, *mut c_char);
    archs_size: b"nvrtcGetNumSupportedArchs\0" (*mut c_int);
    archs: b"nvrtcGetSupportedArchs\0" (*mut c_int);
}

/// The loaded library.
pub struct Nvrtc {
    functions: Functions,
    /// Its version, major and minor.
    pub version: (i32, i32),
    /// The architectures that it compiles for, such as 90 for sm_90.
    pub archs: Vec<i32>,
    _library: Library,
}

static LOADED: OnceLock<Nvrtc> = OnceLock::new();

/// The library if it has been loaded.
pub fn loaded() -> Option<&'static Nvrtc> {
    LOADED.get()
}

/// Loads the first of these files, or names known to the system's loader, that is an NVRTC whose major version is at most
/// `newest`, and that compiles for the architecture `arch`; it stays loaded for the life of the process.
///
/// # Errors
/// None of them can be used; the message has the reason for each.
pub fn load(candidates: &[String], newest: i32, arch: i32) -> Result<&'static Nvrtc, String> {
    let mut tried = Vec::new();
    for candidate in candidates {
        if let Some(nvrtc) = LOADED.get() {
            return Ok(nvrtc);
        }
        match Nvrtc::open(candidate) {
            Ok(nvrtc) if nvrtc.version.0 > newest => {
                tried.push(format!("{candidate} is version {}, newer than the driver", nvrtc.version.0));
            }
            Ok(nvrtc) if nvrtc.archs.iter().all(|&known| known > arch) => {
                tried.push(format!("{candidate} is version {}, too new for sm_{arch}", nvrtc.version.0));
            }
            Ok(nvrtc) => return Ok(LOADED.get_or_init(|| nvrtc)),
            Err(error) => tried.push(error),
        }
    }
    LOADED.get().ok_or_else(|| tried.join("; "))
}

impl Nvrtc {
    fn open(path: &str) -> Result<Nvrtc, String> {
        // SAFETY: loading NVIDIA's compiler runs only its own initializers.
        let library = unsafe { Library::new(path) }.map_err(|error| {
            let why = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
            if why.contains(path) { why } else { format!("{path}: {why}") }
        })?;
        let functions = Functions::find(&library).map_err(|error| format!("{path}: {error}"))?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the functions write to their arguments; the list has the length that the library reports.
        let archs = unsafe {
            (functions.version)(&mut major, &mut minor);
            (functions.archs_size)(&mut count);
            let mut archs = vec![0; count.max(0) as usize];
            (functions.archs)(archs.as_mut_ptr());
            archs
        };
        Ok(Nvrtc { functions, version: (major, minor), archs, _library: library })
    }

    /// The best target for a device of this architecture: machine code, or, for a device newer than the compiler, PTX that the
    /// driver translates.
    pub fn target(&self, arch: i32) -> String {
        match self.archs.iter().filter(|&&known| known <= arch).max() {
            Some(&known) if known == arch => format!("sm_{arch}"),
            Some(&known) => format!("compute_{known}"),
            None => format!("sm_{arch}"), // too old for this compiler, which will report it
        }
    }

    /// Compiles to machine code for a target like sm_90, or to PTX for one like compute_90.
    ///
    /// # Errors
    /// It does not compile; the message is the compiler's log.
    pub fn compile(&self, source: &str, target: &str) -> Result<Vec<u8>, String> {
        let f = &self.functions;
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let options: Vec<CString> = std::iter::once(format!("--gpu-architecture={target}"))
            .chain(OPTIONS.map(String::from))
            .map(|option| CString::new(option).expect("options have no zero bytes"))
            .collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: all strings are zero-terminated and outlive the call; buffers have the sizes that the library asked for; the
        // program is destroyed once.
        unsafe {
            let none = std::ptr::null();
            if (f.create)(&mut program, source.as_ptr(), c"schuss.cu".as_ptr(), 0, none, none) != 0 {
                return Err("NVRTC cannot make a program".into());
            }
            let fetch = |size: unsafe extern "C" fn(Program, *mut usize) -> Status,
                         get: unsafe extern "C" fn(Program, *mut c_char) -> Status| {
                let mut length = 0;
                let mut status = size(program, &mut length);
                let mut buffer = vec![0u8; length];
                if status == 0 {
                    status = get(program, buffer.as_mut_ptr().cast());
                }
                if status == 0 { Ok(buffer) } else { Err(format!("NVRTC status {status}")) }
            };
            let status = (f.compile)(program, pointers.len() as c_int, pointers.as_ptr());
            let result = if status != 0 {
                let log = fetch(f.log_size, f.log).unwrap_or_default();
                let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
                Err(format!("NVRTC {}.{} for {target}: {}", self.version.0, self.version.1, log.trim()))
            } else if target.starts_with("compute_") {
                fetch(f.ptx_size, f.ptx)
            } else {
                fetch(f.cubin_size, f.cubin)
            };
            (f.destroy)(&mut program);
            result
        }
    }
}
