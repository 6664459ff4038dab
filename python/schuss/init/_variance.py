"""Initializers whose variance depends on fan-in and fan-out: Glorot's, He's and LeCun's."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from schuss._core import validate
from schuss._core.hyperparameters import check_of
from schuss.init._draw import Layout, Seed, Shape, as_shape, fans, fill
from schuss.init._gain import Nonlinearity, gain

Mode = Literal["fan_in", "fan_out"]
_MODE = check_of(Mode)


def xavier_uniform(
    shape: Shape,
    *,
    gain: float = 1.0,
    layout: Layout = "in_out",
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""Glorot's uniform values: activations and gradients both keep their variance.

    .. math:: w \sim U(-b, b), \qquad b = g \sqrt{\frac{6}{fan_{in} + fan_{out}}}

    Parameters
    ----------
    shape : tuple of int
        At least two dimensions.
    gain : float, default 1.0
        The factor :math:`g` > 0; see :func:`gain`.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimensions are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
    rng : int or numpy.random.Generator, optional
        A seed or a generator. By default each call is different.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of a new array; ignored with `out`.
    out : array, optional
        A writable array of that shape, float32 or float64, to fill instead of a new one.

    Returns
    -------
    array
        The new array, or `out`.

    Raises
    ------
    TypeError, ValueError
        An argument cannot be used; the message says why.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.

    Examples
    --------
    >>> from schuss import init
    >>> w = init.xavier_uniform((200, 100), rng=0)
    >>> bool(abs(w).max() <= (6 / 300) ** 0.5)
    True
    """
    sizes = as_shape(shape)
    fan_in, fan_out = fans(sizes, layout)
    bound = validate.number("gain", gain, open_low=True) * math.sqrt(6.0 / (fan_in + fan_out))
    return _uniform(sizes, bound, rng, dtype, out)


