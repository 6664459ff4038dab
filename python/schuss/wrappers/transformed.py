"""A list of gradient transforms before a step. It knows no optimizer class, and of transforms the gates."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._arrays.formats import State
from schuss._backends import tools
from schuss._backends.protocol import Change
from schuss._core import state as _state
from schuss._core import validate
from schuss._core.optimizer import Optimizer
from schuss.transforms import Transform, accumulate, apply_if_finite, zero_nans
from schuss.transforms._base import Prepared
from schuss.wrappers.base import Wrapper
from schuss.wrappers.gradient_copies import GradientCopies


def _counts(place: str, value: Any) -> list[int]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{place} must be a list of whole numbers, got {value!r}")
    return [validate.whole_number(f"{place}[{i}]", one) for i, one in enumerate(value)]


class _Work(NamedTuple):
    """What a step does with the gradients that there are, ready to run."""

    copies: GradientCopies
    #: The numbers of the arrays that have one, or None if all have.
    numbers: list[int] | None
    #: Their copies, by number.
    present: dict[int, np.ndarray]
    #: What each transform does.
    each: list[Prepared | None]
    #: If all have one, the first of these jobs, which run with the copying where they can.
    first: list[_schuss.Job]
    #: What moves the means of `accumulate` towards the copies, and the copies towards the means; none without it.
    moves: list[_schuss.Job]


class Transformed(Wrapper):
    """An optimizer whose gradients go through a list of transforms first; see `schuss.transforms`.

    Gradients are copied, divided by ``grad_scale``, and changed by each transform in order; then the optimizer takes
    its step, with its own clipping, weight decay and ``maximize``. The first transforms that take each element by
    itself (`clip`, `zero_nans`) run in the pass that copies. What transforms remember changes in the same native
    call as the step: after an error or an interrupt, both are as before or both as after.

    Parameters
    ----------
    optimizer : Optimizer
        An optimizer over NumPy arrays whose step takes gradients; from now on step the Transformed instead.
    transforms : sequence of Transform
        At most one `accumulate` and one `apply_if_finite` among them.

    Raises
    ------
    TypeError, ValueError
        An argument is no such thing, or the optimizer is or wraps a Transformed.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> from schuss import transforms
    >>> w = np.ones(2)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=0.5), [transforms.clip(1.0), transforms.accumulate(2)])
    >>> opt.step(np.array([4.0, 1.0])), opt.step(np.array([1.0, 0.0]))
    (False, True)
    >>> w
    array([0.5 , 0.75])
    """

    _own_settings = {"counts": _counts}
    _wrapper = "Transformed"

    def __init__(self, optimizer: Optimizer, transforms: Sequence[Transform]) -> None:
        if not isinstance(transforms, (list, tuple)):
            raise TypeError(f"transforms must be a list, such as [schuss.transforms.clip(1.0)], got {transforms!r}")
        for i, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise TypeError(f"transforms[{i}] must be one of schuss.transforms, got {transform!r}")
        for kind in (accumulate, apply_if_finite):
            if sum(isinstance(transform, kind) for transform in transforms) > 1:
                raise ValueError(f"transforms has more than one {kind.__name__}; use one")
        self._refuse_made()
        self._transforms = tuple(transforms)
        self._counts: list[int]
        #: Made at the first step.
        self._work: _Work | None = None
        self._wrap(optimizer, counts=[0] * len(transforms))

    def _check_wrapped(self) -> None:
        inner = self._stepped
        if not self._optimizer._takes_gradients:
            name = self._optimizer._name()
            raise TypeError(f"Transformed wraps an optimizer whose step takes gradients, not {name}")
        if inner._params and not isinstance(inner._params[0], np.ndarray):
            raise TypeError("transforms work on NumPy arrays only; the optimizer's are on a GPU")

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms, in order."""
        return self._transforms

    @property
    def found_nan(self) -> Any:
        """Whether each gradient of the last call of ``step`` had a NaN, in the structure of the parameters.

        A missing gradient had none. It is None without `zero_nans`, and before the first call. Copies and checkpoints
        do not have it.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> params = {"w": np.zeros(2), "b": np.zeros(1)}
        >>> opt = schuss.Transformed(schuss.SGD(params, lr=0.1), [schuss.transforms.zero_nans()])
        >>> opt.step({"w": np.array([np.nan, 1.0]), "b": np.array([1.0])})
        True
        >>> opt.found_nan
        {'w': True, 'b': False}
        """
        return None if self._work is None else self._work.copies.found_nan()

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        checked = super()._checked(name, value, place)
        if name != "counts":
            return checked
        same = "make the optimizer with the same transforms"
        if len(checked) != len(self._transforms):
            raise ValueError(
                f"{place or name} has {len(checked)} entries, but there are {len(self._transforms)} transforms; {same}"
            )
        for i, (count, transform) in enumerate(zip(checked, self._transforms, strict=True)):
            if count > transform._most_counted:
                raise ValueError(f"{place or name}[{i}] is {count}, which {transform!r} never counts; {same}")
        return checked

    @property
    def _accumulates(self) -> bool:
        return any(isinstance(transform, accumulate) for transform in self._transforms)

    def _group_added(self, group: Mapping[str, Any], others: Sequence[Any] = ()) -> list[Change]:
        if any(
            count and isinstance(one, accumulate) for count, one in zip(self._counts, self._transforms, strict=True)
        ):
            raise ValueError(
                "gradients have been accumulated for the next step, and new arrays have none; add the group after it"
            )
        return super()._group_added(group, others)

    def _new_extra(
        self, param: np.ndarray, states: Sequence[np.ndarray], rule_states: Sequence[State]
    ) -> list[np.ndarray]:
        """The mean of the gradients since the last step, if they are accumulated."""
        if not self._accumulates:
            return []
        return [np.zeros(param.shape, checks.compute_dtype(param.dtype), checks.order(param))]

    def _extra_names(self, i: int) -> list[str]:
        return ["accumulated"] if self._accumulates else []

    def step(
        self, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False, partial: bool = False
    ) -> bool:
        """Changes the gradients, then takes the optimizer's step; arguments and errors are those of the optimizer.

        Returns
        -------
        bool
            Whether the step was taken: not between the steps of `accumulate`, nor if a transform or the optimizer skips
            it.
        """
        self._refuse_shown()
        scale, zero, part = self._step_options(grad_scale, zero_grads, partial)
        inner = self._stepped
        self._refuse_evaluating()
        with _schuss.ExclusiveLock(self):
            self._refuse_added()
            given = inner._own_grads() if grads is None else grads
            try:
                return self._taken(given, scale, zero, part)
            except (TypeError, ValueError):  # a parameter that was resized or retyped does not fit the work
                self._backend.refuse_changed(inner)
                raise

    def _taken(self, grads: Any, grad_scale: float, zero_grads: bool, partial: bool) -> bool:
        """Takes a step with checked options."""
        inner = self._stepped
        work = self._work
        if work is None or work.copies.params is not inner._params:
            finds_nan = any(isinstance(transform, zero_nans) for transform in self._transforms)
            work = self._prepared(GradientCopies(inner, finds_nan), None)
        copies, done = work.copies, len(work.first)
        with _schuss.AfterStep(copies, _schuss.Changes(jobs=work.first)):
            copies.step(grads, grad_scale=grad_scale, partial=partial)
        numbers = copies._present
        if numbers is not None and self._accumulates:
            missing = next(i for i in range(len(copies.arrays)) if i not in numbers)
            place = inner._place("grads", *inner._suffixes[missing])
            raise TypeError(
                f"{place} is None, but accumulate needs a gradient for each array; leave out what is frozen"
            )
        if numbers != work.numbers:
            work = self._prepared(copies, numbers)
        fills = self._zeroed(grads, partial) if zero_grads else []
        counts = list(self._counts)
        # The calls before this one, for transforms that come before `accumulate`.
        calls = sum(count for count, one in zip(counts, self._transforms, strict=True) if isinstance(one, accumulate))
        for k, (transform, own) in enumerate(zip(self._transforms, work.each, strict=True)):
            taken = True
            if isinstance(transform, accumulate):
                taken = self._accumulate(transform, k, work, counts, fills)
                calls = 0
            elif isinstance(transform, apply_if_finite):
                taken = self._pass_finite(transform, k, list(work.present.values()), counts, fills)
            elif isinstance(own, _schuss.Job) and k >= done:
                own.run()
            elif callable(own):
                own(self._optimizer.step_count + 1, calls, k)
            if not taken:
                return False
        # In a skipped step the gradients are used up all the same: a new mean begins.
        changes = _schuss.Changes([(self, "_counts", counts)], fills=fills, if_skipped=True)
        changed = copies.tree
        # A wrapper's subclass may have a step that edits what it is given.
        if numbers is not None or self._optimizer is not inner:
            changed = trees.build(inner._root(), work.present.get)
        with _schuss.AfterStep(self._optimizer, changes, self):
            return self._optimizer.step(changed)

    def _prepared(self, copies: GradientCopies, numbers: list[int] | None) -> _Work:
        """The work with the gradients of these arrays; it is kept for steps with the same."""
        present = {i: copies.arrays[i] for i in (range(len(copies.arrays)) if numbers is None else numbers)}
        each = [transform._prepare(present, copies.params) for transform in self._transforms]
        first: list[_schuss.Job] = []
        for own in each if numbers is None else []:
            if not isinstance(own, _schuss.Job):
                break
            first.append(own)
        moves: list[_schuss.Job] = []
        if self._accumulates and numbers is None:
            means = [own[0] for own in self._extra]
            moves = [
                tools.job("average", others, [1.0], program="sync", states=[[array] for array in averages])
                for averages, others in ((means, copies.arrays), (copies.arrays, means))
            ]
        work = _Work(copies, numbers, present, each, first, moves)
        if self._stepped._changed_param() is None:  # another shape or dtype may not last
            self._work = work
        return work

    def _zeroed(self, grads: Any, partial: bool) -> list[tuple[Any, float]]:
        """The gradients that there are, checked, to be set to zero."""
        inner = self._stepped
        separate = [g for g in _schuss.apart(inner, grads, partial) or [] if g is not None]
        if separate and _schuss.are_plain(separate, written=True):
            return [(leaf, 0.0) for leaf in separate]
        found = [(i, g) for i, _, g in trees.leaves(inner._root(), grads, "grads", "params", partial=partial)]
        leaves = [(i, g) for i, g in sorted(found, key=operator.itemgetter(0)) if g is not None]
        for i, leaf in leaves:
            inner._gradient(i, leaf, False, True)
        return [(leaf, 0.0) for _, leaf in leaves]

    def _accumulate(self, transform: accumulate, k: int, work: _Work, counts: list[int], fills: list[Any]) -> bool:
        """Adds to the mean or, for the last time, puts it into the place of the gradients."""
        if self.nonfinite == "error":  # a NaN would stay in the mean
            self._stepped._refuse_nonfinite(work.present)
        done = counts[k]
        counts[k] = (done + 1) % transform.k
        into_means, into_copies = work.moves
        if counts[k] == 0:
            if done:
                into_copies.set(tools.packed([done / transform.k]))
                into_copies.run()
            return True
        into_means.set(tools.packed([1 / (done + 1)]))
        with self._optimizer._exclusive():
            self._backend.changes([(self, "_counts", counts)], jobs=[into_means], fills=fills).make()
        return False

    def _pass_finite(
        self, transform: apply_if_finite, k: int, present: list[np.ndarray], counts: list[int], fills: list[Any]
    ) -> bool:
        """Counts errors in a row; whether the step is to be taken."""
        squares, _ = _schuss.sum_of_squares(present)
        if np.isfinite(squares):
            counts[k] = 0
            return True
        counts[k] += 1
        if counts[k] > transform.max_consecutive_errors:
            return True
        self._backend.changes([(self, "_counts", counts)], fills=fills).make()
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        end = self._copied()
        return type(self), (self._optimizer, self._transforms), (_state.state_dict(self), end)

    def __repr__(self) -> str:
        listed = ", ".join(map(repr, self._transforms))
        return f"Transformed([{listed}]) around {self._optimizer!r}"
