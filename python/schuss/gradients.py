"""Gradient tools: norms, clipping and centralization of structures of arrays, and groups for layerwise optimizers.

Clipping and centralization inside a step (``max_grad_norm``, `schuss.Ranger`) give the same bits as calling these
functions before it, if gradients have the dtype that the update is computed in; other gradients are rounded once more.
Nothing here knows an optimizer class.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._arrays.layout import of_outputs
from schuss._backends import tools
from schuss._core import validate
from schuss._core.hyperparameters import Layout, check_layout


def _writable(grads: Any) -> list[np.ndarray]:
    arrays = trees.entries(grads)
    if not _schuss.are_plain(arrays, written=True):
        _, leaves = trees.flatten(grads, "grads")
        for suffix, array in leaves:
            checks.check_written(f"grads{suffix}", array, checks.STEP_WITH_IT)
        checks.check_no_overlap((f"grads{suffix}", array) for suffix, array in leaves)
        arrays = [array for _, array in leaves]
    return arrays


def _readable(place: str, array: Any) -> np.ndarray:
    if type(array) in (float, int):  # the gradient of a 0-d array
        array = np.float64(array)
    if not isinstance(array, np.ndarray) and not hasattr(array, "__array__"):
        raise TypeError(f"{place} must be an array, got {trees.kind(array)}")
    array = np.asanyarray(array)
    return checks.as_gradient(place, array, place, array)


def global_norm(grads: Any) -> float:
    """The Euclidean norm of all elements of a structure.

    Squares are summed in float64, in an order that depends only on shapes and memory order, not on CPU or threads.

    Parameters
    ----------
    grads : array, list, tuple or dict
        Arrays of float32, float64, float16 or bfloat16.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        An entry is not such an array; the message names it.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> schuss.global_norm({"w": np.array([3.0]), "b": np.array([4.0])})
    5.0
    """
    arrays = trees.entries(grads)
    if not _schuss.are_plain(arrays, written=False):
        _, leaves = trees.flatten(grads, "grads")
        arrays = [_readable(f"grads{suffix}", array) for suffix, array in leaves]
    squares, unit = _schuss.sum_of_squares(arrays)
    return math.sqrt(squares) * unit


def clip_grad_norm_(grads: Any, max_norm: float) -> float:
    r"""Scales gradients in place so that their global norm is at most `max_norm`.

    .. math:: g \leftarrow g \cdot \min\left(1, \frac{\mathrm{max\_norm}}{\lVert g \rVert + 10^{-6}}\right)

    as in PyTorch, with one norm over the whole structure (Keras's ``global_clipnorm``; for its ``clipnorm``, call this
    for each array). ``max_grad_norm`` does the same inside a step, without a separate scaling pass over memory.

    PyTorch's ``norm_type`` and ``error_if_nonfinite`` do not exist here. As there without them, an infinite norm makes
    infinities NaN and all else 0, and a NaN makes all NaN: look at the result, or use ``nonfinite`` of the optimizer.

    Parameters
    ----------
    grads : array, list, tuple or dict
        Writable contiguous arrays of float32, float64, float16 or bfloat16.
    max_norm : float
        The bound, > 0.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    TypeError, ValueError
        An array cannot be scaled in place; the message names it, and nothing has changed.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> grads = [np.array([3.0, 4.0])]
    >>> schuss.clip_grad_norm_(grads, 1.0)
    5.0
    >>> grads[0].round(4)
    array([0.6, 0.8])
    """
    bound = validate.number("max_norm", max_norm, open_low=True, closed_high=True)
    arrays = _writable(grads)
    norm, factor = _schuss.clip_factor(_schuss.sum_of_squares(arrays), 1.0, bound)
    if factor != 1.0:
        tools.run("scale", arrays, [factor])
    return norm


def clip_grad_value_(grads: Any, clip_value: float) -> None:
    """Clips every element of gradients in place to [-clip_value, clip_value]; NaN stays.

    Parameters
    ----------
    grads : array, list, tuple or dict
        Writable contiguous arrays of float32, float64, float16 or bfloat16.
    clip_value : float
        The bound, >= 0.

    Raises
    ------
    TypeError, ValueError
        An array cannot be clipped in place; the message names it, and nothing has changed.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> grads = np.array([-3.0, 0.5])
    >>> schuss.clip_grad_value_(grads, 1.0)
    >>> grads
    array([-1. ,  0.5])
    """
    bound = validate.number("clip_value", clip_value)
    tools.run("clamp", _writable(grads), [bound])


def centralize_(grads: Any, *, conv_only: bool = False, layout: Layout = "in_out") -> None:
    """Subtracts from every gradient, in place, the mean of each output: over all axes but that of the outputs.

    Arrays with fewer than two dimensions are unchanged. Source: Yong et al., arXiv:2004.01461.

    Parameters
    ----------
    grads : array, list, tuple or dict
        Writable contiguous arrays of float32, float64, float16 or bfloat16.
    conv_only : bool, default False
        Only centralize gradients with more than three dimensions.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimension has the outputs: the last of ``(...k, in, out)``, NumPy's and Keras's layout, or the first of
        ``(out, in, k...)``, PyTorch's.

    Raises
    ------
    TypeError, ValueError
        An array cannot be changed in place; the message names it, and nothing has changed.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> grads = np.array([[1.0, 5.0], [3.0, 5.0]])
    >>> schuss.centralize_(grads)
    >>> grads
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    least = 3 if validate.flag("conv_only", conv_only) else 1
    axes = check_layout("layout", layout)
    arrays = [array for array in _writable(grads) if array.ndim > least]
    tools.run("centralize", arrays, matrices=[of_outputs(array, axes) for array in arrays])


def split_groups(params: Any, **one_dimensional: Any) -> list[dict[str, Any]]:
    """Two groups: matrices and convolutions; and the rest, such as biases, without weight decay.

    For `schuss.LARS` and `schuss.LAMB` the rest is not adapted either: it has ``adapt=False``. Classes that adapt or
    decay nothing take the groups too.

    Parameters
    ----------
    params : array, list, tuple or dict
        The parameters.
    **one_dimensional
        Hyperparameters of the second group besides ``weight_decay=0.0`` and ``adapt=False``, or in their place.

    Returns
    -------
    list of dict
        Two group dicts, for arrays with more than one dimension and for all others; only one if there is only one kind.
        The ``params`` of each are a dict from an array's path to the array; pass gradients in the same structure.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> params = {"w": np.ones((2, 2)), "b": np.ones(2)}
    >>> groups = schuss.split_groups(params)
    >>> [(list(group["params"]), group.get("adapt", True)) for group in groups]
    [(["['w']"], True), (["['b']"], False)]
    >>> opt = schuss.AdamW(groups, lr=1e-3, weight_decay=0.1)
    >>> [group["weight_decay"] for group in opt.param_groups]
    [0.1, 0.0]

    Gradients in the structure of `params` get that of the groups from the same function, if none is None:

    >>> grads = {"w": np.ones((2, 2)), "b": np.ones(2)}
    >>> opt.step([group["params"] for group in schuss.split_groups(grads)])
    True
    """
    _, leaves = trees.flatten(trees.listed(params), "params")
    trees.check_paths("params", leaves)
    many = {place: array for place, array in leaves if np.ndim(array) > 1}
    one = {place: array for place, array in leaves if np.ndim(array) <= 1}
    groups = [{"params": many}, {"params": one, "adapt": False, "weight_decay": 0.0, **one_dimensional}]
    return [group for group in groups if group["params"]]