def xavier_normal(
    shape: Shape,
    *,
    gain: float = 1.0,
    layout: Layout = "in_out",
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""Glorot's values from a normal distribution: activations and gradients both keep their variance.

    .. math:: w \sim N(0, \sigma^2), \qquad \sigma = g \sqrt{\frac{2}{fan_{in} + fan_{out}}}

    Keras's ``GlorotNormal`` is truncated at two standard deviations, see :func:`truncated_normal`; PyTorch's is not.

    Parameters
    ----------
    shape : tuple of int
        At least two dimensions.
    gain : float, default 1.0
        The factor :math:`g` > 0; see :func:`gain`.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimensions are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
    rng : int or numpy.random.Generator, optional
        A seed or a generator. By default each call is different.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of a new array; ignored with `out`.
    out : array, optional
        A writable array of that shape, float32 or float64, to fill instead of a new one.

    Returns
    -------
    array
        The new array, or `out`.

    Raises
    ------
    TypeError, ValueError
        An argument cannot be used; the message says why.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.

    Examples
    --------
    >>> from schuss import init
    >>> w = init.xavier_normal((200, 600), rng=0)
    >>> round(float(w.std()), 3)
    0.05
    """
    sizes = as_shape(shape)
    fan_in, fan_out = fans(sizes, layout)
    std = validate.number("gain", gain, open_low=True) * math.sqrt(2.0 / (fan_in + fan_out))
    return _normal(sizes, std, rng, dtype, out)


def kaiming_uniform(
    shape: Shape,
    *,
    nonlinearity: Nonlinearity = "relu",
    a: float = 0.0,
    mode: Mode = "fan_in",
    layout: Layout = "in_out",
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""He's values from a uniform distribution: activations keep their variance through rectifiers (ReLU).

    .. math:: w \sim U(-b, b), \qquad b = g \sqrt{\frac{3}{fan}}

    PyTorch's default nonlinearity is ``"leaky_relu"`` with `a` = 0, which is the same as ``"relu"``. The default
    initialization of its layers, ``a=sqrt(5)``, is ``nonlinearity="leaky_relu", a=5**0.5`` here.

    Parameters
    ----------
    shape : tuple of int
        At least two dimensions.
    nonlinearity : str, default "relu"
        The nonlinearity after the layer; it determines :math:`g`, see :func:`gain`.
    a : float, default 0.0
        The slope of ``leaky_relu`` below 0, >= 0.
    mode : {"fan_in", "fan_out"}, default "fan_in"
        Whether activations ("fan_in") or gradients ("fan_out") keep their variance.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimensions are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
    rng : int or numpy.random.Generator, optional
        A seed or a generator. By default each call is different.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of a new array; ignored with `out`.
    out : array, optional
        A writable array of that shape, float32 or float64, to fill instead of a new one.

    Returns
    -------
    array
        The new array, or `out`.

    Raises
    ------
    TypeError, ValueError
        An argument cannot be used; the message says why.

    References
    ----------
    He et al., arXiv:1502.01852.

    Examples
    --------
    >>> from schuss import init
    >>> w = init.kaiming_uniform((600, 100), rng=0)
    >>> bool(abs(w).max() <= 0.1)
    True
    """
    sizes = as_shape(shape)
    bound = gain(nonlinearity, a) * math.sqrt(3.0 / _fan(sizes, mode, layout))
    return _uniform(sizes, bound, rng, dtype, out)


def kaiming_normal(
    shape: Shape,
    *,
    nonlinearity: Nonlinearity = "relu",
    a: float = 0.0,
    mode: Mode = "fan_in",
    layout: Layout = "in_out",
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""He's values from a normal distribution: activations keep their variance through rectifiers (ReLU).

    .. math:: w \sim N(0, \sigma^2), \qquad \sigma = \frac{g}{\sqrt{fan}}

    Keras's ``HeNormal`` is truncated at two standard deviations, see :func:`truncated_normal`; PyTorch's is not.

    Parameters
    ----------
    shape : tuple of int
        At least two dimensions.
    nonlinearity : str, default "relu"
        The nonlinearity after the layer; it determines :math:`g`, see :func:`gain`.
    a : float, default 0.0
        The slope of ``leaky_relu`` below 0, >= 0.
    mode : {"fan_in", "fan_out"}, default "fan_in"
        Whether activations ("fan_in") or gradients ("fan_out") keep their variance.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimensions are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
    rng : int or numpy.random.Generator, optional
        A seed or a generator. By default each call is different.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of a new array; ignored with `out`.
    out : array, optional
        A writable array of that shape, float32 or float64, to fill instead of a new one.

    Returns
    -------
    array
        The new array, or `out`.

    Raises
    ------
    TypeError, ValueError
        An argument cannot be used; the message says why.

    References
    ----------
    He et al., arXiv:1502.01852.

    Examples
    --------
    >>> from schuss import init
    >>> w = init.kaiming_normal((800, 100), rng=0)
    >>> round(float(w.std()), 3)
    0.05
    """
    sizes = as_shape(shape)
    std = gain(nonlinearity, a) / math.sqrt(_fan(sizes, mode, layout))
    return _normal(sizes, std, rng, dtype, out)


def lecun_uniform(
    shape: Shape,
    *,
    layout: Layout = "in_out",
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""LeCun's values from a uniform distribution: activations keep their variance for near-linear units.

    .. math:: w \sim U(-b, b), \qquad b = \sqrt{\frac{3}{fan_{in}}}

    Parameters
    ----------
    shape : tuple of int
        At least two dimensions.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimensions are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
    rng : int or numpy.random.Generator, optional
        A seed or a generator. By default each call is different.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of a new array; ignored with `out`.
    out : array, optional
        A writable array of that shape, float32 or float64, to fill instead of a new one.

    Returns
    -------
    array
        The new array, or `out`.

    Raises
    ------
    TypeError, ValueError
        An argument cannot be used; the message says why.

    References
    ----------
    LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> from schuss import init
    >>> w = init.lecun_uniform((300, 100), rng=0)
    >>> bool(abs(w).max() <= 0.1)
    True
    """
    sizes = as_shape(shape)
    return _uniform(sizes, math.sqrt(3.0 / _fan(sizes, "fan_in", layout)), rng, dtype, out)


def lecun_normal(
    shape: Shape,
    *,
    layout: Layout = "in_out",
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""LeCun's values from a normal distribution, used for self-normalizing networks (SELU).

    .. math:: w \sim N(0, \sigma^2), \qquad \sigma = \frac{1}{\sqrt{fan_{in}}}

    Keras's ``LecunNormal`` is truncated at two standard deviations, see :func:`truncated_normal`.

    Parameters
    ----------
    shape : tuple of int
        At least two dimensions.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimensions are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
    rng : int or numpy.random.Generator, optional
        A seed or a generator. By default each call is different.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of a new array; ignored with `out`.
    out : array, optional
        A writable array of that shape, float32 or float64, to fill instead of a new one.

    Returns
    -------
    array
        The new array, or `out`.

    Raises
    ------
    TypeError, ValueError
        An argument cannot be used; the message says why.

    References
    ----------
    LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998. Klambauer et al., arXiv:1706.02515.

    Examples
    --------
    >>> from schuss import init
    >>> w = init.lecun_normal((400, 100), rng=0)
    >>> round(float(w.std()), 3)
    0.05
    """
    sizes = as_shape(shape)
    return _normal(sizes, 1.0 / math.sqrt(_fan(sizes, "fan_in", layout)), rng, dtype, out)


def _fan(sizes: tuple[int, ...], mode: str, layout: str) -> int:
    both = fans(sizes, layout)
    return both[_MODE("mode", mode) == "fan_out"]


def _uniform(
    sizes: tuple[int, ...], bound: float, rng: Seed, dtype: npt.DTypeLike, out: np.ndarray | None
) -> np.ndarray:
    return fill(sizes, lambda source, count: source.uniform(-bound, bound, count), rng, dtype, out)


def _normal(sizes: tuple[int, ...], std: float, rng: Seed, dtype: npt.DTypeLike, out: np.ndarray | None) -> np.ndarray:
    return fill(sizes, lambda source, count: std * source.standard_normal(count), rng, dtype, out)
