//! A step of an optimizer, and what other programs have in common with it. Words no error about arrays.
//!
//! A step first evaluates the schedules, then checks all arguments, then reads the gradients if clipping or the non-finite
//! check needs it, and only then writes. Python holds hyperparameters in one float64 array per entry, in the layout that
//! [`GroupValues`] reads.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use numpy::PyArrayMethods;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use schuss::level::Level;
use schuss::rule::Kind;
use schuss::{Follower, Rounding, RowStep, Step, WorkList, unscale_factor};

use crate::backup::put_back_absent;
use crate::callbacks::{self, Problem, explain};
use crate::changes::{Changes, Old};
use crate::fingerprint::fingerprint;
use crate::functional::{Job, Work};
use crate::gradients::{self, Gradients};
use crate::group::{Entry, GroupValues, MOST_STEPS, RELEASE_GIL, detach_if, disagreement, level_and_threads};
use crate::inner::{Inner, Locked, MATRIX_PROGRAMS, NO_NORM, Nonfinite, Sharing};
use crate::memory::{List, collect, no_memory, push};
use crate::rows::{self, Given};
use crate::sharded::Shards;

/// The arguments of a step.
#[derive(Default)]
pub struct StepArguments<'a, 'py> {
    /// The gradients, and whether they are the optimizer's own.
    pub grads: Option<&'a Bound<'py, PyAny>>,
    pub own: bool,
    /// Gradients of rows, of arrays that have none among the others.
    pub rows: &'a [Given<'py>],
    pub grad_scale: f64,
    pub zero_grads: bool,
    pub partial: bool,
    /// Changes that the caller makes after it.
    pub waiting: &'a [Py<Changes>],
}

/// The result of a step.
pub struct StepResult<'py> {
    pub taken: bool,
    /// What the caller ends after the changes that wait for the step: dropping it may run any code.
    pub left: Option<(Gradients, Old<'py>)>,
}

impl<'py> StepResult<'py> {
    fn new(
        inner: &mut Inner,
        py: Python<'py>,
        waits: bool,
        taken: bool,
        read: Gradients,
        old: Old<'py>,
    ) -> StepResult<'py> {
        if waits {
            return StepResult { taken, left: Some((read, old)) };
        }
        drop(old);
        inner.gradients = read.release(py);
        StepResult { taken, left: None }
    }
}

