//! Tests that GPU kernels give the CPU's bits: their source is compiled for the host and launched by an emulated driver.
//!
//! The emulator replaces NVIDIA's libraries in a separate process. It needs Linux and g++. Knows no Python.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use schuss_macros::rules;

use super::{Device, DeviceStep, Outcome, Work, nvrtc, stages};
use crate::level::Level;
use crate::rule::Scope;
use crate::support::{
    Buffer, Case, Owned, PLAIN, SHAPES, Settings, arrays, first_shared, hypers, matrix, scalars, work_list,
};
use crate::{Common, CompiledRule, Decay, Dtype, Matrix, Step, clip_factor, unscale_factor};

/// Arrays beyond the sizes at which work is split: blocks, chunks, strips and panels.
const LARGE: [Matrix; 9] = [
    matrix(1, 1, 70_001, false),
    matrix(1, 12, 13_000, true),
    matrix(1, 30_001, 3, false),
    matrix(300, 3, 3, true),
    matrix(2, 170, 300, true),
    matrix(1, 70, 5_000, false),
    Matrix { interleaved: 9, ..matrix(1, 50, 9 * 70, true) },
    Matrix { interleaved: 3, ..matrix(1, 5, 3 * 3_000, true) },
    Matrix { interleaved: 500, ..matrix(1, 3, 500 * 4, true) },
];

const GRAD_SCALE: f64 = 2.0;
const MAX_NORM: f64 = 0.7;

/// The results of a run: all memory, the states of scope `all`, and the norms of gradients.
fn memory(arrays: Vec<Owned>, shared: &[f64], norms: Vec<f64>) -> Vec<Buffer> {
    let mut memory: Vec<Buffer> = vec![shared.iter().chain(&norms).map(|x| x.to_bits()).collect()];
    for array in arrays {
        memory.extend([array.param, array.grad]);
        memory.extend(array.states);
    }
    memory
}

/// The steps of a run: hyperparameters, whether gradients are clipped, whether they are set to zero.
fn plan(rule: &CompiledRule, case: &Case) -> [(Common, bool, bool); 3] {
    let plain = Common { lr: 0.01, ..Common::default() };
    let l2 = Common { weight_decay: 0.1, ..plain };
    // Rules that apply weight decay themselves take no other.
    let decay = if rule.rule.hypers.contains(&"weight_decay") { Decay::Own } else { Decay::Decoupled };
    let decoupled = Common { decay, maximize: true, ..l2 };
    [(plain, false, false), (l2, !case.specials, false), (decoupled, false, true)]
}

fn of_groups(rule: &CompiledRule, common: &Common, hypers: &[f64], t: u64, factor: f64) -> [Vec<f64>; 2] {
    let slower = Common { lr: 0.5 * common.lr, ..*common };
    [common, &slower].map(|common| scalars(rule.rule, common, hypers, t, factor))
}

fn on_host(rule: &'static CompiledRule, case: &Case, shapes: &[Matrix]) -> Vec<Buffer> {
    let mut arrays = arrays(rule, case, shapes);
    let hypers = hypers(rule, case.flags);
    let (mut shared, mut norms) = (first_shared(rule.rule, &hypers), Vec::new());
    for ((common, clips, zero_grads), t) in plan(rule, case).iter().zip(1..) {
        // SAFETY: the memory lives, and is not accessed, until the programs have run.
        let mut work = unsafe { work_list(rule, &mut arrays) };
        let mut factor = unscale_factor(GRAD_SCALE);
        if *clips {
            // SAFETY: as above.
            let sum = unsafe { work.sum_of_squares(Level::Baseline, 1) };
            let (norm, clipped) = clip_factor(sum, GRAD_SCALE, MAX_NORM);
            factor = clipped;
            norms.extend(rule.rule.program("step").map(|_| norm));
        }
        let mut scalars = of_groups(rule, common, &hypers, t, factor);
        for program in rule.rule.programs.iter().rev() {
            let Settings { level, threads, rounding, .. } = Settings::default();
            let zero_grads = *zero_grads && program.name == "step";
            let scalars = &mut scalars;
            let mut step =
                Step { level, threads, scalars, zero_grads, rounding: &rounding, shared: &mut shared, lead: 1 };
            // SAFETY: as above; every CPU supports this level.
            unsafe { work.run(program.name, &mut step) };
        }
    }
    memory(arrays, &shared, norms)
}

