"""Gradient-descent optimizers that update NumPy arrays in place, at the speed of memory.

>>> import numpy as np, schuss
>>> params = {"w": np.ones((2, 2), np.float32), "b": np.zeros(2, np.float32)}
>>> opt = schuss.AdamW(params, lr=1e-3)
>>> opt.step({"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)})
True
"""

from schuss import functional as functional
from schuss._config import cpu_level as cpu_level
from schuss._config import cpu_levels as cpu_levels
from schuss._config import get_num_threads as get_num_threads
from schuss._config import set_num_threads as set_num_threads
from schuss._config import show_config as show_config
from schuss._group import ParamGroup as ParamGroup
from schuss._optimizer import Optimizer as Optimizer
from schuss._schuss import __version__ as __version__
from schuss.checkpoint import load as load
from schuss.checkpoint import save as save
from schuss.optimizers import *  # noqa: F403 - the classes and OPTIMIZERS; a new class needs no line here
