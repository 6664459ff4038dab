//! The structure that gradients must have: an array, or lists, tuples and dicts of structures.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

/// A structure whose leaves are array numbers.
pub enum Tree {
    Leaf(usize),
    Sequence(Vec<Tree>),
    Mapping(Vec<(Py<PyAny>, Tree)>),
}

impl Tree {
    /// Reads a template: integers in lists, tuples and dicts.
    pub fn new(template: &Bound<'_, PyAny>) -> PyResult<Tree> {
        if let Ok(list) = template.cast::<PyList>() {
            Ok(Tree::Sequence(list.iter().map(|item| Tree::new(&item)).collect::<PyResult<_>>()?))
        } else if let Ok(tuple) = template.cast::<PyTuple>() {
            Ok(Tree::Sequence(tuple.iter().map(|item| Tree::new(&item)).collect::<PyResult<_>>()?))
        } else if let Ok(dict) = template.cast::<PyDict>() {
            let items = dict.iter().map(|(key, value)| Ok((key.unbind(), Tree::new(&value)?)));
            Ok(Tree::Mapping(items.collect::<PyResult<_>>()?))
        } else {
            Ok(Tree::Leaf(template.extract()?))
        }
    }

    /// Calls `leaf` with the number and object of every array of a structure like this one; false when it is unlike.
    pub fn visit<'py>(
        &self,
        py: Python<'py>,
        object: Bound<'py, PyAny>,
        leaf: &mut impl FnMut(usize, Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<bool> {
        match self {
            Tree::Leaf(number) => leaf(*number, object).map(|()| true),
            Tree::Sequence(trees) => {
                if let Ok(list) = object.cast::<PyList>() {
                    if list.len() != trees.len() {
                        return Ok(false);
                    }
                    for (i, tree) in trees.iter().enumerate() {
                        // What runs for a leaf may shorten the list.
                        let Ok(item) = list.get_item(i) else { return Ok(false) };
                        if !tree.visit(py, item, leaf)? {
                            return Ok(false);
                        }
                    }
                    Ok(true)
                } else if let Ok(tuple) = object.cast::<PyTuple>() {
                    if tuple.len() != trees.len() {
                        return Ok(false);
                    }
                    for (tree, item) in trees.iter().zip(tuple.iter()) {
                        if !tree.visit(py, item, leaf)? {
                            return Ok(false);
                        }
                    }
                    Ok(true)
                } else {
                    Ok(false)
                }
            }
            Tree::Mapping(items) => {
                let Ok(dict) = object.cast::<PyDict>() else { return Ok(false) };
                if dict.len() != items.len() {
                    return Ok(false);
                }
                for (key, tree) in items {
                    let Some(value) = dict.get_item(key.bind(py))? else { return Ok(false) };
                    if !tree.visit(py, value, leaf)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }
}
