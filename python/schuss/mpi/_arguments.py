"""What `Sharded` can be made of, and what must be the same in all processes, in words. It sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from schuss._arrays import checks, trees
from schuss._backends.protocol import place
from schuss._core import validate
from schuss._core.group import ParamGroup
from schuss._core.optimizer import Optimizer
from schuss.mpi._communicators import mpi
from schuss.optimizers import OPTIMIZERS
from schuss.wrappers import Lookahead


def communicator(comm: Any) -> Any:
    """The communicator that is meant."""
    MPI = mpi()
    if comm is None:
        return MPI.COMM_WORLD
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(f"comm must be a communicator of mpi4py that this process is in, got {trees.kind(comm)}")
    return comm


def check(kind: Any, params: Any, options: Mapping[str, Any], count: Any, bucket: Any, ranks: int) -> None:
    """Raises unless an optimizer of this class can be shared."""
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        name = kind._name() if isinstance(kind, Optimizer) else ""
        advice = (
            f"an instance of {name}; pass the class schuss.{name}, then its arguments" if name else trees.kind(kind)
        )
        raise TypeError(f"the first argument is a class of schuss.OPTIMIZERS, got {advice}")
    if not kind._shareable:
        raise TypeError(f"{kind.__name__} needs every array whole, so processes cannot share them")
    if not issubclass(kind, tuple(OPTIMIZERS.values())):
        raise TypeError(
            f"processes cannot share the arrays of {kind.__name__}, a wrapper; give the class that it wraps"
        )
    if issubclass(kind, Lookahead) and options.get("master_weights"):
        raise TypeError(
            f"the slow weights of {kind.__name__} are whole, so there are no master_weights, which are shared"
        )
    for name, value, least in (("microbatches", count, ranks), ("bucket_size", bucket, 1)):
        validate.whole_number(name, value, least)
    if checks.any_on_gpu(params):
        raise TypeError("processes share NumPy arrays only; params has arrays on a GPU")


def description(optimizer: Optimizer) -> dict[str, Any]:
    """What must be the same in all processes."""
    own = {name: optimizer._option(name) for name in ("track_grad_norm", *optimizer._settings)}
    own |= {"the number of steps": optimizer.step_count, "the state's options": optimizer._state_format}
    return own | description_of_groups(optimizer, optimizer._suffixes, optimizer._params, optimizer.param_groups)


def description_of_groups(
    optimizer: Optimizer,
    suffixes: Sequence[tuple[int, str]],
    params: Sequence[np.ndarray],
    groups: Sequence[ParamGroup],
) -> dict[str, Any]:
    """What must be the same in all processes of groups and their arrays, which the optimizer has or is to get."""
    grouped = optimizer._grouped or len(groups) > len(optimizer.param_groups)
    places = [place(grouped, "params", *at) for at in suffixes]
    own: dict[str, Any] = {where: _layout(array) for where, array in zip(places, params, strict=True)}
    for i, group in enumerate(groups):
        hypers, rate = group._scheduled(optimizer.step_count)
        own |= {f"param_groups[{i}][{name!r}]": value for name, value in {**hypers, "lr": rate}.items()}
    return own


def _layout(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)} in {checks.order(array)} order"
