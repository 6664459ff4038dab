"""Gradient transforms, and arrays and gradients for them: those of the recorded results of Optax."""

import math

import numpy as np
import pytest

from schuss import transforms as tf

SHAPES = [(4, 3), (5,)]
EACH = [
    tf.agc(0.05),
    tf.agc(0.05, layout="out_in"),
    tf.clip_by_block_rms(0.5),
    tf.clip_by_global_norm(2.0),
    tf.clip(0.3),
    tf.zero_nans(),
    tf.add_noise(0.5, seed=3),
    tf.centralize(),
    tf.accumulate(3),
    tf.apply_if_finite(2),
]
each_transform = pytest.mark.parametrize("transform", EACH, ids=str)


def starts(dtype=np.float64, order="C"):
    made = ([math.cos(1.3 * (i + 1) + k) * 2.0 for i in range(math.prod(s))] for k, s in enumerate(SHAPES))
    return [np.reshape(values, s).astype(dtype, order=order) for values, s in zip(made, SHAPES, strict=True)]


def waves(t, problem=""):
    grads = []
    for k, s in enumerate(SHAPES):
        values = [math.sin(0.7 * t * (i + 1) + k) * 10.0 ** ((i % 5) - 2) for i in range(math.prod(s))]
        grads.append(np.reshape(values, s))
    if "NaN" in problem and t % 5 in (2, 3, 4):
        grads[0].flat[1] = np.nan
        if "inf" in problem:
            grads[1].flat[2] = np.inf
    return grads
