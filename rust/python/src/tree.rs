//! The structure that gradients must have: an array, or nested lists, tuples and dicts. Knows no array type.

use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::callbacks::value_of;
use crate::lists;
use crate::memory::{List, collect, no_memory, push};

/// A structure; its leaves are arrays, numbered in order.
pub enum Tree {
    Leaf,
    /// A None in the place of an array, which gradients have too.
    Hole,
    /// A list or tuple of this many arrays, the most common structure.
    Leaves(usize),
    Sequence(Vec<Tree>),
    Mapping(Vec<(Py<PyAny>, Tree)>),
}

impl Tree {
    /// Reads a template: integers in lists, tuples and dicts.
    pub fn new(template: &Bound<'_, PyAny>) -> PyResult<Tree> {
        if let Some(items) = items(template) {
            let trees = collect(items.map(|item| Tree::new(&item?)))?;
            let flat = trees.iter().all(|tree| matches!(tree, Tree::Leaf));
            Ok(if flat { Tree::Leaves(trees.len()) } else { Tree::Sequence(trees) })
        } else if let Ok(dict) = template.cast::<PyDict>() {
            let items = dict.iter().map(|(key, value)| Ok((key.unbind(), Tree::new(&value)?)));
            Ok(Tree::Mapping(collect(items)?))
        } else {
            Ok(if template.is_none() { Tree::Hole } else { Tree::Leaf })
        }
    }

    /// Visits the keys for the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Tree::Leaf | Tree::Hole | Tree::Leaves(_) => Ok(()),
            Tree::Sequence(trees) => trees.iter().try_for_each(|tree| tree.traverse(visit)),
            Tree::Mapping(items) => items.iter().try_for_each(|(key, tree)| {
                visit.call(key)?;
                tree.traverse(visit)
            }),
        }
    }

    /// Number of arrays.
    fn len(&self) -> usize {
        match self {
            Tree::Leaf => 1,
            Tree::Hole => 0,
            Tree::Leaves(count) => *count,
            Tree::Sequence(trees) => trees.iter().map(Tree::len).sum(),
            Tree::Mapping(items) => items.iter().map(|(_, tree)| tree.len()).sum(),
        }
    }

    /// Whether a structure that matches this one begins with these arrays, in order; takes them from the slice.
    pub fn holds(&self, object: &Bound<'_, PyAny>, arrays: &mut &[Py<PyAny>]) -> bool {
        let next = |arrays: &mut &[Py<PyAny>], object: *mut ffi::PyObject| {
            arrays.split_off_first().is_some_and(|array| array.as_ptr() == object)
        };
        match self {
            Tree::Leaf => next(arrays, object.as_ptr()),
            Tree::Hole => object.is_none(),
            Tree::Leaves(count) => {
                let wanted = arrays.split_off(..*count);
                wanted.is_some_and(|wanted| object.cast::<PyList>().is_ok_and(|list| lists::has(list, wanted)))
            }
            Tree::Sequence(trees) => items(object).is_some_and(|items| {
                items.len() == trees.len()
                    && trees.iter().zip(items).all(|(tree, item)| item.is_ok_and(|item| tree.holds(&item, arrays)))
            }),
            Tree::Mapping(items) => {
                let Ok(dict) = object.cast::<PyDict>() else { return false };
                // In the order of the dict, which is nearly always that of this structure: a look-up takes longer.
                let (mut place, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
                with_critical_section(dict, || {
                    dict.len() == items.len()
                        && items.iter().all(|(own, tree)| {
                            // SAFETY: a dict that nobody else changes; the references are borrowed, and used before any code runs.
                            let found = unsafe {
                                ffi::PyDict_Next(dict.as_ptr(), &raw mut place, &raw mut key, &raw mut value)
                            };
                            if found != 0 && key == own.as_ptr() && matches!(tree, Tree::Leaf) {
                                return next(arrays, value);
                            }
                            let value = dict.get_item(own.bind(object.py()));
                            value.is_ok_and(|value| value.is_some_and(|value| tree.holds(&value, arrays)))
                        })
                })
            }
        }
    }

    /// The items of a list of so many as this structure has, if it is nothing but a list of arrays.
    ///
    /// # Safety
    /// As for [`lists::items`].
    pub unsafe fn items<'a>(&self, object: &'a Bound<'_, PyAny>) -> Option<&'a [Py<PyAny>]> {
        let Tree::Leaves(count) = self else { return None };
        // SAFETY: upheld by the caller.
        unsafe { lists::items(object.cast::<PyList>().ok()?) }.filter(|items| items.len() == *count)
    }

    /// Collects the arrays of a structure that matches this one, in order; false if it does not. A None stands for a None in the
    /// place of each array of that part; with `partial` so does a key that a dict lacks.
    pub fn collect(&self, object: &Bound<'_, PyAny>, partial: bool, into: &mut Vec<Py<PyAny>>) -> PyResult<bool> {
        match self {
            _ if object.is_none() => {
                schuss::try_extend(into, (0..self.len()).map(|_| object.clone().unbind())).map_err(no_memory)?;
            }
            Tree::Hole => return Ok(false),
            Tree::Leaf => push(into, object.clone().unbind())?,
            Tree::Leaves(count) => {
                let Some(items) = items(object).filter(|items| items.len() == *count) else { return Ok(false) };
                for item in items {
                    let Ok(item) = item else { return Ok(false) };
                    push(into, item.unbind())?;
                }
            }
            Tree::Sequence(trees) => {
                let Some(items) = items(object).filter(|items| items.len() == trees.len()) else { return Ok(false) };
                for (tree, item) in trees.iter().zip(items) {
                    let Ok(item) = item else { return Ok(false) };
                    if !tree.collect(&item, partial, into)? {
                        return Ok(false);
                    }
                }
            }
            Tree::Mapping(items) => {
                let Ok(dict) = object.cast::<PyDict>() else { return Ok(false) };
                let mut found = 0;
                for (key, tree) in items {
                    let value = match value_of(dict, key.bind(object.py()))? {
                        Some(value) => value,
                        None if partial => {
                            let nones = (0..tree.len()).map(|_| object.py().None());
                            schuss::try_extend(into, nones).map_err(no_memory)?;
                            continue;
                        }
                        None => return Ok(false),
                    };
                    found += 1;
                    if !tree.collect(&value, partial, into)? {
                        return Ok(false);
                    }
                }
                return Ok(dict.len() == found);
            }
        }
        Ok(true)
    }
}

