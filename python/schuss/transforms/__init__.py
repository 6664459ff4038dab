"""Gradient transforms: what happens to gradients before an optimizer's step, given as a list to `schuss.Transformed`.

Each is a small frozen object; the classes have lower-case names because they are used like functions. They know arrays,
but no optimizer. `layer_lrs` makes groups with learning rates of their own.

>>> import numpy as np, schuss
>>> from schuss import transforms
>>> w = np.ones(2)
>>> opt = schuss.Transformed(schuss.SGD(w, lr=1.0), [transforms.zero_nans(), transforms.clip(0.5)])
>>> opt.step(np.array([np.nan, 3.0]))
True
>>> w
array([1. , 0.5])
"""

from schuss.transforms._base import Transform as Transform
from schuss.transforms._clipping import agc as agc
from schuss.transforms._clipping import clip as clip
from schuss.transforms._clipping import clip_by_block_rms as clip_by_block_rms
from schuss.transforms._clipping import clip_by_global_norm as clip_by_global_norm
from schuss.transforms._gates import accumulate as accumulate
from schuss.transforms._gates import apply_if_finite as apply_if_finite
from schuss.transforms._groups import layer_lrs as layer_lrs
from schuss.transforms._values import add_noise as add_noise
from schuss.transforms._values import centralize as centralize
from schuss.transforms._values import zero_nans as zero_nans

__all__ = [
    "Transform",
    "accumulate",
    "add_noise",
    "agc",
    "apply_if_finite",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "layer_lrs",
    "zero_nans",
]
