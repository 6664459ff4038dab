"""The base class of gradient transforms. It knows no transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from schuss import _schuss

#: What a transform does in each step: a job or, if that is not always the same, a function of the step's number, from
#: 1, and of the numbers of the arrays that have a gradient.
Prepared = _schuss.Job | Callable[[int, Sequence[int]], None]


class Transform(ABC):
    """The base class of all transforms.

    Examples
    --------
    >>> from schuss import transforms
    >>> isinstance(transforms.clip(1.0), transforms.Transform)
    True
    """

    @abstractmethod
    def _prepare(self, grads: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> Prepared | None:
        """What changes these gradients in place in each step; arrays without one may be changed too."""

    def _set_checked(self, **checked: Any) -> None:
        """Replaces fields by their checked values, which a frozen dataclass allows only this way."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)
