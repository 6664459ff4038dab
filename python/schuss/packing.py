"""Packing: the arrays of a structure as views of one block of memory, which steps then update as few long arrays.

Nothing here knows an optimizer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss._arrays import checks, layout, trees
from schuss._core.given_groups import are_groups, listed

_LINE = 64


def pack(params: Any) -> Any:
    """The same structure with its arrays copied into one block of memory, one behind the other.

    A step over thousands of small arrays takes most of its time for each array by itself. Neighbours in a block are
    updated as one array, if they are in the same group and their gradients are neighbours too: those that
    ``opt.grads`` has are. Results have the same bits. Rules that need more than one pass over an array, such as
    `LARS`, bfloat16 states and arrays with master weights still go through the arrays one by one, and int8 states
    through some of them at a time.

    Each step looks whether views have been made read-only, reshaped or retyped. Of thousands it looks at 512, and the
    next step at the next ones; until then it updates the block as before.

    Parameters
    ----------
    params : array, list, tuple, dict, or list of group dicts
        Arrays of float32, float64, float16 or bfloat16, with any strides.

    Returns
    -------
    structure
        Views of the block in the same structure; arrays of each dtype follow each other. Use them in the model from now
        on: the arrays that were passed are no longer updated.

    Raises
    ------
    TypeError, ValueError
        An entry is not such an array, or two share memory; the message names it.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> params = schuss.pack([np.ones((2, 2)), np.ones(3)])
    >>> opt = schuss.SGD(params, lr=0.5)
    >>> for own in opt.grads:
    ...     own += 1.0
    >>> opt.step(zero_grads=True)
    True
    >>> params[1]
    array([0.5, 0.5, 0.5])
    """
    params = listed(params)
    grouped = are_groups(params)
    structures = [entry["params"] for entry in params] if grouped else [params]
    named: list[tuple[str, np.ndarray]] = []
    templates = []
    for i, structure in enumerate(structures):
        where = f"params[{i}]['params']" if grouped else "params"
        template, leaves = trees.flatten(structure, where, len(named))
        named += [(where + suffix, array) for suffix, array in leaves]
        templates.append(template)
    for place, array in named:
        checks.check_known(place, array)
    checks.check_no_overlap(named)
    views = _block([array for _, array in named])
    built = [trees.build(template, views.__getitem__) for template in templates]
    if not grouped:
        return built[0]
    return [{**entry, "params": own} for entry, own in zip(params, built, strict=True)]


def _block(arrays: list[np.ndarray]) -> dict[int, np.ndarray]:
    """Copies of arrays that follow each other, those of each dtype by themselves."""
    dtypes = dict.fromkeys(array.dtype for array in arrays)
    size = sum(array.nbytes for array in arrays) + _LINE * len(dtypes)
    block = layout.owned(np.empty(size, np.uint8))
    views, at = {}, 0
    for dtype in dtypes:
        at += -(block.ctypes.data + at) % _LINE
        for i, array in enumerate(arrays):
            if array.dtype == dtype:
                fortran = array.flags.f_contiguous and not array.flags.c_contiguous
                view = block[at : at + array.nbytes].view(dtype)
                views[i] = view.reshape(array.shape, order="F" if fortran else "C")
                views[i][...] = array
                at += array.nbytes
    return views
