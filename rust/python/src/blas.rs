//! Runs the parallel regions of NumPy's OpenBLAS on threads that sleep soon. Knows no array, no rule, and not the pool of steps.
//!
//! OpenBLAS has a hook: once a callback is set, it hands each parallel region to it, as an array of jobs. After a region its own
//! threads spin for about 30 milliseconds, in which a step gets hardly any of the other cores; ours spin for [`EAGER`].
//!
//! # Why a region ends
//! Jobs of one region wait for each other, so each gets a thread of its own: the caller runs the first one, helpers the others. A
//! region takes all helpers that it needs at once, and while it waits for them it holds none. Helpers run nothing else: steps
//! have their own pool, so that neither waits for the other.
//!
//! # Why regions do not disturb each other
//! A job runs at a place, a number that OpenBLAS's own tables are indexed with: a mark that a thread is busy, and its scratch
//! memory. Regions of several callers run at the same time, and so do OpenBLAS's own threads: LU factorizations use these without
//! asking the callback. Those have the lowest places; here a running job has one above them for itself. Scratch memory
//! comes from here, because OpenBLAS frees that of its tables when it starts threads again after a fork, even while others run.
//!
//! # Why it can be undone at any time
//! The callback stays: OpenBLAS reads the pointer once to test it and once to call it, so it must never become null. A callback that
//! shall not share runs the jobs on OpenBLAS's own threads, as OpenBLAS would. It does the same if there are too few places, or no
//! thread can be started.
//!
//! # Forks
//! A fork waits until no region is running, and regions wait until it is over. The child has no helpers, so it leaves the pool of
//! its parent alone and makes a new one.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long a helper spins for the next region before it sleeps: longer than it takes to wake one, so that products that follow each
/// other, or a short step, wait for none.
const EAGER: Duration = Duration::from_micros(60);

type DoJob = unsafe extern "C" fn(place: c_int, job: *mut Job, extra: c_int);
type Callback = unsafe extern "C" fn(sync: c_int, DoJob, count: c_int, size: usize, jobs: *mut Job, extra: c_int);

/// The first fields of OpenBLAS's `blas_queue_t`.
#[repr(C)]
struct Job {
    routine: *mut c_void,
    position: isize,
    assigned: isize,
    args: *mut c_void,
    ranges: [*mut c_void; 2],
    /// Scratch memory; if the first is null, OpenBLAS sets both.
    scratch: [*mut c_void; 2],
    next: *mut Job,
}

/// What is used of the library.
struct Library {
    /// Starts jobs, from `position`, on the library's own threads; waits for them.
    start: unsafe extern "C" fn(position: isize, jobs: *mut Job) -> c_int,
    wait: unsafe extern "C" fn(count: isize, jobs: *mut Job) -> c_int,
    allocate: unsafe extern "C" fn(kind: c_int) -> *mut c_void,
    /// The number of its own threads, plus 1.
    threads: &'static AtomicI32,
    places: usize,
}

static LIBRARY: OnceLock<Library> = OnceLock::new();
static SHARING: AtomicBool = AtomicBool::new(false);
/// The pool of this process; null until the first region, and in a forked process.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(null_mut());

struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    /// Scratch memory of each place, or null.
    scratch: Vec<AtomicPtr<c_void>>,
}

struct State {
    /// Whether a job may be running there, and the place's helper.
    places: Vec<(bool, Option<Helper>)>,
    regions: usize,
    /// Helpers that belong to a running region.
    helping: usize,
    forks: usize,
    waiting: usize,
}

#[derive(Clone)]
struct Helper {
    /// The next job, or null.
    task: Arc<AtomicPtr<Task>>,
    thread: Thread,
}

/// A job for a thread; it lives on the stack of the region's caller.
struct Task {
    do_job: DoJob,
    job: *mut Job,
    extra: c_int,
    place: usize,
    /// Jobs of helpers that have not ended.
    left: *const AtomicUsize,
}