fn on_device(rule: &'static CompiledRule, case: &Case, shapes: &[Matrix]) -> Vec<Buffer> {
    let mut arrays = arrays(rule, case, shapes);
    let hypers = hypers(rule, case.flags);
    let mut work = Work::new(Device::get(0).unwrap());
    // SAFETY: the memory lives, and is not accessed, until the device has finished.
    work.extend(arrays.iter_mut().map(|array| unsafe { array.array(rule) }).collect()).unwrap();
    work.set_shared(&first_shared(rule.rule, &hypers)).unwrap();
    let mut norms = Vec::new();
    for ((common, clips, zero_grads), t) in plan(rule, case).iter().zip(1..) {
        let scalars = of_groups(rule, common, &hypers, t, unscale_factor(GRAD_SCALE));
        for program in rule.rule.programs.iter().rev() {
            let is_step = program.name == "step";
            let step = DeviceStep {
                scalars: &scalars,
                zero_grads: *zero_grads && is_step,
                grad_scale: GRAD_SCALE,
                max_norm: (*clips && is_step).then_some(MAX_NORM),
                finite: false,
                tracked: false,
                lead: 1,
                stream: 7,
            };
            // SAFETY: as above.
            assert_eq!(unsafe { work.run(program.name, &step) }, Ok(Outcome::Taken));
        }
        if *clips {
            norms.extend(work.norm().unwrap());
        }
    }
    let shared = work.shared().unwrap();
    drop(work);
    memory(arrays, &shared, norms)
}

fn check(rule: &'static CompiledRule, case: &Case, shapes: &[Matrix]) {
    let (host, device) = (on_host(rule, case, shapes), on_device(rule, case, shapes));
    assert_eq!(host.len(), device.len());
    let names = ["parameter", "gradient"].into_iter().chain(rule.rule.states.iter().map(|state| state.name));
    let names: Vec<&str> = names.collect();
    for (i, (one, other)) in host.iter().zip(&device).enumerate() {
        let (array, which) = (i.saturating_sub(1) / names.len(), i.saturating_sub(1) % names.len());
        let what = if i == 0 { "shared" } else { names[which] };
        let at = one.iter().zip(other).position(|(a, b)| a != b);
        assert!(
            one == other,
            "{rule:?} {case:?}: {what} of {:?} differs at word {at:?}: {:x?} on the host, {:x?} on the device",
            shapes.get(array),
            at.map(|at| one[at]),
            at.map(|at| other[at]),
        );
    }
}

rules! {
    hyper();
    each_step(lr, t) { rate = lr; }

    /// Every kind of reduction, some of them over a state that the pass writes, and states of every scope.
    every_sum {
        element m;
        row r;
        col nonnegative c;
        array a = 0.5, b;
        all d = 1.0, e;
        array {
            start = a + d;
        }
        pass(p, g) {
            m = fma(0.5, m, g);
            let u = m * start;
            sum row { row_products = u * p; }
            max row { row_max = abs(u); }
            fast sum row { row_fast = u * u; }
            mean col { col_mean = abs(u); }
            max col { col_max = abs(g); }
            sum array { all_sum = u; }
            fast sum array { param_fast = p * p; }
            max array { all_max = abs(m); }
            sum all { everything = u * g; }
            max all { largest = abs(p); }
        }
        row {
            r = fma(0.5, r, row_products) + row_max;
            mean matrix { mean_of_rows = r; }
            sum array { rows_squared = r * r; row_dot = r * row_fast; }
        }
        array {
            a = 0.001 * (a + row_dot / (1.0 + rows_squared)) + abs(all_sum);
            b = sqrt(param_fast) + all_max;
        }
        col {
            c = c + col_mean;
            max matrix { largest_of_cols = c * 1.0; }
            fast sum array { cols_squared = c * c; }
        }
        all {
            d = d + min(largest, 1.0);
            e = everything;
            fresh = sqrt(abs(e)) / d;
        }
        col {
            scaled = sign(col_max) / (1.0 + largest_of_cols + cols_squared);
        }
        pass(p, g) {
            let u = (r - mean_of_rows) * scaled + m / (a + b);
            p = select(b > 0.0, fma(-rate, u, p), p) + 0.0 * fresh;
            mean array { moved = u; }
        }
        array {
            a = a + abs(moved);
        }
    }

    /// Functions that a GPU has no correctly rounded instructions for, in a pass and in a text.
    every_function {
        element a, b, c;
        array d = 0.7;
        array {
            d = pow(d + cbrt(d), 0.9) + atan2(d, rate - d);
        }
        pass(p, g) {
            a = cbrt(g);
            b = pow(abs(p), g);
            c = pow(abs(g), 0.3);
            p = atan2(p, g) * d;
        }
    }
}

fn rules() -> impl Iterator<Item = &'static CompiledRule> {
    let all =
        crate::optimizers::ALL.iter().chain(crate::optimizers::TOOLS).copied().chain([every_sum(), every_function()]);
    all.filter(|rule| stages::check(rule.rule).is_ok())
}

