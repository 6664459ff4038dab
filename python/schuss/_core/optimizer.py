"""The base class of all optimizers: the methods that users call.

It knows no rule: a subclass adds its hyperparameters and says which rule they select. How one is made is in
`construction`, the step itself in the extension module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, overload

from schuss import _schuss
from schuss._arrays import trees
from schuss._core import documentation, loading, rows, stepping
from schuss._core import state as _state
from schuss._core.construction import Construction
from schuss._core.given_groups import check_group


class Optimizer(Construction):
    """The base class of all optimizers; use one of its subclasses.

    A subclass declares its hyperparameters: annotated class attributes, with their defaults, are the parameters of its
    constructor. It overrides ``_rule`` if its rule does not have the class's name in lower case, and ``_rule_values``
    if the rule's hyperparameters have other names.
    """

    # Here too, so that help() and completion show it with the other methods.
    step = _schuss.Core.step

    def step_rows(self, grads: Any, *, grad_scale: float = 1.0, partial: bool = False) -> bool:
        """Takes a step in which arrays may have gradients for some of their rows only, such as tables of embeddings.

        Only these rows, slices along the first axis, and their states are read and written: all other rows are left
        alone, as arrays without a gradient are. The cost does not depend on the size of the table.

        Parameters
        ----------
        grads : structure
            In the structure of the parameters. For some rows of an array, a pair ``(indices, values)``: integers of
            shape ``(k,)``, >= 0 and in any order, and floating-point numbers of shape ``(k, *row)``. The gradients of
            an index that occurs several times are added, in their order, in the dtype that the update is computed in.
            For a whole array a gradient, or None, as for :meth:`step`.
        grad_scale : float, default 1.0
            What gradients are divided by first, finite and > 0.
        partial : bool, default False
            Whether dicts may lack keys; what is missing is as None.

        Returns
        -------
        bool
            Whether the step was taken; it is not when ``nonfinite="skip"`` and a gradient has a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            Gradients or indices do not fit, the table is in Fortran order or on a GPU, the state is int8, or this
            optimizer cannot step over rows; nothing has changed.
        FloatingPointError
            A gradient has a NaN or an infinity and ``nonfinite="error"``; nothing has changed.
        RuntimeError
            The optimizer is in the middle of a step, or of being saved or loaded, in another thread.

        Notes
        -----
        `SGD`, `Adagrad`, `Adadelta`, `RMSprop`, `Adam`, `AdamW`, `AdamMini` with a block for each row, `Lion` and
        `FTRL` can. A call is one step of the optimizer and of the arrays that have any gradient: schedules and bias
        corrections count it for all of their rows. Momentum, averages and weight decay act in the steps in which a row
        has a gradient, with the same bits as in a step over the whole array; with ``catch_up=True``, `Adam` makes up
        for the decay of the moments in the others. Norms for clipping are those of the sums, added up after those of
        whole arrays.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> table = np.ones((5, 2))
        >>> opt = schuss.SGD({"table": table, "bias": np.ones(2)}, lr=0.5)
        >>> opt.step_rows({"table": ([3, 0, 3], np.ones((3, 2))), "bias": np.ones(2)})
        True
        >>> table
        array([[0.5, 0.5],
               [1. , 1. ],
               [1. , 1. ],
               [0. , 0. ],
               [1. , 1. ]])
        """
        return rows.step(self, grads, grad_scale, partial)

    def stepping(self) -> stepping.Stepping:
        """Begins a step that is taken array by array, as soon as each gradient exists.

        A backward pass can then update each layer while its gradient is in the cache, and needs memory for one gradient
        instead of all. In ``with opt.stepping() as update``, ``update(param, gradient, grad_scale=1.0)`` updates one
        array in place, at most once; it checks the gradient as :meth:`step` does, and on an error leaves this array as
        it was. A block with an update is one step of the optimizer: schedules and bias corrections count it once, and
        arrays that were not updated are left alone, like those without a gradient. Results have the bits of
        :meth:`step`, unless a gradient is itself a parameter that was updated before. Within the block other calls of
        the optimizer are refused; hyperparameters can be set, for the arrays that follow. The first block makes what
        later ones use.

        Returns
        -------
        context manager
            It gives the function that updates one array.

        Raises
        ------
        TypeError, ValueError
            At the beginning of the block: this optimizer cannot, since its step takes more than gradients (`NAG`,
            `LBFGS`, `Newton`), an array's update depends on the others (`Prodigy`, `Adai` and others) or needs matrix
            products (`Muon`, `SOAP`, `Shampoo`); it is a wrapper or `Ranger`; gradients are clipped by the global norm,
            or ``track_grad_norm`` measures it; ``nonfinite="skip"``; or arrays are on a GPU. Within it: the gradient or
            the array does not fit.
        RuntimeError
            The optimizer is in use.

        Examples
        --------
        A backward pass must use a layer's weights before they are updated.

        >>> import numpy as np, schuss
        >>> x, w1, w2 = np.ones((4, 3)), np.ones((3, 2)), np.ones((2, 1))
        >>> opt = schuss.SGD([w1, w2], lr=0.5)
        >>> h = x @ w1
        >>> dy = h @ w2 - 1.0
        >>> with opt.stepping() as update:
        ...     dh = dy @ w2.T
        ...     update(w2, h.T @ dy / len(x))
        ...     update(w1, x.T @ dh / len(x))
        >>> opt.step_count
        1
        """
        return stepping.Stepping(self)

    # Construction, and groups.

    @classmethod
    def _documented(cls, doc: str) -> str:
        defaults = {field.name: field.default for field in cls._parameters.values()}
        return documentation.completed(doc, cls._parameters, cls._takes_int8(defaults))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Optimizer is what all optimizers have in common; make one of those in schuss.OPTIMIZERS")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group.

        From then on gradients are a list with one structure per group. The group's bias corrections start at its own
        first step; a learning-rate schedule is called with the optimizer's step count.

        Parameters
        ----------
        group : dict
            ``{"params": <structure of arrays>, "lr": ..., ...}``; missing hyperparameters take the constructor's
            values.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> opt = schuss.SGD([np.ones(3)], lr=0.1)
        >>> opt.add_param_group({"params": [np.ones(2)], "lr": 0.01})
        >>> opt.step([[np.ones(3)], [np.ones(2)]])
        True
        """
        check_group(group)
        with self._exclusive():
            self._backend.changes(self._group_added(group)).make()

    # Gradients.

    @property
    def grads(self) -> Any:
        """The optimizer's own gradient buffers, in the structure of the parameters.

        They are created on first access, as zeros; ``step()`` without gradients uses them. Their dtype is the one that
        the update is computed in: float64 for float64 parameters, float32 for all others.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> w = np.ones(2)
        >>> opt = schuss.SGD({"w": w}, lr=0.5)
        >>> for _ in range(2):
        ...     opt.grads["w"] += 0.5
        >>> opt.step(zero_grads=True)
        True
        >>> w
        array([0.5, 0.5])
        """
        if self._grads is None:
            self._grads = trees.build(self._root(), self._backend.new_gradients(self._params).__getitem__)
        return self._grads

    @grads.setter
    def grads(self, value: Any) -> None:
        # `opt.grads += g` assigns the same object back; that of a list has appended to it.
        longer = isinstance(value, list) and value is self._grads and len(value) > len(self._root())
        if longer:
            del value[len(self._root()) :]
        if value is None or value is not self._grads or longer:
            place = self._place("opt.grads", *self._suffixes[0])
            raise AttributeError(f"grads cannot be replaced; write into its arrays: {place}[...] = g")

    def zero_grad(self) -> None:
        """Sets the optimizer's own gradient buffers to zero."""
        if self._grads is not None:
            leaves = trees.leaves(self._root(), self._grads, "grads", "params")
            buffers = [(place, gradient) for _, place, gradient in leaves if gradient is not None]
            for place, gradient in buffers:
                self._backend.check_zeroable(place, gradient)
            self._backend.changes(fills=[(gradient, 0.0) for _, gradient in buffers]).make()

    # Settings, state and copies.

    def _exclusive(self, *others: _schuss.Core) -> contextlib.AbstractContextManager[None]:
        """Exclusive access for a block, also to `others`; a concurrent step, save or load raises RuntimeError."""
        return self._backend.exclusive(self, *others)

    @property
    def _takes_gradients(self) -> bool:
        """Whether a step takes gradients alone: no closure, no Hessian."""
        return type(self).step is _schuss.Core.step

    @property
    def _stepped(self) -> Optimizer:
        """The optimizer that holds the arrays; wrappers have another one."""
        return self

    def _check_idle(self) -> None:
        self._backend.check_idle(self)

    def _check_setting(self, where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Raises if a group's hyperparameters `before` cannot become `after` now; `where` begins the message."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step depends on besides parameters and gradients.

        Returns
        -------
        dict
            ``optimizer`` (the class's name), ``step``, ``skipped_steps``, ``max_grad_norm``, ``nonfinite``,
            ``param_groups`` (a dict of hyperparameters and its ``step`` for each group, with ``initial_lr`` where
            something is relative to it) and ``state``: for each group a dict from the state's name to arrays in the
            structure of the group's parameters. The arrays are views of the live state, or copies if it is on a GPU:
            copy views to keep a snapshot. `Lookahead` and `Ranger` add ``k``, ``alpha``, ``pullback`` and the slow
            weights. A smaller state dtype or master weights add the options ``state_dtype``, ``state_rounding``,
            ``state_seed`` and ``master_weights``, and the array ``master``; ``"int8"`` adds ``memory_order``, and an
            array ``<name>_scale`` for each state. Numbers that all arrays share, such as Prodigy's estimate, and the
            history of `LBFGS` are in ``shared``; the schedule-free optimizers have ``mode``. A group whose arrays had
            no gradient in some steps has ``missed_steps``. Other wrappers add their settings, and `EMA` and its like
            the state ``average``. A learning-rate schedule is a function and is not saved; its entry is ``"schedule"``,
            or ``{"schedule": state}`` if it keeps state.

        Examples
        --------
        >>> import numpy as np, schuss
        >>> opt = schuss.Adam({"w": np.ones(2)})
        >>> opt.state_dict()["state"][0]["m"]
        {'w': array([0., 0.])}
        """
        return _state.state_dict(self)

    @overload
    def load_state_dict(self, state: Mapping[str, Any], *, strict: Literal[True] = True) -> None: ...
    @overload
    def load_state_dict(self, state: Mapping[str, Any], *, strict: Literal[False]) -> list[str]: ...
    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> list[str] | None:
        """Restores the result of :meth:`state_dict`; training then continues exactly as if uninterrupted.

        Arrays are copied. ``lr`` and all other hyperparameters of the groups, ``max_grad_norm`` and ``nonfinite`` come
        from `state`, as in PyTorch: set what shall differ after loading. Schedules of this optimizer are kept; those
        with state have it restored. Everything is checked first: on an error nothing has changed.

        Parameters
        ----------
        state : dict
            The result of :meth:`state_dict` of an optimizer of the same class.
        strict : bool, default True
            Raise if anything does not fit. ``False`` loads what fits, such as the body of a model whose last layer is
            new: an array whose states do not all fit keeps them, with its own step count for bias correction, or that
            of its group if this is less.

        Returns
        -------
        list of str, or None
            With ``strict=False``, a message for everything that was not loaded; else None.

        Raises
        ------
        TypeError, ValueError
            It is the state of another class or structure, or a shape, dtype or hyperparameter does not match.
        RuntimeError
            Another thread is stepping, saving or loading the optimizer.
        """
        unfit = loading.load_state_dict(self, state, strict)
        return None if strict else unfit

    def __copy__(self) -> NoReturn:
        name = self._name()
        raise TypeError(f"a shallow copy of {name} would be a second optimizer of the same arrays; use copy.deepcopy")

    def __reduce__(self) -> tuple[Any, ...]:
        self._backend.check_picklable()
        end = _state.End(self)
        arguments = (type(self), *_state.constructor_arguments(self))
        return _state.rebuild, arguments, (_state.state_dict(self), self._grads, end)

    def __setstate__(self, state: tuple[Mapping[str, Any], Any, _state.Origin]) -> None:
        kept, grads, self._origin = state
        self.load_state_dict(kept)
        self._grads = None if grads is None else _state.writable(grads)

    def __repr__(self) -> str:
        elements = sum(array.size for array in self._params)
        dtypes = ", ".join(sorted({array.dtype.name for array in self._params}))
        held = sum(state.nbytes for states in self._states for state in states)
        lines = [
            f"{self._name()}: step {self.step_count}, {len(self._params)} arrays, {elements:,} elements "
            f"({dtypes}), state {held:,} bytes"
            + "".join(f", {name}={value!r}" for name, value in self._state_format.as_dict().items())
        ]
        for i, group in enumerate(self.param_groups):
            hypers = ", ".join(f"{name}={value!r}" for name, value in group.hypers.items())
            lines.append(f"  group {i}: {len(group['params'])} arrays, {hypers}")
        return "\n".join(lines)