impl Task {
    /// # Safety
    /// The job is alive, and nobody else uses it or its place.
    unsafe fn run(&self, library: &Library, pool: &Pool) {
        // SAFETY: as above. OpenBLAS may use a job again, so its pointers to scratch memory do not stay.
        unsafe {
            let own = (*self.job).scratch;
            if own[0].is_null() {
                let mut scratch = pool.scratch[self.place].load(Ordering::Relaxed);
                if scratch.is_null() {
                    scratch = (library.allocate)(2);
                    pool.scratch[self.place].store(scratch, Ordering::Relaxed);
                }
                (*self.job).scratch[0] = scratch;
            }
            (self.do_job)(self.place as c_int, self.job, self.extra);
            (*self.job).scratch = own;
        }
    }
}

impl Helper {
    fn start(place: usize, library: &'static Library, pool: &'static Pool) -> Option<Helper> {
        let task = Arc::new(AtomicPtr::new(null_mut()));
        let tasks = Arc::clone(&task);
        let serve = move || {
            loop {
                let task: *mut Task = next(&tasks);
                // SAFETY: the region waits until `left` is 0, which is the last that is touched.
                unsafe {
                    (*task).run(library, pool);
                    (*(*task).left).fetch_sub(1, Ordering::Release);
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("schuss-blas-{place}")).spawn(serve).ok()?;
        Some(Helper { task, thread: thread.thread().clone() })
    }
}

/// Waits for the next task: spins, then sleeps.
fn next(tasks: &AtomicPtr<Task>) -> *mut Task {
    let since = Instant::now();
    loop {
        for _ in 0..100 {
            let task = tasks.load(Ordering::Acquire);
            if !task.is_null() {
                tasks.store(null_mut(), Ordering::Relaxed);
                return task;
            }
            std::hint::spin_loop();
        }
        if since.elapsed() > EAGER {
            std::thread::park();
        }
    }
}

/// What a region has for itself: a place for its caller, and helpers with theirs, or none: then OpenBLAS's own threads do the rest.
struct Team {
    caller: usize,
    helpers: Vec<(usize, Helper)>,
}

impl Pool {
    fn new(places: usize) -> Pool {
        let state = State {
            places: (0..places).map(|_| (false, None)).collect(),
            regions: 0,
            helping: 0,
            forks: 0,
            waiting: 0,
        };
        Pool {
            state: Mutex::new(state),
            changed: Condvar::new(),
            scratch: (0..places).map(|_| AtomicPtr::new(null_mut())).collect(),
        }
    }

    /// This process's pool.
    fn get(library: &Library) -> &'static Pool {
        let current = POOL.load(Ordering::Acquire);
        // SAFETY: a pool that was published is never freed.
        if let Some(pool) = unsafe { current.as_ref() } {
            return pool;
        }
        let new = Box::into_raw(Box::new(Pool::new(library.places)));
        match POOL.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just made, and never freed.
            Ok(_) => unsafe { &*new },
            Err(other) => {
                // SAFETY: never published; the other one is, and is never freed.
                unsafe {
                    drop(Box::from_raw(new));
                    &*other
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` returns something.
    fn until<T>(&self, mut done: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&mut state) {
                return value;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn enter(&'static self, wanted: usize, library: &'static Library) -> Team {
        self.until(|state| if state.forks == 0 { state.team(wanted, library, self) } else { None })
    }

    fn leave(&self, team: Team) {
        self.change(|state| {
            state.places[team.caller].0 = false;
            for (place, _) in &team.helpers {
                state.places[*place].0 = false;
            }
            state.regions -= 1;
            state.helping -= team.helpers.len();
        });
    }
}

impl State {
    /// A place and helpers, if the region need not wait for others.
    fn team(&mut self, wanted: usize, library: &'static Library, pool: &'static Pool) -> Option<Team> {
        let own = (library.threads.load(Ordering::Relaxed) - 1).max(0) as usize;
        let sharing = SHARING.load(Ordering::Relaxed);
        // As many helpers at a time as OpenBLAS has threads: more would only wait for CPUs.
        if sharing && self.helping > 0 && self.helping + wanted > own {
            return None;
        }
        let mut free = (own..self.places.len()).rev().filter(|place| !self.places[*place].0);
        let caller = free.next()?;
        let hired: Vec<usize> = if sharing { free.take(wanted).collect() } else { Vec::new() };
        let mut helpers = Vec::new();
        if hired.len() == wanted {
            for place in hired {
                let helper = &mut self.places[place].1;
                if helper.is_none() {
                    *helper = Helper::start(place, library, pool);
                }
                helpers.extend(helper.clone().map(|helper| (place, helper)));
            }
        }
        if helpers.len() < wanted {
            helpers.clear();
        }
        for place in helpers.iter().map(|(place, _)| *place).chain([caller]) {
            self.places[place].0 = true;
        }
        self.regions += 1;
        self.helping += helpers.len();
        Some(Team { caller, helpers })
    }
}

/// The callback.
unsafe extern "C" fn region(_sync: c_int, do_job: DoJob, count: c_int, size: usize, jobs: *mut Job, extra: c_int) {
    let Some(library) = LIBRARY.get() else { unreachable!("the callback is set after the library") };
    let pool = Pool::get(library);
    let wanted = count as usize - 1;
    let team = pool.enter(wanted, library);
    let left = AtomicUsize::new(team.helpers.len());
    let task =
        |number: usize, place| Task { do_job, job: jobs.wrapping_byte_add(number * size), extra, place, left: &left };
    let mut tasks: Vec<Task> = team.helpers.iter().enumerate().map(|(i, (place, _))| task(i + 1, *place)).collect();
    for ((_, helper), task) in team.helpers.iter().zip(&mut tasks) {
        helper.task.store(task, Ordering::Release);
        helper.thread.unpark();
    }
    // SAFETY: OpenBLAS's jobs stay until the callback returns, and each has its own place.
    unsafe {
        let alone = team.helpers.len() < wanted;
        let rest = jobs.wrapping_byte_add(size);
        if alone {
            (library.start)(1, rest);
        }
        task(0, team.caller).run(library, pool);
        if alone {
            (library.wait)(wanted as isize, rest);
        }
    }
    let mut rounds = 0u32;
    while left.load(Ordering::Acquire) > 0 {
        rounds += 1;
        // Jobs of a region end at about the same time; a helper that takes longer was preempted, so yield this CPU to it.
        if rounds < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
    pool.leave(team);
}

#[cfg(unix)]
mod forks {
    use super::*;

    pub extern "C" fn prepare() {
        if let Some(library) = LIBRARY.get() {
            let pool = Pool::get(library);
            pool.change(|state| state.forks += 1);
            pool.until(|state| (state.regions == 0).then_some(()));
        }
    }

    pub extern "C" fn parent() {
        if let Some(library) = LIBRARY.get() {
            Pool::get(library).change(|state| state.forks -= 1);
        }
    }

    pub extern "C" fn child() {
        POOL.store(null_mut(), Ordering::Release);
    }
}

/// Lets OpenBLAS run its regions on threads of this module, or not any more. `library` has the addresses of what is used of it: the
/// function that sets the callback, `exec_blas_async`, `exec_blas_async_wait`, `blas_memory_alloc`, `blas_num_threads`; and the
/// number of its places.
///
/// # Safety
/// The addresses are right.
#[pyfunction]
pub fn share_threads_with_blas(share: bool, library: Option<([usize; 5], usize)>) {
    SHARING.store(share, Ordering::Relaxed);
    let (Some((addresses, places)), None) = (library, LIBRARY.get()) else { return };
    let [set, start, wait, allocate, threads] = addresses.map(|address| address as *const c_void);
    // SAFETY: the caller has looked up these names in OpenBLAS, where they have these types.
    unsafe {
        let library = Library {
            start: std::mem::transmute::<*const c_void, unsafe extern "C" fn(isize, *mut Job) -> c_int>(start),
            wait: std::mem::transmute::<*const c_void, unsafe extern "C" fn(isize, *mut Job) -> c_int>(wait),
            allocate: std::mem::transmute::<*const c_void, unsafe extern "C" fn(c_int) -> *mut c_void>(allocate),
            threads: &*threads.cast(),
            places,
        };
        if LIBRARY.set(library).is_ok() {
            #[cfg(unix)]
            schuss::pthread_atfork(Some(forks::prepare), Some(forks::parent), Some(forks::child));
            std::mem::transmute::<*const c_void, unsafe extern "C" fn(Callback)>(set)(region);
        }
    }
}
