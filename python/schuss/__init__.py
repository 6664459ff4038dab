"""Gradient-descent optimizers that update NumPy arrays in place, at memory bandwidth.

>>> import numpy as np, schuss
>>> params = {"w": np.ones((2, 2), np.float32), "b": np.zeros(2, np.float32)}
>>> opt = schuss.AdamW(params, lr=1e-3)
>>> opt.step({"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)})
True
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from schuss._blas import share_threads_with_blas as share_threads_with_blas
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
from schuss.packing import pack as pack

if TYPE_CHECKING:
    from schuss import functional as functional
    from schuss import init as init
    from schuss import schedules as schedules
    from schuss import transforms as transforms
    from schuss.optimizers.lbfgs import LBFGS as LBFGS
    from schuss.wrappers.averages import EMA as EMA
    from schuss.wrappers.averages import SWA as SWA
    from schuss.wrappers.averages import Polyak as Polyak
    from schuss.wrappers.offload import Offload as Offload
    from schuss.wrappers.sam import SAM as SAM
    from schuss.wrappers.transformed import Transformed as Transformed


# Imported on first use: importing the package should take little longer than importing NumPy.
_LATER = {
    "EMA": "schuss.wrappers.averages",
    "LBFGS": "schuss.optimizers.lbfgs",
    "Offload": "schuss.wrappers.offload",
    "Polyak": "schuss.wrappers.averages",
    "SAM": "schuss.wrappers.sam",
    "SWA": "schuss.wrappers.averages",
    "Transformed": "schuss.wrappers.transformed",
    "functional": "schuss.functional",
    "init": "schuss.init",
    "schedules": "schuss.schedules",
    "transforms": "schuss.transforms",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'schuss' has no attribute {name!r}{_instead(name)}")
    module = importlib.import_module(_LATER[name])
    return getattr(module, name, module)


def _instead(name: str) -> str:
    from schuss._core.declaration import meant

    if name in ("flower", "mpi", "torch"):
        return f"; import schuss.{name} first"
    near = "" if name.startswith("_") else meant(name, dir(sys.modules[__name__]))
    return f"; did you mean {near}?" if near else ""


# Leaves out the modules that this one imports. Type checkers understand only literal lists; without one they take the
# names that are imported as themselves.
if not TYPE_CHECKING:
    _own = [name for name, thing in globals().items() if getattr(thing, "__module__", "").startswith("schuss")]
    __all__ = sorted(["OPTIMIZERS", *_LATER, *(name for name in _own if not name.startswith("_"))])

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]
