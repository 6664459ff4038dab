"""Federated learning with Flower: an optimizer on the server, after the clients' average.

The difference between the server's model and the clients' average is the gradient (Reddi et al., "Adaptive federated
optimization", arXiv:2003.00295), for any optimizer whose step takes gradients alone: not NAG, Newton and LBFGS.
`FedOpt` is for Flower's messages (``flwr.serverapp``), `LegacyFedOpt` for lists of arrays (``flwr.server``). Importing
``schuss`` does not import this module, which needs ``pip install flwr``.

Examples
--------
>>> import schuss, schuss.flower
>>> strategy = schuss.flower.FedOpt(lambda arrays: schuss.Adam(arrays, lr=0.01, eps_form="keras", eps=1e-3))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

try:
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server.strategy import FedAvg as LegacyFedAvg
    from flwr.serverapp.strategy import FedAvg
except ImportError as error:
    raise ImportError("schuss.flower needs Flower, flwr >= 1.21: pip install -U flwr") from error
from flwr.app import Array, ArrayRecord

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._core import validate
from schuss._core.optimizer import Optimizer
from schuss.checkpoint import load as _load
from schuss.checkpoint import save as _save

#: Makes the optimizer for the server's arrays, a dict.
Make = Callable[[dict[Any, np.ndarray]], Optimizer]


class _Server:
    """The model on the server: what is trained, and its optimizer. It knows no interface of Flower's."""

    def __init__(self, make: Make, steps_before: int) -> None:
        if not callable(make):
            raise TypeError(
                f"make is a {type(make).__name__}; it must be a function of a dict of arrays that returns their "
                "optimizer, such as lambda arrays: schuss.Adam(arrays, lr=0.01)"
            )
        self._make, self._steps_before = make, validate.steps("steps_before", steps_before)
        self._params: dict[Any, np.ndarray] = {}
        self.optimizer: Optimizer | None = None

    def load(self, path: str | os.PathLike[str], model: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """The model with the trained arrays of a file."""
        params, optimizer = self._for(self._floats(model))
        _load(path, optimizer)
        self._kept(params, optimizer).make()
        return self.trained(model)

    def step(self, model: Mapping[Any, np.ndarray], average: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """The model after a step towards the clients' average; what is not trained is as it was."""
        _check_same(average, "clients' arrays", model)
        floats = self._floats(model)
        params, optimizer = self._for(floats)
        values = {name: floats[name].astype(param.dtype) for name, param in params.items()}
        _check_result(params, values, optimizer)
        grads = {}
        for name, value in values.items():
            wide = checks.compute_dtype(value.dtype)
            grads[name] = value.astype(wide) - average[name].astype(wide)
        begin, back = (
            optimizer._backend.changes(copies=[(param, given[name]) for name, param in params.items()])
            for given in (values, {name: param.copy() for name, param in params.items()})
        )
        kept, before = self._kept(params, optimizer), _progress(optimizer)
        try:
            begin.make()
            with _schuss.AfterStep(optimizer, kept):
                if not optimizer.step(grads):
                    kept.make()
        except BaseException:  # also an interrupt after the step
            if _progress(optimizer) == before:
                back.make()
            raise
        return self.trained(model)

    def _floats(self, model: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """The arrays of a model that are trained; the optimizer refuses those that it cannot train."""
        return {name: array for name, array in model.items() if array.dtype.kind not in "biu"}

    def _for(self, floats: Mapping[Any, np.ndarray]) -> tuple[dict[Any, np.ndarray], Optimizer]:
        """The arrays that are trained and their optimizer, which are new until they are kept."""
        params, optimizer = self._params, self.optimizer
        if optimizer is None:
            params = {name: np.array(array, order="C") for name, array in floats.items()}
            optimizer = self._make(params)
            if not isinstance(optimizer, Optimizer):
                raise TypeError(f"make returned a {type(optimizer).__name__}; it must return an optimizer of schuss")
            if not optimizer._takes_gradients:
                name = type(optimizer).__name__
                raise TypeError(f"make returned {name}, whose step takes more than gradients; use another optimizer")
            updated = trees.build(optimizer._root(), lambda i: id(optimizer._params[i]))
            if updated != {name: id(param) for name, param in params.items()}:
                raise ValueError(
                    "make returned an optimizer of other arrays than those of the dict that it was given, or in "
                    "another structure; it must update these in place, as in lambda arrays: schuss.Adam(arrays)"
                )
            if self._steps_before:
                optimizer.step_count = self._steps_before
        _check_same(floats, "model's arrays", params)
        return params, optimizer

    def _kept(self, params: dict[Any, np.ndarray], optimizer: Optimizer) -> _schuss.Changes:
        """The changes that keep these arrays and their optimizer for the next steps."""
        return _schuss.Changes([(self, "_params", params), (self, "optimizer", optimizer)])

    def trained(self, model: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """The model with the arrays that are trained here."""
        return {name: self._params[name].copy() if name in self._params else model[name] for name in model}


def _progress(optimizer: Optimizer) -> Any:
    """What a step changes besides arrays, also one that is not taken."""
    return optimizer._read_counters(), [optimizer._option(name) for name in optimizer._settings]


def _check_result(params: dict[Any, np.ndarray], model: dict[Any, np.ndarray], optimizer: Optimizer) -> None:
    """Raises if a model is not the last step's result, and the optimizer keeps a copy of that result in its state."""
    if all(model[name].tobytes() == param.tobytes() for name, param in params.items()):
        return
    copies = {state.name for own in optimizer._rule_states for state in own if state.initial == "p"}
    for i in range(len(params)):
        for name in ({"master", "slow"} | copies).intersection(optimizer._state_names(i)):
            raise ValueError(
                f"the server's model is not the result of the last round, of which {optimizer._name()} has a copy in "
                f"its state, {name!r}; go on with that result, or make a new strategy"
            )


def _check_same(arrays: Mapping[Any, np.ndarray], what: str, model: Mapping[Any, np.ndarray]) -> None:
    """Raises unless arrays have the names and shapes of the model's."""
    missing = [name for name in model if name not in arrays]
    extra = [name for name in arrays if name not in model]
    if missing or extra:
        wrong = f"lack {missing[0]!r}" if missing else f"have unknown {extra[0]!r}"
        raise ValueError(f"the {what} {wrong}; they must be those of the server: {', '.join(map(repr, model))}")
    for name, array in arrays.items():
        if array.shape != model[name].shape:
            raise ValueError(
                f"the {what} have {name!r} with shape {array.shape}, but the server has it with {model[name].shape}"
            )


class _Strategy:
    """The base of both strategies, before Flower's own."""

    #: The model that the round's clients start from.
    _current: dict[Any, np.ndarray] | None = None

    def __init__(self, make: Make, *, steps_before: int = 0, **options: Any) -> None:
        self._server = _Server(make, steps_before)
        super().__init__(**options)

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, once there is one: after the first round, or after loading."""
        return self._server.optimizer

    def _model(self, method: str, before: str, clients: Iterable[Mapping[Any, np.ndarray]]) -> Mapping[Any, np.ndarray]:
        """The model of the round; raises if there is none, or the clients' arrays are not like its own."""
        if self._current is None:
            raise RuntimeError(f"{method} needs the model of the round: call {before} first")
        for arrays in clients:  # Flower's average would broadcast them
            _check_same(arrays, "clients' arrays", self._current)
        return self._current

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the model's trained arrays and the optimizer's state, as `schuss.save` does."""
        if self.optimizer is None:
            raise RuntimeError("there is nothing to save before the first round")
        _save(path, self.optimizer)


class FedOpt(_Strategy, FedAvg):
    """A strategy for ``flwr.serverapp``: FedAvg, then a step of an optimizer towards the average.

    Arrays keep their dtype: a float32 model stays float32. Arrays of integers, such as the counters of BatchNorm, stay
    as they are on the server. Flower's own strategies are special cases, with ``lr`` for eta and ``eps`` for tau:

    - FedAdam is ``Adam(eps_form="keras", betas=(0.9, 0.99))`` with ``steps_before=1``: Flower counts rounds from 1, and
      adds 1 to that.
    - FedYogi is ``Yogi(initial_accumulator_value=0.0, betas=(0.9, 0.99))`` with ``steps_before=10**9``: it has no bias
      corrections, and after so many steps they are 1.
    - FedAdagrad is ``Adagrad``.

    Parameters
    ----------
    make : callable
        Called in the first round or the first ``load`` with the model's arrays of floats, a dict by name; returns their
        optimizer.
    steps_before : int, default 0
        Steps that the optimizer counts as taken before the first round.
    **options
        Those of ``flwr.serverapp.strategy.FedAvg``.

    Examples
    --------
    >>> import schuss, schuss.flower
    >>> strategy = schuss.flower.FedOpt(lambda arrays: schuss.Yogi(arrays, lr=0.01), fraction_evaluate=0.5)
    """

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
        """Remembers the model that the clients start from."""
        self._current = _named(arrays)
        result: Iterable[Any] = super().configure_train(server_round, arrays, config, grid)
        return result

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """Averages the clients' models, and takes a step.

        Raises
        ------
        ValueError
            The clients' arrays are not those of the server's model; nothing has changed.
        RuntimeError
            ``configure_train`` was not called before.
        """
        replies = list(replies)
        records = [record for r in replies if not r.has_error() for record in r.content.array_records.values()]
        model = self._model("aggregate_train", "configure_train", map(_named, records))
        average, metrics = super().aggregate_train(server_round, replies)
        if average is None:
            return average, metrics
        return _record(self._server.step(model, _named(average))), metrics

    def load(self, path: str | os.PathLike[str], arrays: Any) -> Any:
        """Loads what `save` wrote; on an error nothing has changed.

        Parameters
        ----------
        path : str or path
            The file.
        arrays : ArrayRecord
            The model, for its structure and what is not trained.

        Returns
        -------
        ArrayRecord
            The model to go on with, in ``start``.
        """
        return _record(self._server.load(path, _named(arrays)))


class LegacyFedOpt(_Strategy, LegacyFedAvg):
    """A strategy for ``flwr.server``, whose models are lists of arrays; it works like `FedOpt`.

    Parameters
    ----------
    make : callable
        Called in the first round or the first ``load`` with the model's arrays of floats, a dict by their place in the
        list; returns their optimizer.
    steps_before : int, default 0
        Steps that the optimizer counts as taken before the first round.
    **options
        Those of ``flwr.server.strategy.FedAvg``.

    Examples
    --------
    >>> import schuss, schuss.flower
    >>> strategy = schuss.flower.LegacyFedOpt(lambda arrays: schuss.Adagrad(arrays, lr=0.1, eps=1e-3))
    """

    def __init__(self, make: Make, *, steps_before: int = 0, **options: Any) -> None:
        super().__init__(make, steps_before=steps_before, **options)
        self._current = None if self.initial_parameters is None else _numbered(self.initial_parameters)

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[Any]:
        """Remembers the model that the clients start from."""
        self._current = _numbered(parameters)
        result: list[Any] = super().configure_fit(server_round, parameters, client_manager)
        return result

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> tuple[Any, dict[str, Any]]:
        """Averages the clients' models, and takes a step; see `FedOpt.aggregate_train`."""
        clients = (_numbered(result.parameters) for _, result in results)
        model = self._model("aggregate_fit", "configure_fit", clients)
        average, metrics = super().aggregate_fit(server_round, results, failures)
        if average is None:
            return average, metrics
        self._current = self._server.step(model, _numbered(average))
        return ndarrays_to_parameters(list(self._current.values())), metrics

    def load(self, path: str | os.PathLike[str], parameters: Any) -> Any:
        """Loads what `save` wrote, and returns the model to go on with; see `FedOpt.load`."""
        self._current = self._server.load(path, _numbered(parameters))
        return ndarrays_to_parameters(list(self._current.values()))


def _named(record: Any) -> dict[Any, np.ndarray]:
    return {name: array.numpy() for name, array in record.items()}


def _record(arrays: Mapping[Any, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def _numbered(parameters: Any) -> dict[Any, np.ndarray]:
    return dict(enumerate(parameters_to_ndarrays(parameters)))
