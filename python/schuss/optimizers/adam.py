"""Adam, AMSGrad and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from schuss._core.hyperparameters import Betas, Cautious, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class Adam(Optimizer):
    r"""Adam: momentum divided by a running root mean square, both bias-corrected.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
       & p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        L2: ``weight_decay * p`` is added to the gradient. For decoupled decay use `AdamW`.
    amsgrad : bool, default False
        Divide by the largest :math:`v` so far: :math:`v_{max} \leftarrow \max(v_{max}, v)`, on the uncorrected
        :math:`v` as in PyTorch, Keras and the paper; Optax's default takes the maximum after the correction.
    bias_correction : bool, default True
        ``False`` leaves out :math:`1 - \beta^t` in both places.
    eps_form : {"torch", "keras"}, default "torch"
        ``"keras"`` is Keras's form, the paper's epsilon-hat:
        :math:`\eta \sqrt{1 - \beta_2^t} / (1 - \beta_1^t) \cdot m / (\sqrt{v} + \epsilon)`.
    catch_up : bool, default False
        Steps over rows (:meth:`Optimizer.step_rows`) first multiply the moments of a row by :math:`\beta_1^n` and
        :math:`\beta_2^n`, where :math:`n` is the number of steps since its last one, which the state ``last`` keeps:
        they are then those of steps over the whole array. ``False`` is lazy, as PyTorch's ``SparseAdam``, which has
        the ``eps_form`` ``"keras"``. Not with ``amsgrad``.

    References
    ----------
    Kingma and Ba, arXiv:1412.6980. AMSGrad: Reddi, Kale and Kumar, ICLR 2018.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.Adam(w, lr=0.1, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.9, -1.9])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    amsgrad: bool = False
    bias_correction: bool = True
    eps_form: Literal["torch", "keras"] = "torch"
    catch_up: bool = False

    _int8 = True
    _by_rows = True
    _old_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"catch_up": False})

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "adam_catching_up" if hypers["catch_up"] else "amsgrad" if hypers["amsgrad"] else "adam"

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        if hypers["catch_up"] and hypers["amsgrad"]:
            raise ValueError("catch_up=True has no amsgrad: the largest second moments do not decay")

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        # Only AdamW has the last ones.
        return {
            "plus_one": False,
            **super()._rule_values(hypers),
            "keras_eps": hypers["eps_form"] == "keras",
            "cautious": hypers.get("cautious") is not None,
            "by_rms": hypers.get("scale_by_rms", False),
        }

    @classmethod
    def _takes_int8(cls, hypers: Mapping[str, Any]) -> bool:
        return super()._takes_int8(hypers) and not hypers["catch_up"]  # steps over rows have no int8


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :math:`p \leftarrow (1 - \eta \lambda) p`, then the step of `Adam`.

    Parameters
    ----------
    weight_decay : float or callable, default 1e-2
        :math:`\lambda` >= 0.
    amsgrad, bias_correction, eps_form, catch_up
        As for `Adam`. The decay of parameters is not caught up.
    decay_form : {"lr", "independent"}, default "lr"
        ``"lr"``: the factor is :math:`1 - \eta \lambda`, as in PyTorch. ``"independent"``: it is
        :math:`1 - (\eta / \eta_0) \lambda` with the schedule's multiplier only, as in the paper. :math:`\eta_0` is the
        initial learning rate; for a schedule it is its attribute ``initial_lr``, or its value at step 0.
    scale_by_rms : bool, default False
        Multiply each array's update by its root mean square before the step, at least 0.001: AdamWScale of nanoT5.

    References
    ----------
    Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> schuss.AdamW(w, lr=0.1, weight_decay=1.0, eps=0.0).step(np.array([3.0, -4.0]))
    True
    >>> w
    array([ 0.8, -1.7])
    """

    weight_decay: WeightDecay = 1e-2
    decay_form: Literal["lr", "independent"] = "lr"
    cautious: Cautious = None
    scale_by_rms: bool = False

    _old_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"cautious": None, "scale_by_rms": False, "catch_up": False}
    )

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        scaled = hypers["cautious"] is not None or hypers["scale_by_rms"]
        return "adam_scaled" if scaled else super()._rule(hypers)

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        super()._check(hypers)
        for name in ("amsgrad", "catch_up"):
            if hypers[name] and cls._rule(hypers) == "adam_scaled":
                raise ValueError(f"AdamW with {name} has neither cautious nor scale_by_rms")

    @classmethod
    def _takes_rows(cls, hypers: Mapping[str, Any], array: np.ndarray) -> bool:
        return cls._rule(hypers) != "adam_scaled"

    @classmethod
    def _decay(cls, hypers: Mapping[str, Any]) -> str:
        return "independent" if hypers["decay_form"] == "independent" else "decoupled"
