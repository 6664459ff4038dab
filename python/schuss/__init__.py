"""Gradient-descent optimizers that update NumPy arrays in place, at the speed of memory.

>>> import numpy as np, schuss
>>> params = {"w": np.ones((2, 2), np.float32), "b": np.zeros(2, np.float32)}
>>> opt = schuss.AdamW(params, lr=1e-3)
>>> opt.step({"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)})
True
"""

from schuss import functional
from schuss._config import cpu_level, cpu_levels, get_num_threads, set_num_threads, show_config
from schuss._group import ParamGroup
from schuss._optimizer import Optimizer
from schuss._schuss import __version__
from schuss.checkpoint import load, save
from schuss.optimizers import OPTIMIZERS, SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "ParamGroup",
    "RMSprop",
    "__version__",
    "cpu_level",
    "cpu_levels",
    "functional",
    "get_num_threads",
    "load",
    "save",
    "set_num_threads",
    "show_config",
]
