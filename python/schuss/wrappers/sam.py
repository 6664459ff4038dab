"""SAM: the step of any optimizer, with gradients from where the loss is worse nearby. It knows no optimizer class."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import trees
from schuss._backends import tools
from schuss._backends.protocol import Change
from schuss._core import validate
from schuss._core.hyperparameters import check_of
from schuss._core.optimizer import Optimizer
from schuss._core.settings import setting
from schuss.wrappers.base import Wrapper


def _distances(place: str, value: Any) -> float | tuple[float, ...]:
    """A distance, or one for each group."""
    if isinstance(value, (list, tuple)):
        return tuple(validate.number(f"{place}[{group}]", one) for group, one in enumerate(value))
    return validate.number(place, value)


class SAM(Wrapper):
    r"""Sharpness-aware minimization around an optimizer, and with ``adaptive`` ASAM.

    With the gradients :math:`g` at the parameters, and :math:`T = 1`, or :math:`T = |p| + \zeta` for each element with
    ``adaptive``,

    .. math:: p' = p + \rho \, \frac{T^2 g}{\lVert T g \rVert + \epsilon}

    where the norm is that over all arrays of all groups. The optimizer then takes its step from :math:`p`, which is
    restored exactly, with the gradients at :math:`p'`.

    Parameters
    ----------
    optimizer : Optimizer
        An optimizer over NumPy arrays whose step takes gradients; from now on step the SAM instead.
    rho : float, or list or tuple of float, default 0.05
        The distance :math:`\rho` >= 0, or one for each group; a group that is added gets the last one. The authors of
        ASAM use 0.5 with ``adaptive``.
    adaptive : bool, default False
        Measure the distance relative to each parameter: ASAM.
    eps : float, default 1e-12
        :math:`\epsilon` >= 0, for a norm of 0.
    eta : float, default 0.0
        :math:`\zeta` >= 0, for ``adaptive``; 0.01 in the paper, 0 in other packages.

    Raises
    ------
    TypeError, ValueError
        ``optimizer`` is no such optimizer, a value is out of range, or there are not as many distances as groups.

    References
    ----------
    Foret et al., "Sharpness-aware minimization for efficiently improving generalization", arXiv:2010.01412. ASAM: Kwon
    et al., arXiv:2102.11600.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0, -4.0])
    >>> opt = schuss.SAM(schuss.SGD(w, lr=0.5), rho=1.0)
    >>> opt.step(lambda: w)  # the gradients of w**2 / 2 where w is
    True
    >>> w.round(6)
    array([ 1.2, -1.6])
    """

    _own_settings = {"rho": _distances, "adaptive": check_of(bool), "eps": check_of(float), "eta": check_of(float)}
    _wrapper = "SAM"
    _shown = "SAM's ascended point"
    _leave = "call second_step()"

    _rho: float | tuple[float, ...]

    def __init__(
        self,
        optimizer: Optimizer,
        rho: float | Sequence[float] = 0.05,
        adaptive: bool = False,
        eps: float = 1e-12,
        eta: float = 0.0,
    ) -> None:
        self._wrap(optimizer, rho=rho, adaptive=adaptive, eps=eps, eta=eta)

    def _check_wrapped(self) -> None:
        #: The context of the ascended point, from `first_step` to `second_step`.
        self._ascended: contextlib.AbstractContextManager[None] | None = None
        inner = self._stepped
        if not self._optimizer._takes_gradients:
            raise TypeError(f"SAM wraps an optimizer whose step takes gradients, not {self._optimizer._name()}")
        if inner._params and not isinstance(inner._params[0], np.ndarray):
            raise TypeError("SAM works on NumPy arrays only; the optimizer's are on a GPU")
        self._of_groups("rho", self._rho)

    rho = setting("rho", "The distance, or one for each group.")

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        checked = super()._checked(name, value, place)
        if name == "rho":
            self._of_groups(place or name, checked)
        return checked

    def _group_added(self, group: Mapping[str, Any], others: Sequence[Any] = ()) -> list[Change]:
        changes = super()._group_added(group, others)
        if isinstance(self._rho, tuple):
            changes.insert(0, (self, "_rho", (*self._rho, self._rho[-1])))
        return changes

    def _of_groups(self, place: str, rho: float | tuple[float, ...]) -> Sequence[float]:
        """The distance of each group."""
        groups = len(self.param_groups)
        if not isinstance(rho, tuple):
            return [rho] * groups
        if len(rho) != groups:
            raise ValueError(
                f"{place} has {len(rho)} numbers, but the optimizer has {groups} groups; give one number for all or "
                "one for each group"
            )
        return rho

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        grad_scale: float = 1.0,
        zero_grads: bool = False,
        partial: bool = False,
    ) -> bool:
        """Takes one step with two calls of the closure; if it raises, parameters and state are unchanged.

        With ``nonfinite="skip"`` there is one call if its gradients have a NaN or an infinity: the step is skipped,
        also if transforms inside would make them finite.

        Parameters
        ----------
        closure : callable
            Returns the gradients at the current values of the parameters, in the structure of the parameters; None
            leaves an array alone. Meanwhile the optimizers can be read, and only the hyperparameters of groups set.
        grad_scale : float, default 1.0
            Gradients are divided by this first.
        zero_grads : bool, default False
            Set the second gradients to zero once they have been used.
        partial : bool, default False
            Whether dicts of gradients may lack keys; what is missing is as None.

        Returns
        -------
        bool
            Whether the step was taken; False if ``nonfinite="skip"`` and a gradient has a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            There is no closure, or it does not return valid gradients; nothing has changed.
        FloatingPointError
            A gradient has a NaN or an infinity and ``nonfinite="error"``; nothing has changed.
        """
        if not callable(closure):
            raise TypeError("SAM needs a closure: opt.step(lambda: the gradients at the present parameters)")
        self._refuse_shown()
        self._refuse_evaluating()
        scale, zero, part = self._step_options(grad_scale, zero_grads, partial)
        inner = self._stepped
        with _schuss.ExclusiveLock(inner, read_only=True):
            grads = closure()
        usable = self._usable(grads, part)
        if self.nonfinite == "skip" and not np.isfinite(_schuss.sum_of_squares(list(usable.values()))[0]):
            # The optimizer inside skips it; a wrapper such as Transformed could make it a step without an ascent.
            with _schuss.AfterStep(inner, None, self):
                return inner.step(grads, grad_scale=scale, partial=part)
        with self._ascent(usable, scale):
            grads = inner._without_overlap(closure(), zero, part)
        with _schuss.AfterStep(self._optimizer, None, self):
            return self._optimizer.step(grads, grad_scale=scale, zero_grads=zero, partial=part)

    def first_step(self, grads: Any, *, grad_scale: float = 1.0, partial: bool = False) -> None:
        """Moves the parameters to the ascended point, for `second_step`; meanwhile nothing else can change them.

        With ``nonfinite="skip"`` gradients are not checked here: call it with finite ones.

        Parameters
        ----------
        grads : structure of arrays
            The gradients at the parameters.
        grad_scale : float, default 1.0
            What they are divided by first.
        partial : bool, default False
            Whether dicts of gradients may lack keys.

        Raises
        ------
        TypeError, ValueError
            They do not fit; nothing has changed.
        FloatingPointError
            One has a NaN or an infinity and ``nonfinite="error"``; nothing has changed.
        RuntimeError
            The parameters are there already.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> w = np.array([3.0, -4.0])
        >>> opt = schuss.SAM(schuss.SGD(w, lr=0.5), rho=1.0)
        >>> opt.first_step(w.copy())
        >>> w.round(6)
        array([ 3.6, -4.8])
        >>> opt.second_step(w.copy())
        True
        >>> w.round(6)
        array([ 1.2, -1.6])
        """
        self._refuse_shown()
        self._refuse_evaluating()
        scale, _, part = self._step_options(grad_scale, None, partial)
        ascent = self._ascent(self._usable(grads, part), scale)
        ascent.__enter__()
        self._ascended = ascent  # an object that is dropped restores the parameters

    def second_step(
        self, grads: Any, *, grad_scale: float = 1.0, zero_grads: bool = False, partial: bool = False
    ) -> bool:
        """Restores the parameters, then takes the optimizer's step with gradients from the ascended point.

        Arguments, result and errors are those of the optimizer's ``step``; after an error in the gradients the
        parameters are restored.

        Raises
        ------
        RuntimeError
            There was no `first_step`.
        """
        if self._ascended is None:
            raise RuntimeError("the parameters are not at SAM's ascended point; call first_step(grads) first")
        ascent = self._ascended
        try:
            scale, zero, part = self._step_options(grad_scale, zero_grads, partial)
            grads = self._stepped._without_overlap(grads, zero, part)
        finally:
            self._ascended = None
            ascent.__exit__(None, None, None)
        return self._optimizer.step(grads, grad_scale=scale, zero_grads=zero, partial=part)

    def _ascent(self, usable: Mapping[int, Any], grad_scale: float) -> contextlib.AbstractContextManager[None]:
        """The context of the ascended point for these gradients."""
        inner = self._stepped
        if self.nonfinite == "error":
            inner._refuse_nonfinite(usable)
        signs = {group["maximize"] for group in self.param_groups}
        if len(signs) > 1:
            raise ValueError("SAM needs the same maximize in all groups, since there is one direction for all of them")
        sign = -1.0 if signs.pop() else 1.0
        others = [float(self._option("adaptive")), self._option("eps") * grad_scale, self._option("eta")]
        values = [[sign * rho, *others] for rho in self._of_groups("rho", self._rho)]
        groups = [inner._suffixes[i][0] for i in usable]
        job = tools.grouped("ascend", [inner._params[i] for i in usable], values, groups, list(usable.values()))
        inner._shown_now = (self._shown, self._leave)
        # Not the wrappers: this one has the context, and an object that refers to itself is not dropped at once.
        return self._backend.other_values(inner, [], job)

    def _usable(self, grads: Any, partial: bool) -> dict[int, Any]:
        """The gradients that there are, by the number of their array, converted or copied only if necessary."""
        self._refuse_added()
        inner = self._stepped
        self._backend.refuse_changed(inner)
        separate = None if grads is None else _schuss.apart(inner, grads, partial)
        if separate is not None:
            return {i: g for i, g in enumerate(separate) if g is not None}
        inner._explain_structure(grads, partial)
        leaves = {i: g for i, _, g in trees.leaves(inner._root(), grads, "grads", "params", partial=partial)}
        return {
            i: inner._gradient(i, g, not isinstance(g, np.ndarray) or inner._is_written(g), False)
            for i, g in sorted(leaves.items())
            if g is not None
        }

    @property
    def _takes_gradients(self) -> bool:
        return False

    def _refuse_shown(self) -> None:
        if self._ascended is not None:
            raise RuntimeError(f"the parameters are at {self._shown}; {self._leave} first")
        super()._refuse_shown()
