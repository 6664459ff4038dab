"""L-BFGS: quasi-Newton steps from a short history of gradients, with a closure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._backends import tools
from schuss._backends.protocol import Change, Limits
from schuss._core import validate
from schuss._core.descent import Descent
from schuss._core.hyperparameters import Rate
from schuss._core.rules import RULES
from schuss.optimizers.line_search import Point, strong_wolfe
from schuss.optimizers.two_loop import History, Pair, combine

#: Of the array of numbers: what its first entries are. The others are 1 / (y * s) of each pair.
_NUMBERS = ("iterations", "evaluations", "pairs", "scale", "length", "loss")


class _Gradient(NamedTuple):
    """A gradient as one vector, its product with the direction, and its largest absolute value."""

    values: np.ndarray
    slope: float
    largest: float


class LBFGS(Descent):
    r"""Limited-memory BFGS, with or without a strong Wolfe line search.

    A step takes up to `max_iter` iterations. With the gradient :math:`g`, each keeps :math:`s = t d` and the change
    :math:`y` of the gradient along it, if :math:`y \cdot s > 10^{-10}`; the direction is

    .. math:: d = -H g

    where :math:`H` is the inverse Hessian that the two-loop recursion makes of the last `history_size` pairs, starting
    from :math:`(y \cdot s) / (y \cdot y)`. Then :math:`p \leftarrow p + t d` with :math:`t` = ``lr``, in the very first
    iteration at most :math:`1 / \lVert g \rVert_1`, or with :math:`t` from the line search.

    All arrays are one long vector, so there is one group, and no gradient may be missing. The state is in
    ``state_dict()["shared"]``: two arrays of `history_size` vectors, of which only those in use take memory; but files
    have all of them.

    Parameters
    ----------
    lr : float or callable, default 1.0
        Learning rate, >= 0, or a function of the step.
    max_iter : int, default 20
        Iterations of a step, >= 1.
    max_eval : int, optional
        Evaluations after which a step takes no further iteration, and a line search ends; by default 1.25 `max_iter`.
    tolerance_grad : float, default 1e-7
        A step ends once no element of the gradient is larger.
    tolerance_change : float, default 1e-9
        A step ends once an iteration changes the loss by less than this or no parameter by more, or :math:`g \cdot d`
        is above minus this.
    history_size : int, default 100
        The number of pairs, >= 1.
    line_search_fn : {"strong_wolfe"}, optional
        Search along each direction for a point that satisfies the strong Wolfe conditions, until `max_eval` is reached.
    max_grad_norm : float, optional
        Not available: the directions are those of the gradients as they are.
    nonfinite : {"propagate", "error"}, default "propagate"
        What to do about NaN and infinities in gradients: compute with them, or restore everything and raise.

    References
    ----------
    Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithms 7.4, 7.5, 3.5 and 3.6. Stopping rules, defaults
    and line search are those of PyTorch's ``LBFGS``.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0, -4.0])
    >>> opt = schuss.LBFGS(w, line_search_fn="strong_wolfe")
    >>> opt.step(lambda: (float(w[0] ** 2 + 10 * w[1] ** 2), np.array([2 * w[0], 20 * w[1]])))
    169.0
    >>> bool(abs(w).max() < 1e-5)
    True
    """

    lr: Rate = 1.0
    max_iter: int = 20
    max_eval: int | None = None
    tolerance_grad: float = 1e-7
    tolerance_change: float = 1e-9
    history_size: int = 100
    line_search_fn: Literal["strong_wolfe"] | None = None

    _single_rule = False
    _shareable = False
    _on_gpu = False
    _wrappable = False

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        super()._setup(params, hypers, whole)
        if self._grouped:
            raise TypeError("LBFGS takes one structure of arrays, no groups: all parameters are one vector")
        hypers = self.param_groups[0].hypers
        sizes = np.cumsum([0, *(param.size for param in self._params)])
        self._places = [slice(*pair) for pair in zip(sizes[:-1].tolist(), sizes[1:].tolist(), strict=True)]
        wide = any(param.dtype == np.float64 for param in self._params)
        n, dtype, most = int(sizes[-1]), np.float64 if wide else np.float32, hypers["history_size"]
        self._shared = {
            "s": np.zeros((most, n), dtype),
            "y": np.zeros((most, n), dtype),
            "d": np.zeros(n, dtype),
            "gradient": np.zeros(n, dtype),
            "numbers": np.zeros(len(_NUMBERS) + most),
        }

    @property
    def evaluations(self) -> int:
        """How often all steps have called their closures."""
        return int(self._shared["numbers"][_NUMBERS.index("evaluations")])

    def step(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - a closure, and its loss
        self, closure: Callable[[], Any] | None = None
    ) -> float:
        """Takes one step of several iterations; if the closure raises, parameters and state are unchanged.

        Parameters
        ----------
        closure : callable
            Returns the loss, a number, and the gradients at the current values of the parameters.

        Returns
        -------
        float
            The loss at the start of the step.

        Raises
        ------
        TypeError, ValueError
            There is no closure, or it does not return a loss and valid gradients; nothing has changed.
        FloatingPointError
            A gradient has a NaN or an infinity and ``nonfinite="error"``; nothing has changed.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> w = np.array([2.0])
        >>> schuss.LBFGS(w, lr=0.5).step(lambda: (float(w[0] ** 2), 2 * w))
        4.0
        """
        if not callable(closure):
            raise TypeError("LBFGS needs a closure: opt.step(lambda: (loss, gradients at the present parameters))")
        before = self._read_counters()
        with self._backend.other_values(self, [], self._backend.job("copy", [])):
            run = _Run(self, closure)
            first = run.iterate()
            params = [param.copy("K") for param in self._params]
        # The parameters are as before here; all that follows is one native call.
        with self._exclusive():
            if self._read_counters() != before:
                raise RuntimeError("another thread changed this optimizer during its step, which was not taken")
            counters = before._replace(steps=before.steps + 1, groups=[steps + 1 for steps in before.groups])
            copies = [*zip(self._params, params, strict=True), *run.copies()]
            self._backend.changes(self._counted(counters), copies=copies).make()
        return first

    def add_param_group(self, group: Mapping[str, Any]) -> NoReturn:
        """Not available: all parameters are one vector, whose length is fixed."""
        raise TypeError("LBFGS has one group: all parameters are one vector; make a new optimizer")

    def _limits_changed(self, limits: Limits) -> list[Change]:
        if limits.max_grad_norm is not None:
            raise ValueError("LBFGS has no max_grad_norm; return clipped gradients from the closure")
        if limits.track_grad_norm:
            raise ValueError("LBFGS has no track_grad_norm; a step has several gradients")
        if limits.nonfinite == "skip":
            raise ValueError('nonfinite must be "propagate" or "error" for LBFGS, got "skip"')
        return []

    @classmethod
    def _structure(cls, hypers: Mapping[str, Any]) -> tuple[Any, ...]:
        return "sgd", hypers["history_size"]


class _Run:
    """The iterations of one step. It changes the parameters, but none of the optimizer's state."""

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Any]) -> None:
        self._optimizer, self._closure = optimizer, closure
        state, hypers = optimizer._shared, optimizer.param_groups[0].hypers
        self._hypers, most = hypers, hypers["history_size"]
        numbers: list[float] = state["numbers"].tolist()
        self.iterations, self.evaluations, count, scale, self.length, self.loss = numbers[: len(_NUMBERS)]
        self._rate = optimizer.param_groups[0].packed_at(optimizer.step_count)[0][1]
        self._sign = -1.0 if hypers["maximize"] else 1.0
        rhos, end = numbers[len(_NUMBERS) :], int(count)
        slots = [k % most for k in range(max(0, end - most), end)]
        self._history = History([Pair(state["s"][k], state["y"][k], rhos[k]) for k in slots], end, scale, most)
        # Copies, because pairs are computed in their place.
        self._d, self._before = state["d"].copy(), state["gradient"].copy()
        #: Where a line search starts; memory that all searches use.
        self._starts = [np.empty_like(param) for param in optimizer._params] if hypers["line_search_fn"] else []
        #: The largest element of the direction.
        self._longest = 0.0

    def iterate(self) -> float:
        """Runs the iterations; returns the loss at the start."""
        hypers = self._hypers
        most = hypers["max_iter"] * 5 // 4 if hypers["max_eval"] is None else hypers["max_eval"]
        loss, gradient = self._evaluate()
        first, begun = loss, self.evaluations - 1
        if gradient.largest <= hypers["tolerance_grad"]:
            return self._sign * first
        for number in range(1, hypers["max_iter"] + 1):
            self.iterations += 1
            if self.iterations > 1:
                tools.run("scale", [self._d], [self.length])
                self._history.add(self._d, self._before, gradient.values)
            self._d, slope, self._longest = self._history.direction(gradient.values)
            self._before, self.loss = gradient.values, loss
            self.length = self._rate
            if self.iterations == 1:
                total = float(np.abs(gradient.values).sum())
                self.length *= min(1.0, 1.0 / total)
            if slope > -hypers["tolerance_change"]:
                break
            last = number == hypers["max_iter"]
            if hypers["line_search_fn"] is not None:
                loss, gradient = self._search(loss, gradient, slope, most - (self.evaluations - begun))
            else:
                self._move(self.length)
                if not last:
                    loss, gradient = self._evaluate()
            if (
                last
                or self.evaluations - begun >= most
                or gradient.largest <= hypers["tolerance_grad"]
                or self._longest * abs(self.length) <= hypers["tolerance_change"]
                or abs(loss - self.loss) < hypers["tolerance_change"]
            ):
                break
        return self._sign * first

    def copies(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The arrays of the optimizer's state, each with its new values."""
        state, history = self._optimizer._shared, self._history
        numbers = state["numbers"].copy()
        own = self.iterations, self.evaluations, history.count, history.scale, self.length, self.loss
        numbers[: len(_NUMBERS)] = own
        result = [(state["d"], self._d), (state["gradient"], self._before)]
        for number, pair in history.new:
            slot = number % self._hypers["history_size"]
            numbers[len(_NUMBERS) + slot] = pair.rho
            result += [(state["s"][slot], pair.s), (state["y"][slot], pair.y)]
        return [*result, (state["numbers"], numbers)]

    def _evaluate(self) -> tuple[float, _Gradient]:
        """The loss, to be minimized, and its gradient."""
        optimizer = self._optimizer
        both = self._closure()
        if not isinstance(both, (tuple, list)) or len(both) != 2:
            raise TypeError(f"the closure must return the loss and the gradients, got {trees.kind(both)}")
        value, grads = both
        loss = validate.plain(value)
        if loss is None:
            raise TypeError(f"the closure must return the loss as a number, got {value!r}")
        self.evaluations += 1
        optimizer._explain_structure(grads, False)
        vector = np.empty_like(self._d)
        numbers, parts = [], []
        for i, _, leaf in trees.leaves(optimizer._root(), grads, "grads", "params"):
            if leaf is None:
                place = optimizer._place("grads", *optimizer._suffixes[i])
                raise TypeError(f"{place} is None, but LBFGS has one vector of all arrays; leave out what is frozen")
            numbers.append(i)
            parts.append(optimizer._gradient(i, leaf, False, False).ravel("K"))
        places = [optimizer._places[i] for i in numbers]
        sums = combine([vector[at] for at in places], 0.0, self._sign, parts, [self._d[at] for at in places])
        for i, at, most in zip(numbers, places, sums.largest, strict=True):
            if optimizer.nonfinite == "error" and not np.isfinite(most):
                optimizer._explain_nonfinite(i, int(np.flatnonzero(~np.isfinite(vector[at]))[0]))
        return self._sign * loss, _Gradient(vector, float(sums.product.sum()), float(sums.largest.max()))

    def _search(self, loss: float, gradient: _Gradient, slope: float, most: float) -> tuple[float, _Gradient]:
        """Moves to where the line search ends."""
        params = self._optimizer._params
        before = self._starts
        for param, old in zip(params, before, strict=True):
            np.copyto(old, param)
        here = 0.0

        def go_to(at: float) -> None:
            nonlocal here
            if at != here:
                for param, old in zip(params, before, strict=True) if here != 0 else ():
                    np.copyto(param, old)
                self._move(at)
                here = at

        def evaluate(at: float) -> Point:
            go_to(at)
            value, there = self._evaluate()
            return Point(at, value, there.slope, there)

        start = Point(0.0, loss, slope, gradient)
        least = self._hypers["tolerance_change"]
        found = strong_wolfe(evaluate, start, self.length, length=self._longest, least=least, most=most)
        go_to(found.at)
        self.length = found.at
        return found.loss, found.gradient

    def _move(self, length: float) -> None:
        """Moves the parameters along the direction."""
        optimizer = self._optimizer
        parts = [
            self._d[place].reshape(param.shape, order=checks.order(param))
            for place, param in zip(optimizer._places, optimizer._params, strict=True)
        ]
        _add(optimizer._params, length, parts)


def _add(arrays: Sequence[np.ndarray], factor: float, others: Sequence[np.ndarray]) -> None:
    """Adds other arrays times a factor in place, by the rule of SGD: one pass."""
    packed = np.array(tools.packed([0.0] * len(RULES["sgd"].hypers), lr=-factor))
    _schuss.Job("sgd", "step", [packed], 1, arrays, others, [[]] * len(arrays), [None] * len(arrays)).run()
