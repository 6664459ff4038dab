"""Schedule-free SGD, AdamW and RAdam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from schuss._core.hyperparameters import Pair, Range, Rate, WeightDecay, check_of
from schuss._core.optimizer import Optimizer

#: The interpolation between average and iterate; with 0 the average could not be computed from the parameters.
Interpolation = Annotated[float, Range(open_low=True, high=1.0)]
WholeNumber = Annotated[int, Range(low=0.0)]
Mode = Literal["train", "eval"]


class _ScheduleFree(Optimizer):
    """The base of schedule-free optimizers: two modes, in which the parameters have different values."""

    _settings = (*Optimizer._settings, "mode")
    _decay_form = "own"
    _fixed_momentum = "needs the same in every step"

    @property
    def mode(self) -> Mode:
        """``"train"`` if the parameters are those for gradients and steps, ``"eval"`` if they are the average."""
        return self._mode

    def eval(self) -> None:
        """Sets the parameters to the average, for evaluation and for saving them; in this mode there are no steps.

        On an error nothing has changed. If the parameters are the average already, nothing happens.

        Raises
        ------
        ValueError
            A parameter was resized, re-pointed or made read-only.
        RuntimeError
            Another thread is stepping, saving or loading the optimizer.
        """
        self._switch("eval")

    def train(self) -> None:
        """Sets the parameters back to those for gradients and steps; see :meth:`eval`."""
        self._switch("train")

    def _switch(self, mode: Mode) -> None:
        with self._exclusive():
            if mode != self._mode:
                self._backend.run(self, mode, None, [(self, "_mode", mode)])

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        return check_of(Mode)(place or name, value) if name == "mode" else super()._checked(name, value, place)

    def _check_setting(self, where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        name = "momentum" if "momentum" in before else "betas"
        first = [hypers[name] if name == "momentum" else hypers[name][0] for hypers in (before, after)]
        if first[0] != first[1] and self.mode == "train" and self.step_count:
            raise ValueError(
                f"{where}{name} cannot change in train mode, since the average is computed with it; call eval(), set "
                "it, and call train()"
            )

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {"rectified": False, "silent": False, "warmup_steps": 0, **super()._rule_values(hypers)}

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        if hypers.get("betas", (1.0,))[0] == 0:
            raise ValueError(f"{cls.__name__} needs betas[0] > 0: with 0 the parameters do not determine the average")


class ScheduleFreeSGD(_ScheduleFree):
    r"""Schedule-free SGD: momentum and a learning-rate schedule are replaced by an average of the iterates.

    With the weight :math:`w = t^r \eta_{max}^\rho` of a step, where :math:`\eta_{max}` is the largest learning rate so
    far, and :math:`\beta_1` = `momentum`,

    .. math::

       & c = w / \textstyle\sum w \\
       & z \leftarrow z - \eta (g + \lambda y) \\
       & x \leftarrow (1 - c) x + c z \\
       & y \leftarrow \beta_1 x + (1 - \beta_1) z

    The parameters have two modes. In train mode they are :math:`y`, where gradients are to be computed; ``eval()`` sets
    them to the average :math:`x`, which is the result of training, and ``train()`` back to :math:`y`. A step in eval
    mode is an error. ``state_dict()`` has the mode: load it together with the parameters of that mode.

    The state has one array, `z`, and two numbers for each array, the sum of weights and :math:`\eta_{max}`; `x` is
    computed from `y` and `z`, so switching to eval and back rounds the parameters once or twice. The error of `x` is
    that of `y` divided by :math:`\beta_1`: do not make `momentum` tiny.

    Parameters
    ----------
    lr : float or callable, default 1.0
        Learning rate :math:`\eta`, >= 0. It needs no schedule.
    momentum : float, default 0.9
        :math:`\beta_1` in (0, 1).
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, with the parameters of train mode.
    warmup_steps : int, default 0
        In the first steps the learning rate is multiplied by ``t / warmup_steps``.
    r : float, default 0.0
        Power of the step in its weight, >= 0.
    weight_lr_power : float, default 2.0
        :math:`\rho` >= 0.

    References
    ----------
    Defazio et al., "The road less scheduled", arXiv:2405.15682.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0])
    >>> opt = schuss.ScheduleFreeSGD(w, lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     taken = opt.step(w)  # the gradient of w**2 / 2
    >>> w
    array([0.3125])
    >>> opt.eval()
    >>> w
    array([0.375])
    """

    lr: Rate = 1.0
    momentum: Interpolation = 0.9
    weight_decay: WeightDecay = 0.0
    warmup_steps: WholeNumber = 0
    r: float = 0.0
    weight_lr_power: float = 2.0

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "beta1": hypers["momentum"], "beta2": 0.0, "eps": 0.0}


class ScheduleFreeAdamW(_ScheduleFree):
    r"""Schedule-free AdamW: `ScheduleFreeSGD` with Adam's denominator.

    .. math::

       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & z \leftarrow z - \eta \left(\frac{g}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon} + \lambda y\right)

    and the rest as there, with ``eval()`` and ``train()``. The state has two arrays, `v` and `z`. Keras's class of this
    name decays the parameters directly, without warm-up, and has other weights.

    Parameters
    ----------
    betas : pair of float, default (0.9, 0.999)
        :math:`\beta_1` in (0, 1), :math:`\beta_2` in [0, 1).
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, with the parameters of train mode.
    warmup_steps : int, default 0
        In the first steps the learning rate is multiplied by ``t / warmup_steps``.
    r : float, default 0.0
        Power of the step in its weight, >= 0.
    weight_lr_power : float, default 2.0
        Power of the largest learning rate in it, >= 0.

    References
    ----------
    Defazio et al., "The road less scheduled", arXiv:2405.15682.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.ScheduleFreeAdamW(w, lr=0.1, eps=0.0)
    >>> opt.step(np.array([3.0, -4.0]))
    True
    >>> opt.eval()
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 2.5e-3
    betas: Pair = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    warmup_steps: WholeNumber = 0
    r: float = 0.0
    weight_lr_power: float = 2.0


class ScheduleFreeRAdam(_ScheduleFree):
    r"""Schedule-free RAdam: `ScheduleFreeAdamW` with RAdam's rectification of the learning rate instead of a warm-up.

    Once RAdam's :math:`\rho` exceeds 4, the learning rate is multiplied by its factor :math:`r`; see `RAdam`. The state
    is that of `ScheduleFreeAdamW`, and there are ``eval()`` and ``train()``.

    Parameters
    ----------
    betas : pair of float, default (0.9, 0.999)
        :math:`\beta_1` in (0, 1), :math:`\beta_2` in [0, 1).
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, with the parameters of train mode.
    r : float, default 0.0
        Power of the step in its weight, >= 0.
    weight_lr_power : float, default 2.0
        Power of the largest learning rate in it, >= 0.
    silent_sgd_phase : bool, default True
        Until then nothing moves; ``False`` takes steps without the denominator, at the full learning rate.

    References
    ----------
    Defazio et al., "The road less scheduled", arXiv:2405.15682. RAdam: arXiv:1908.03265.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.ScheduleFreeRAdam(w, lr=0.1, silent_sgd_phase=False)
    >>> opt.step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.7, -1.6])
    """

    lr: Rate = 2.5e-3
    betas: Pair = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    r: float = 0.0
    weight_lr_power: float = 2.0
    silent_sgd_phase: bool = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "schedulefreeadamw"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "rectified": True, "silent": hypers["silent_sgd_phase"]}