/// A list or a dict, and what it has: arrays and other containers, and None for all else.
pub type Container = (Py<PyAny>, List<Option<Py<PyAny>>>);

/// The items that a list has now, and those that it had.
pub type Items<'a> = (&'a [Py<PyAny>], &'a [Option<Py<PyAny>>]);

/// The containers that an optimizer was given its parameters in, to see whether arrays in them have been replaced.
#[derive(Default)]
pub struct Given(Vec<Container>);

impl Given {
    pub fn new(containers: Vec<Container>) -> Given {
        Given(containers)
    }

    /// The items of the only container, if it is a list, and what it had.
    ///
    /// # Safety
    /// As for [`lists::items`].
    pub unsafe fn items<'a>(&'a self, py: Python<'a>) -> Option<Items<'a>> {
        let [(container, List(had))] = &self.0[..] else { return None };
        // SAFETY: upheld by the caller.
        unsafe { lists::items(container.bind(py).cast::<PyList>().ok()?) }.map(|items| (items, &had[..]))
    }

    /// Whether each container still has the same arrays and containers.
    pub fn unchanged(&self, py: Python<'_>) -> bool {
        self.0.iter().all(|(container, List(values))| {
            let same = |value: *mut ffi::PyObject, known: &Option<Py<PyAny>>| {
                known.as_ref().is_none_or(|known| known.as_ptr() == value)
            };
            let container = container.bind(py);
            if let Ok(list) = container.cast::<PyList>() {
                return lists::has(list, values);
            }
            let (mut place, mut value, mut count) = (0, std::ptr::null_mut(), 0);
            let mut next = || {
                // SAFETY: a dict that nobody else changes during the loop; the references are borrowed.
                unsafe { ffi::PyDict_Next(container.as_ptr(), &raw mut place, std::ptr::null_mut(), &raw mut value) }
                    .ne(&0)
                    .then_some(value)
            };
            with_critical_section(container, || {
                while let Some(value) = next() {
                    if !values.get(count).is_some_and(|known| same(value, known)) {
                        return false;
                    }
                    count += 1;
                }
                count == values.len()
            })
        })
    }

    /// Visits the containers for the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.iter().try_for_each(|(container, List(values))| {
            visit.call(container)?;
            values.iter().try_for_each(|value| visit.call(value))
        })
    }
}

/// The items of a list or a tuple. Code run by a dict's keys or, without the GIL, another thread may shorten the list meanwhile: an
/// item that is gone is an error.
fn items<'a, 'py>(
    object: &'a Bound<'py, PyAny>,
) -> Option<impl ExactSizeIterator<Item = PyResult<Bound<'py, PyAny>>> + 'a> {
    let list = object.cast::<PyList>().ok();
    let tuple = object.cast::<PyTuple>().ok();
    let length = list.map(|list| list.len()).or(tuple.map(|tuple| tuple.len()))?;
    Some((0..length).map(move |i| match (list, tuple) {
        (Some(list), _) => list.get_item(i),
        (_, Some(tuple)) => tuple.get_item(i),
        _ => unreachable!("it has a length"),
    }))
}