/// Takes a step.
pub fn take<'py>(
    optimizer: &Bound<'py, PyAny>,
    core: &Locked,
    inner: &mut Inner,
    arguments: StepArguments<'_, 'py>,
) -> PyResult<StepResult<'py>> {
    let StepArguments { grads, own, rows, grad_scale, zero_grads, partial, waiting } = arguments;
    let py = optimizer.py();
    let moved = inner.look_ahead.as_ref().is_some_and(|look_ahead| look_ahead.moved);
    if !moved && inner.looks_ahead {
        return Err(PyRuntimeError::new_err(
            "the parameters are not at their look-ahead point; call the step of NAG itself, with a closure",
        ));
    }
    let steps = core.steps.load(Ordering::Relaxed);
    let scheduled = match &mut inner.look_ahead {
        Some(look_ahead) if look_ahead.moved => look_ahead.scheduled.take(),
        _ => scheduled_values(optimizer, &inner.entries, steps)?,
    };
    restore_gradients(inner);
    let read = gradients::read(optimizer, inner, grads, zero_grads, partial, own)?;
    let mut rows = if rows.is_empty() { None } else { Some(rows::read(optimizer, inner, rows)?) };
    check_groups_agree(optimizer, inner, scheduled.as_deref())?;
    waiting.iter().try_for_each(|changes| changes.get().check(py))?;
    // Nothing below runs foreign Python code, so the checks above stay valid.
    let (level, threads) = level_and_threads()?;
    // Before processes agree on the step, so that memory cannot run out in one of them only.
    let sharing = if inner.work.any_absent() {
        Some(inner.missing_one(|i| rows.as_ref().is_some_and(|rows| rows.has(i)))?)
    } else {
        None
    };
    let shards = inner.shards.as_ref().map(|shards| shards.clone_ref(py));
    // Where nothing is measured before the step, each bucket is updated while the next is on its way.
    let by_bucket = shards.is_some() && inner.work.is_plain() && !measures(inner);
    if let Some(shards) = &shards {
        shards.get().check_sums()?;
        shards.get().agree(py, fingerprint(py, inner, "step", steps, scheduled.as_deref(), grad_scale))?;
        shards.get().begun();
        if !by_bucket {
            add_gradients(py, inner, shards.get())?;
        }
    }
    let Measured { norm, factor, nonfinite } = measure(py, inner, rows.as_mut(), grad_scale, (level, threads))?;
    if let Some((i, at)) = nonfinite {
        if inner.nonfinite == Nonfinite::Error {
            return Err(explain(optimizer, Problem::Nonfinite(i, at)));
        }
        core.skipped.store(MOST_STEPS.min(core.skipped.load(Ordering::Relaxed) + 1), Ordering::Relaxed);
        core.norm.store(norm, Ordering::Relaxed);
        core.bound.store(NO_NORM, Ordering::Relaxed);
        if zero_grads {
            restore_gradients(inner);
            // SAFETY: as for the step below, which does not run.
            unsafe { inner.work.zero_grads() };
        }
        return Ok(StepResult::new(inner, py, !waiting.is_empty(), false, read, Vec::new()));
    }
    let (jobs, locked);
    let mut followers = Vec::new();
    if !waiting.is_empty() {
        let all = waiting.iter().flat_map(|changes| changes.get().jobs()).map(|job| job.get());
        jobs = schuss::try_collect(all).map_err(no_memory)?;
        locked = collect(jobs.iter().map(|job| job.locked()))?;
        // Matrix products change parameters after the step.
        if rows.is_none() && !inner.multiplies {
            followers = following(&inner.work, &jobs, &locked)?;
        }
    }
    let lead = fill_scalars(py, inner, scheduled.as_deref(), factor);
    let products = if inner.multiplies {
        let products = matrix_work(optimizer, inner, (&read, zero_grads), (steps, lead))?;
        // No foreign code runs from here on.
        waiting.iter().try_for_each(|changes| changes.get().check(py))?;
        products
    } else {
        None
    };
    if sharing.is_some() {
        put_back_absent(py, inner)?;
    }
    let followed = !followers.is_empty();
    let then = match &mut rows {
        Some(rows) => Then::Rows(rows),
        None => Then::Followers(followers),
    };
    run(py, inner, ("step", by_bucket), then, steps, zero_grads && shards.is_none(), lead)?;
    if followed {
        waiting.iter().for_each(|changes| changes.get().jobs_ran());
    }
    if zero_grads && shards.is_some() {
        restore_gradients(inner);
        // SAFETY: the caller's gradients, which are kept alive, were found writable.
        unsafe { inner.work.zero_grads() };
    }
    count(core, inner, sharing, norm);
    let old = match products {
        Some(changes) => changes.get().make_checked(py)?,
        None => Vec::new(),
    };
    Ok(StepResult::new(inner, py, !waiting.is_empty(), true, read, old))
}

/// Checks that groups agree on what the states that they share are computed from.
fn check_groups_agree(optimizer: &Bound<'_, PyAny>, inner: &Inner, scheduled: Option<&[List<f64>]>) -> PyResult<()> {
    if inner.shared.is_none() {
        return Ok(());
    }
    let values = inner.entries.iter().enumerate().map(|(i, entry)| match scheduled {
        Some(values) => &values[i].0[..],
        None => entry.values(optimizer.py()).0,
    });
    let values = schuss::try_collect(values).map_err(no_memory)?;
    match disagreement(inner.entries[0].rule.rule, &inner.agreed, &values) {
        Some((name, one, other)) => Err(explain(optimizer, Problem::Disagreement(name, one, other))),
        None => Ok(()),
    }
}

/// What a step finds out about its gradients before it writes.
struct Measured {
    /// The bits of the norm, or [`NO_NORM`].
    norm: u64,
    /// What multiplies the gradients.
    factor: f64,
    /// Array and flat index of the first that is not finite, where the step may not use it.
    nonfinite: Option<(usize, usize)>,
}

/// Whether a step reads all gradients before it writes.
fn measures(inner: &Inner) -> bool {
    inner.max_grad_norm.is_some() || inner.track_norm || inner.nonfinite != Nonfinite::Propagate
}

