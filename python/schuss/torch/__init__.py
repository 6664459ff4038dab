"""Every optimizer of the package but the wrappers as a ``torch.optim.Optimizer``, over a model's parameters on the CPU.

``schuss.torch.AdamW(model.parameters(), lr=1e-3)`` takes the place of ``torch.optim.AdamW`` in a training loop: one
import line changes. The classes have the names, options and defaults of ``schuss``, and are made from its registry.
What they have in common is documented in `Optimizer`. Importing ``schuss`` does not import this module, which needs the
packages torch and, for bfloat16, ml_dtypes: ``pip install torch ml_dtypes``.

Examples
--------
>>> import torch, schuss.torch
>>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
>>> optimizer = schuss.torch.Adam([weight], lr=0.1, eps=0.0)
>>> weight.grad = torch.tensor([3.0, -4.0])
>>> optimizer.step()
>>> weight.detach()
tensor([ 0.9000, -1.9000])
"""

from __future__ import annotations

try:
    import torch as torch
except ImportError:
    raise ImportError("schuss.torch needs PyTorch: pip install torch") from None

from torch.optim import lr_scheduler as lr_scheduler
from torch.optim import swa_utils as swa_utils

from schuss._core.declaration import meant
from schuss.optimizers import OPTIMIZERS
from schuss.optimizers.lbfgs import LBFGS as _LBFGS
from schuss.torch._classes import made_from
from schuss.torch._optimizer import Optimizer as Optimizer

_WRAPPERS = ("EMA", "Lookahead", "Offload", "Polyak", "SAM", "SWA", "Transformed")

# LBFGS is not in the registry: the package imports it on first use.
_classes = {name: made_from(kind) for name, kind in {**OPTIMIZERS, "LBFGS": _LBFGS}.items()}
globals().update(_classes)


def __getattr__(name: str) -> type[Optimizer]:  # also declares the classes to type checkers
    if name in _WRAPPERS:
        raise AttributeError(f"module 'schuss.torch' has no {name}: schuss.{name} wraps optimizers over arrays only")
    near = meant(name, list(_classes))
    advice = f"did you mean {near}? It" if near else "it"
    raise AttributeError(f"module 'schuss.torch' has no optimizer {name!r}; {advice} has {', '.join(_classes)}")


def __dir__() -> list[str]:
    return ["Optimizer", *_classes, "lr_scheduler", "swa_utils"]
