//! Processes that share an optimizer's arrays: they agree on a step, and exchange numbers, gradients and parameters.
//!
//! The functions of the message-passing package that are called here run no Python code, so an interrupt comes before or after
//! a step. Knows neither optimizers nor that package.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;
use schuss::{Peers, padded_length, try_collect};

use crate::callbacks::call;
use crate::group::{self, MatrixShape};
use crate::memory::{List, collect, no_memory, push};
use crate::pinned::Pinned;

mod gradients;
mod params;

use gradients::Gradients;
pub use params::ParamExchange;

/// Where a process is in a step; the discriminants are those of `phase` in Python.
const PENDING: u8 = 0;
const TOGETHER: u8 = 1;
const DISAGREED: u8 = 2;
const BROKEN: u8 = 3;

/// Memory that Python allocated for messages, or an array of sums.
struct Buffer(Py<PyArray1<u8>>, *mut u8);

// SAFETY: the pointer is dereferenced only during a step, under the optimizer's lock.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn new(array: Bound<'_, PyArray1<u8>>) -> Buffer {
        let data = array.data();
        Buffer(array.unbind(), data)
    }
}

/// The functions and the memory of an exchange.
struct Connection {
    /// The all-reduce, its place-holder for input in place, the type of the numbers, and the operation.
    combine: [Py<PyAny>; 4],
    /// Memory for the numbers that are combined at a time.
    numbers: Py<PyArray1<f64>>,
    /// For each bucket what starts the exchange of its gradients, and of its parameters; it returns a request.
    starts: [Vec<Py<PyAny>>; 2],
    /// Two messages each: gradients to send, and received; parameters to send, and received.
    messages: [[Buffer; 2]; 4],
}

/// Where the parameters are.
struct Params(Vec<*mut u8>);

// SAFETY: as above.
unsafe impl Send for Params {}
// SAFETY: as above.
unsafe impl Sync for Params {}

/// How processes share the arrays of an optimizer.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Shards {
    layout: schuss::Shards,
    rank: usize,
    ranks: usize,
    /// Gradients that a step adds.
    count: usize,
    /// Where each array begins in one of `earlier`, and the bytes of all.
    offsets: Vec<usize>,
    whole: usize,
    params: Params,
    gradients: Mutex<Gradients>,
    connection: OnceLock<Connection>,
    phase: AtomicU8,
    rounds: AtomicU64,
    failure: Mutex<Option<PyErr>>,
}

/// An error that Python replaces by one that says in what the processes differ.
fn disagreement() -> PyErr {
    PyRuntimeError::new_err("the processes do not take the same step")
}

#[pymethods]
impl Shards {
    /// For process `rank` of arrays that are cut at these elements; a step adds `count` gradients.
    #[new]
    fn new(
        rank: usize,
        params: List<Bound<'_, PyUntypedArray>>,
        cuts: List<List<usize>>,
        bucket: usize,
        count: usize,
    ) -> PyResult<Shards> {
        let cuts = try_collect(cuts.0.into_iter().map(|List(cuts)| cuts)).map_err(no_memory)?;
        let pinned = collect(params.0.iter().map(Pinned::new))?;
        let types = try_collect(pinned.iter().map(|param| param.dtype)).map_err(no_memory)?;
        let ranks = cuts.first().map_or(1, |cuts| cuts.len().saturating_sub(1));
        let fits = |(param, cuts): (&Pinned, &Vec<usize>)| {
            cuts.len() == ranks + 1 && cuts.is_sorted() && cuts[0] == 0 && cuts[ranks] == param.len
        };
        if rank >= ranks || cuts.len() != pinned.len() || !pinned.iter().zip(&cuts).all(fits) {
            return Err(PyRuntimeError::new_err("the cuts do not fit the parameters"));
        }
        let (mut offsets, mut starts, mut whole, mut own) = (Vec::new(), Vec::new(), 0, 0);
        for (param, cuts) in pinned.iter().zip(&cuts) {
            let size = param.dtype.compute().size();
            push(&mut offsets, whole)?;
            push(&mut starts, own)?;
            whole += padded_length(param.len * size);
            own += padded_length((cuts[rank + 1] - cuts[rank]) * size);
        }
        Ok(Shards {
            layout: schuss::Shards::new(rank, types, cuts, bucket, count).map_err(no_memory)?,
            params: Params(try_collect(pinned.iter().map(|param| param.data)).map_err(no_memory)?),
            rank,
            ranks,
            count,
            offsets,
            whole,
            gradients: Mutex::new(Gradients::new(own, &starts)?),
            connection: OnceLock::new(),
            phase: AtomicU8::new(PENDING),
            rounds: AtomicU64::new(0),
            failure: Mutex::new(None),
        })
    }