/// Measures gradients that were just checked and are kept alive, if the step needs that.
fn measure(
    py: Python<'_>,
    inner: &mut Inner,
    mut rows: Option<&mut RowStep>,
    grad_scale: f64,
    (level, threads): (Level, usize),
) -> PyResult<Measured> {
    let mut measured = Measured { norm: NO_NORM, factor: unscale_factor(grad_scale), nonfinite: None };
    if !measures(inner) {
        return Ok(measured);
    }
    let (release, work) = (inner.work.total() >= RELEASE_GIL, &mut inner.work);
    // SAFETY: upheld by the caller; this CPU supports the level.
    let mut squares = detach_if(py, release, || unsafe { work.sum_of_squares(level, threads) })?;
    if let Some(rows) = &mut rows {
        // SAFETY: this CPU supports the level.
        squares = squares.plus(unsafe { rows.sum_of_squares(level, threads) });
    }
    inner.shards.as_ref().map_or(Ok(()), |shards| shards.get().check(py))?;
    if inner.max_grad_norm.is_some() || inner.track_norm {
        let max_norm = inner.max_grad_norm.unwrap_or(f64::INFINITY);
        let (norm, clipped) = schuss::clip_factor(squares, grad_scale, max_norm);
        measured.norm = norm.to_bits();
        measured.factor = if inner.max_grad_norm.is_some() { clipped } else { measured.factor };
    }
    if inner.nonfinite != Nonfinite::Propagate && !squares.sum.is_finite() {
        // SAFETY: upheld by the caller.
        let first = unsafe { inner.work.first_nonfinite() };
        measured.nonfinite = first.or_else(|| rows.and_then(RowStep::first_nonfinite));
    }
    Ok(measured)
}

/// Counts a step that has been taken.
fn count(core: &Locked, inner: &mut Inner, sharing: Option<Sharing>, norm: u64) {
    inner.group_steps.iter_mut().for_each(|steps| *steps = MOST_STEPS.min(*steps + 1));
    if let Some(sharing) = sharing {
        inner.share(sharing);
    }
    if let Some(look_ahead) = &mut inner.look_ahead {
        look_ahead.moved = false;
    }
    core.steps.store(MOST_STEPS.min(core.steps.load(Ordering::Relaxed) + 1), Ordering::Relaxed);
    core.norm.store(norm, Ordering::Relaxed);
    core.bound.store(inner.max_grad_norm.map_or(NO_NORM, f64::to_bits), Ordering::Relaxed);
}

/// The programs that wait for the step, if all of them can run in its tasks.
fn following<'a>(work: &WorkList, jobs: &[&'a Job], locked: &'a [MutexGuard<'_, Work>]) -> PyResult<Vec<Follower<'a>>> {
    let mut followers = Vec::new();
    for (job, locked) in jobs.iter().zip(locked) {
        let (list, scalars) = &**locked;
        let Some(follower) = work.follower("step", (list, &job.program), scalars) else { return Ok(Vec::new()) };
        push(&mut followers, follower)?;
    }
    Ok(followers)
}

/// Runs the programs before the step of rules with matrix products, which NumPy computes; nothing but scratch changes. Returns
/// what changes after the step.
fn matrix_work(
    optimizer: &Bound<'_, PyAny>,
    inner: &mut Inner,
    (read, zero_grads): (&Gradients, bool),
    (steps, lead): (u64, usize),
) -> PyResult<Option<Py<Changes>>> {
    let py = optimizer.py();
    let mut changes = None;
    for program in MATRIX_PROGRAMS {
        if !inner.entries.iter().any(|entry| entry.rule.rule.program(program).is_some()) {
            continue;
        }
        run(py, inner, (program, false), Then::Followers(Vec::new()), steps, false, lead)?;
        let present = (0..inner.params.len()).filter(|&i| !inner.work.is_absent(i));
        let step_of = |i: usize| {
            let taken = inner.group_steps[inner.entries[inner.sets.entry_of[i]].group];
            (i, taken.saturating_sub(inner.missed[i]) + 1)
        };
        let present = schuss::try_collect(present.map(step_of)).map_err(no_memory)?;
        changes = callbacks::matrix_work(optimizer, program, present)?.extract::<Option<Py<Changes>>>()?;
        // Schedules, and so any code, have run meanwhile.
        read.check(py, inner, zero_grads)?;
        inner.check_params(optimizer)?;
    }
    changes.iter().try_for_each(|changes| changes.get().check(py))?;
    Ok(changes)
}

