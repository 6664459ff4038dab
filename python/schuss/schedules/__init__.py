"""Learning-rate schedules: functions of the step, passed to an optimizer as ``lr``. They know no optimizer.

The step is counted from 0. Each schedule is a small frozen object whose rate depends only on the step, so resuming
needs no state; only `reduce_on_plateau` has state, which is saved with the optimizer. ``warmup``, ``join``, ``chain``,
``scale`` and ``swalr`` combine schedules; they, and ``lr``, accept any function from the step to a rate. So do weight
decay, momentum and betas. The classes have lower-case names because they are used like functions.

>>> import numpy as np, schuss
>>> from schuss import schedules
>>> rate = schedules.warmup(schedules.cosine(0.1, 0.0, 8), 2)
>>> [round(rate(t), 4) for t in range(11)]
[0.0, 0.05, 0.1, 0.0962, 0.0854, 0.0691, 0.05, 0.0309, 0.0146, 0.0038, 0.0]
>>> opt = schuss.AdamW(np.ones(3), lr=rate)
"""

from typing import TYPE_CHECKING

from schuss.schedules._annealing import cosine as cosine
from schuss.schedules._annealing import cosine_restarts as cosine_restarts
from schuss.schedules._averaging import swalr as swalr
from schuss.schedules._base import Schedule as Schedule
from schuss.schedules._composition import chain as chain
from schuss.schedules._composition import join as join
from schuss.schedules._composition import scale as scale
from schuss.schedules._cycle import cyclic as cyclic
from schuss.schedules._cycle import one_cycle as one_cycle
from schuss.schedules._plateau import reduce_on_plateau as reduce_on_plateau
from schuss.schedules._ramps import inverse_sqrt as inverse_sqrt
from schuss.schedules._ramps import inverse_time as inverse_time
from schuss.schedules._ramps import linear as linear
from schuss.schedules._ramps import polynomial as polynomial
from schuss.schedules._stairs import constant as constant
from schuss.schedules._stairs import exponential as exponential
from schuss.schedules._stairs import multi_step as multi_step
from schuss.schedules._stairs import multiplicative as multiplicative
from schuss.schedules._stairs import step as step
from schuss.schedules._warmup import warmup as warmup
from schuss.schedules._warmup import warmup_cosine as warmup_cosine

__all__ = [
    "Schedule",
    "chain",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "inverse_sqrt",
    "inverse_time",
    "join",
    "linear",
    "multi_step",
    "multiplicative",
    "one_cycle",
    "polynomial",
    "reduce_on_plateau",
    "scale",
    "step",
    "swalr",
    "warmup",
    "warmup_cosine",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        raise AttributeError(f"module 'schuss.schedules' has no schedule {name!r}; it has {', '.join(__all__)}")

    def __dir__():
        return __all__
