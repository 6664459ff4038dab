"""Gradient-descent optimizers that update NumPy arrays in place, at memory bandwidth.

>>> import numpy as np, schuss
>>> params = {"w": np.ones((2, 2), np.float32), "b": np.zeros(2, np.float32)}
>>> opt = schuss.AdamW(params, lr=1e-3)
>>> opt.step({"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)})
True
"""

import importlib
from typing import TYPE_CHECKING, Any

from schuss._config import cpu_level as cpu_level
from schuss._config import cpu_levels as cpu_levels
from schuss._config import get_num_threads as get_num_threads
from schuss._config import set_num_threads as set_num_threads
from schuss._config import show_config as show_config
from schuss._core.group import ParamGroup as ParamGroup
from schuss._core.optimizer import Optimizer as Optimizer
from schuss._schuss import __version__ as __version__
from schuss.checkpoint import load as load
from schuss.checkpoint import save as save
from schuss.gradients import centralize_ as centralize_
from schuss.gradients import clip_grad_norm_ as clip_grad_norm_
from schuss.gradients import clip_grad_value_ as clip_grad_value_
from schuss.gradients import global_norm as global_norm
from schuss.gradients import split_groups as split_groups
from schuss.optimizers import *  # noqa: F403 - the classes and OPTIMIZERS; a new class needs no line here

if TYPE_CHECKING:
    from schuss import functional as functional
    from schuss import init as init
    from schuss import schedules as schedules
    from schuss.wrappers.offload import Offload as Offload


def __getattr__(name: str) -> Any:
    # Imported on first use: importing the package should take little longer than importing NumPy.
    if name == "Offload":
        return importlib.import_module("schuss.wrappers.offload").Offload
    if name in ("functional", "init", "schedules"):
        return importlib.import_module(f"schuss.{name}")
    raise AttributeError(f"module 'schuss' has no attribute {name!r}")