/// What comes with a program.
pub enum Then<'a> {
    /// A step over rows, behind it.
    Rows(&'a mut RowStep),
    /// Programs in the same tasks; none, mostly.
    Followers(Vec<Follower<'a>>),
}

/// Runs a program whose scalars are filled in, over parameters that were found unchanged and gradients that have been read,
/// and what comes with it. Processes that share the arrays exchange the parameters at its end or, `by_bucket`, gradients and
/// parameters during it.
pub fn run(
    py: Python<'_>,
    inner: &mut Inner,
    (program, by_bucket): (&str, bool),
    mut then: Then<'_>,
    steps: u64,
    zero_grads: bool,
    lead: usize,
) -> PyResult<()> {
    let (level, threads) = level_and_threads()?;
    let release = inner.work.total() >= RELEASE_GIL;
    // An optimizer keeps all of its states in the same format.
    let rounding = match inner.seed {
        Some(seed) => Rounding::stochastic(seed, steps, inner.work.format()).from_array(inner.first),
        None => Rounding::Nearest,
    };
    let mut none = [];
    let shared = match &inner.shared {
        // SAFETY: Python creates this array, contiguous and float64, and never resizes it; nobody else accesses it during a
        // step.
        Some(shared) => unsafe { shared.bind(py).as_slice_mut()? },
        None => &mut none[..],
    };
    let work = &mut inner.work;
    let mut step = Step { level, threads, scalars: &mut inner.scalars, zero_grads, rounding: &rounding, shared, lead };
    let mut run = |work: &mut WorkList, part: Option<(&schuss::Shards, usize)>| {
        // SAFETY: parameters and states are pinned and were found unchanged; gradients were checked for shape, type, order and
        // alignment, do not overlap written memory, and are kept alive by the caller. The lock excludes other steps of this
        // optimizer.
        detach_if(py, release, || unsafe {
            match part {
                Some((shards, bucket)) => work.run_bucket(program, &mut step, shards, bucket),
                None => match &mut then {
                    Then::Followers(followers) => work.run_followed(program, &mut step, followers),
                    Then::Rows(rows) => {
                        work.run(program, &mut step);
                        work.run_rows(rows, &mut step);
                    }
                },
            }
        })
    };
    let Some(shards) = inner.shards.as_ref().map(|shards| shards.get()) else { return run(work, None) };
    let mut params = shards.params(py, threads);
    if by_bucket {
        shards.add_gradients(py, (level, threads), work, |work, bucket| {
            run(work, Some((shards.layout(), bucket)))?;
            params.start()
        })?;
    } else {
        run(work, None)?;
        shards.check(py)?;
        if inner.entries.iter().any(|entry| writes_param(entry, program)) {
            (0..shards.buckets()).try_for_each(|_| params.start())?;
        }
    }
    params.end()
}

/// Whether a program updates parameters.
fn writes_param(entry: &Entry, program: &str) -> bool {
    let writes = |kind: &Kind| matches!(kind, Kind::Pass(pass) if pass.writes_param);
    entry.rule.rule.program(program).is_some_and(|program| program.stages.iter().any(|stage| writes(&stage.kind)))
}

/// Puts the gradients that the caller passed to the last step back into the work list, if it has their sums now.
pub fn restore_gradients(inner: &mut Inner) {
    if let Some(shards) = &inner.shards {
        shards.get().restore(&mut inner.work);
    }
}

/// Adds the gradients of all processes.
pub fn add_gradients(py: Python<'_>, inner: &mut Inner, shards: &Shards) -> PyResult<()> {
    let (level, threads) = level_and_threads()?;
    shards.add_gradients(py, (level, threads), &mut inner.work, |_, _| Ok(()))
}

/// The schedules' values for a step, if there are any schedules.
pub fn scheduled_values(
    optimizer: &Bound<'_, PyAny>,
    entries: &[Entry],
    step: u64,
) -> PyResult<Option<Vec<List<f64>>>> {
    let any = entries.iter().any(|entry| entry.values(optimizer.py()).scheduled());
    any.then(|| callbacks::scheduled_values(optimizer, step)).transpose()
}

/// Fills the scalars of each set for its next step; the one with the largest learning rate, among those of arrays that have a
/// gradient, is the lead.
pub fn fill_scalars(py: Python<'_>, inner: &mut Inner, scheduled: Option<&[List<f64>]>, factor: f64) -> usize {
    let Inner { entries, group_steps, sets, scalars, shared, work, .. } = inner;
    let of = |entry: usize| {
        let own = &entries[entry];
        let values = scheduled.map_or_else(|| own.values(py), |values| GroupValues(&values[entry].0));
        (own.rule, values, group_steps[own.group])
    };
    sets.fill(scalars, factor, of, |i| shared.is_some() && work.uses_group(i))
}