/// The tests in the emulator's process: all rules of several stages, and two of one. The Python tests run every rule and tool.
#[test]
#[ignore = "is run by the other test, in a process with the emulator"]
fn same_bits_in_the_emulator() {
    use Dtype::{Bf16, F16, F32, F64};
    let library = std::env::var("SCHUSS_NVRTC").expect("is set by the other test");
    nvrtc::load(&[library], 99, 90).unwrap();
    let staged = |rule: &CompiledRule| rule.rule.programs.iter().any(|program| program.stages.len() > 1);
    let part = std::env::var("SCHUSS_EMULATED_PART").expect("is set by the other test");
    let (part, parts) = part.split_once(' ').expect("two numbers");
    let (part, parts): (usize, usize) = (part.parse().unwrap(), parts.parse().unwrap());
    let tested = rules().filter(|rule| staged(rule) || ["adam", "lookahead"].contains(&rule.rule.name));
    for rule in tested.skip(part).step_by(parts) {
        for (flags, types) in [(0.0, (F32, F32)), (1.0, (F64, F64)), (1.0, (Bf16, F32)), (0.0, (F16, F64))] {
            check(rule, &Case { flags, types, ..PLAIN }, &SHAPES);
            check(rule, &Case { flags, types, specials: true, ..PLAIN }, &SHAPES);
        }
        // Sums of float64 show the order in which they are added.
        check(rule, &Case { types: (F64, F64), flags: 1.0, ..PLAIN }, &LARGE);
    }
}

/// The first gradient that is not finite is found, and a skipped step changes nothing except gradients that are set to zero.
#[test]
#[ignore = "is run by the other test, in a process with the emulator"]
fn steps_are_skipped_in_the_emulator() {
    let library = std::env::var("SCHUSS_NVRTC").expect("is set by the other test");
    nvrtc::load(&[library], 99, 90).unwrap();
    let rule = crate::optimizers::lamb::lamb();
    let case = Case { types: (Dtype::F32, Dtype::F32), ..PLAIN };
    let mut arrays = arrays(rule, &case, &LARGE);
    let before = arrays.clone();
    arrays[2].grad[10_001] |= 0x7f80_0000 << 32;
    arrays[3].grad[5] |= 0x7f80_0000;
    let mut work = Work::new(Device::get(0).unwrap());
    // SAFETY: the memory lives, and is not accessed, until the device has finished.
    work.extend(arrays.iter_mut().map(|array| unsafe { array.array(rule) }).collect()).unwrap();
    let scalars = of_groups(rule, &Common::default(), &hypers(rule, 0.0), 1, 1.0);
    let step = DeviceStep {
        scalars: &scalars,
        zero_grads: true,
        grad_scale: 1.0,
        max_norm: None,
        finite: true,
        tracked: false,
        lead: 0,
        stream: 7,
    };
    // SAFETY: as above.
    let (first, _, _) = unsafe { work.measure(&step) }.unwrap();
    assert_eq!(first, Some((2, 20_003)));
    // SAFETY: as above.
    let Ok(Outcome::NotFinite { place, norm }) = (unsafe { work.run("step", &step) }) else { panic!("it was taken") };
    assert!(place == (2, 20_003) && !norm.is_finite());
    drop(work);
    for (after, before) in arrays.iter().zip(&before) {
        assert!(after.param == before.param && after.states == before.states);
        assert!(after.grad.iter().all(|&word| word == 0));
    }
}

#[test]
fn every_rule_gives_the_host_s_bits() {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/support/emulator.cpp");
    if Command::new("g++").arg("--version").output().is_err() {
        eprintln!("skipped: the emulator needs g++");
        return;
    }
    let folder = std::env::temp_dir().join(format!("schuss-emulated-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libcuda.so.1");
    let built = Command::new("g++")
        .args(["-std=c++17", "-O2", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    // Compiling takes nearly all of the time, and each process compiles one unit at a time.
    let processes = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let run = |process: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["in_the_emulator", "--ignored", "--test-threads=1"])
            .env("LD_LIBRARY_PATH", &folder)
            .env("SCHUSS_NVRTC", &library)
            .env("SCHUSS_CUDA_CACHE", std::env::var("SCHUSS_EMULATED_CACHE").unwrap_or_default())
            .env("SCHUSS_EMULATED_PART", format!("{process} {processes}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let running: Vec<_> = (0..processes).map(run).collect();
    let done: Vec<_> = running.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
    let _ = std::fs::remove_dir_all(&folder);
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for one in done {
        assert!(one.status.success(), "{}{}", words(&one.stdout), words(&one.stderr));
    }
}

/// Checks that the rules tested include every kind of state.
#[test]
fn states_of_every_scope_run_on_a_device() {
    for scope in [Scope::Element, Scope::Row, Scope::Col, Scope::Array, Scope::All] {
        assert!(rules().any(|rule| rule.rule.states.iter().any(|state| state.scope == scope)), "{scope:?}");
    }
}
