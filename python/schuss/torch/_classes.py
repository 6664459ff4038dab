"""Makes the classes of `schuss.torch` from those of the package. It knows none of them by name."""

from __future__ import annotations

import inspect

from schuss._core import optimizer as core
from schuss.torch._names import BESIDES, BY_KEYWORD, NAMES
from schuss.torch._optimizer import Optimizer


def _signature(kind: type[core.Optimizer]) -> inspect.Signature:
    """How the class is called; options that torch has in another order must be named."""
    own = inspect.signature(kind)
    if kind.__name__ not in BY_KEYWORD:
        return own
    first, *rest = own.parameters.values()
    named = [entry if entry.name == "lr" else entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in rest]
    return own.replace(parameters=[first, *named])


def made_from(kind: type[core.Optimizer]) -> type[Optimizer]:
    """The class of torch's for a class of the package."""
    name = kind.__name__
    step = inspect.signature(kind.step)
    docs = "torch has it too: checkpoints load both ways." if name in NAMES or name in BESIDES else ""
    return type(
        name,
        (Optimizer,),
        {
            "_kind": kind,
            "_made_with": _signature(kind),
            "_takes_closure": "closure" in step.parameters,
            "_takes_loss": step.return_annotation in (float, "float"),
            "__module__": "schuss.torch",
            "__doc__": f"`schuss.{name}` as a ``torch.optim.Optimizer``; see `schuss.torch.Optimizer`. {docs}".strip(),
            "__signature__": _signature(kind),
        },
    )
