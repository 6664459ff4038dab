"""The base class of gradient transforms. It knows no transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Transform(ABC):
    """The base class of all transforms.

    Examples
    --------
    >>> from schuss import transforms
    >>> isinstance(transforms.clip(1.0), transforms.Transform)
    True
    """

    @abstractmethod
    def _apply(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray], step: int) -> None:
        """Changes gradients, by the number of their parameter, in place; the first step is 1."""

    def _set_checked(self, **checked: Any) -> None:
        """Replaces fields by their checked values, which a frozen dataclass allows only this way."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)