    /// For each bucket and process, the bytes of its part of a sum of gradients and of the parameters.
    #[getter]
    fn bytes(&self) -> PyResult<Vec<Vec<(usize, usize)>>> {
        let pairs = |bucket| try_collect(self.layout.bytes(bucket).iter().map(|&[one, other]| (one, other)));
        collect((0..self.layout.buckets()).map(|bucket| pairs(bucket).map_err(no_memory)))
    }

    /// The sums of gradients that each process sends.
    #[getter]
    fn sums(&self) -> Vec<usize> {
        self.layout.sums()
    }

    /// Bytes of the memory for this process's gradients.
    #[getter]
    fn gradient_bytes(&self) -> usize {
        8 * self.locked().block.len()
    }

    /// Where the process is: 0 before the step that all take together, 1 in it or after it, 2 if they do not take the same
    /// step, 3 if the exchange has failed.
    #[getter]
    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    /// The steps that all processes have begun together: each has used up the gradients before it.
    #[getter]
    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Sets the functions and the memory of the exchange, once.
    fn connect(
        &self,
        combine: [Py<PyAny>; 4],
        numbers: Py<PyArray1<f64>>,
        starts: [List<Py<PyAny>>; 2],
        messages: [[Bound<'_, PyArray1<u8>>; 2]; 4],
    ) -> PyResult<()> {
        let messages = messages.map(|pair| pair.map(Buffer::new));
        let starts = starts.map(|List(functions)| functions);
        let made = self.connection.set(Connection { combine, numbers, starts, messages });
        made.map_err(|_| PyRuntimeError::new_err("these shards are connected already"))
    }

    /// Begins a call that all processes make, after `earlier` sums of gradients.
    fn begin(&self, earlier: List<Bound<'_, PyArray1<u8>>>) -> PyResult<()> {
        if self.phase() == BROKEN {
            return Err(PyRuntimeError::new_err(
                "the exchange failed in the middle of a step, so parameters and state are not usable; make a new \
                 optimizer and load a checkpoint",
            ));
        }
        if earlier.0.iter().any(|memory| memory.len() != self.whole) {
            return Err(PyRuntimeError::new_err("the sums do not fit the parameters"));
        }
        let earlier = try_collect(earlier.0.into_iter().map(Buffer::new)).map_err(no_memory)?;
        let before = std::mem::replace(&mut self.locked().earlier, earlier);
        self.phase.store(PENDING, Ordering::Relaxed);
        drop(before);
        Ok(())
    }

    /// Tells the other processes that this one does not take part.
    fn refuse(&self, py: Python<'_>) -> PyResult<()> {
        self.vote(py, 2).map(|_| self.phase.store(DISAGREED, Ordering::Relaxed))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(connection) = self.connection.get() else { return Ok(()) };
        connection
            .combine
            .iter()
            .chain(connection.starts.iter().flatten())
            .try_for_each(|object| visit.call(object))?;
        visit.call(&connection.numbers)?;
        connection.messages.iter().flatten().try_for_each(|memory| visit.call(&memory.0))
    }
}

impl Shards {
    /// The part of an array that this process updates.
    pub fn part(&self, array: usize) -> std::ops::Range<usize> {
        self.layout.part(array)
    }

    /// Whether an array is where it was when this was made.
    pub fn is_at(&self, array: usize, data: *const u8) -> bool {
        self.params.0.get(array).is_some_and(|own| own.cast_const() == data)
    }

    /// The processes as the driver sees them.
    pub fn peers(slf: &Py<Shards>, py: Python<'_>) -> Peers {
        let (shards, own) = (slf.clone_ref(py), slf.get());
        let combine = Box::new(move |numbers: &mut [f64]| {
            // A failure is raised at the end of the step.
            Python::attach(|py| _ = shards.get().combine(py, numbers));
        });
        Peers { rank: own.rank, ranks: own.ranks, combine }
    }

    /// Says that a step has begun.
    pub fn begun(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Agrees with the other processes on the next step, of which `fingerprint` is a hash; an error if they do not.
    pub fn agree(&self, py: Python<'_>, fingerprint: u64) -> PyResult<()> {
        let same = self.vote(py, fingerprint | 1)?;
        self.phase.store(if same { TOGETHER } else { DISAGREED }, Ordering::Relaxed);
        if same { Ok(()) } else { Err(disagreement()) }
    }

    /// Begins anew: a step follows in the same call, on which the processes also agree.
    pub fn after_agreement(&self) {
        self.phase.store(PENDING, Ordering::Relaxed);
    }

    /// Whether all processes have sent this number.
    fn vote(&self, py: Python<'_>, number: u64) -> PyResult<bool> {
        let mut votes = try_collect((0..self.ranks).map(|_| 0.0)).map_err(no_memory)?;
        votes[self.rank] = f64::from_bits(number);
        self.combine(py, &mut votes)?;
        Ok(votes.iter().all(|vote| vote.to_bits() == number))
    }

    fn combine(&self, py: Python<'_>, numbers: &mut [f64]) -> PyResult<()> {
        let connection = self.connected()?;
        let [function, in_place, dtype, operation] = &connection.combine;
        let memory = connection.numbers.bind(py);
        for part in numbers.chunks_mut(memory.len().max(1)) {
            // SAFETY: this memory is for this function alone, which runs in one thread at a time.
            unsafe { &mut memory.as_slice_mut()?[..part.len()] }.copy_from_slice(part);
            self.called(py, |py| {
                let count = part.len().into_pyobject(py)?;
                let message = PyList::new(py, [memory.as_any(), count.as_any(), dtype.bind(py)])?;
                call(function.bind(py), "__call__", (in_place, message, operation), None)
            })?;
            // SAFETY: as above.
            part.copy_from_slice(unsafe { &memory.as_slice()?[..part.len()] });
        }
        Ok(())
    }

    /// The result of a function of the exchange. After one that failed, nothing is exchanged any more.
    fn called<'py>(
        &self,
        py: Python<'py>,
        function: impl FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check(py)?;
        function(py).inspect_err(|error| {
            self.phase.store(BROKEN, Ordering::Relaxed);
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone_ref(py));
        })
    }

    /// Raises the failure of the exchange, if any.
    pub fn check(&self, py: Python<'_>) -> PyResult<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map_or(Ok(()), |error| Err(error.clone_ref(py)))
    }

    fn connected(&self) -> PyResult<&Connection> {
        self.connection.get().ok_or_else(|| PyRuntimeError::new_err("these shards are not connected yet"))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Gradients> {
        self.gradients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started<'py>(&self, py: Python<'py>, kind: usize, bucket: usize) -> PyResult<Bound<'py, PyAny>> {
        let function = &self.connected()?.starts[kind][bucket];
        self.called(py, |py| call(function.bind(py), "__call__", (), None))
    }

    fn wait(&self, request: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(request) = request else { return Ok(()) };
        self.called(request.py(), |_| call(&request, "Wait", (), None)).map(|_| ())
    }

    /// An exchange of parameters.
    pub fn params<'a, 'py>(&'a self, py: Python<'py>, threads: usize) -> ParamExchange<'a, 'py> {
        ParamExchange::new(self, py, threads)
    }

    /// Number of buckets.
    pub fn buckets(&self) -> usize {
        self.layout.buckets()
    }

    /// The layout, for the driver.
    pub fn layout(&self) -> &schuss::Shards {
        &self.layout
    }
}

/// Elements between two places at which an array may be cut, if its rule sees it as this matrix.
#[pyfunction]
#[pyo3(signature = (matrix))]
pub fn cut_size(matrix: Option<MatrixShape>) -> usize {
    schuss::cut_size(matrix.map(group::matrix))
}
