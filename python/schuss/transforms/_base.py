"""The base class of gradient transforms. It knows no transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from schuss import _schuss
from schuss._core import validate

#: What a transform does in each step: a job or, if that is not always the same, a function of the step's number, the
#: first of which is 1, of the number of calls since the last step, and of the transform's place in the list.
Prepared = _schuss.Job | Callable[[int, int, int], None]


class Transform(validate.Frozen, ABC):
    """The base class of all transforms.

    Examples
    --------
    >>> from schuss import transforms
    >>> isinstance(transforms.clip(1.0), transforms.Transform)
    True
    """

    @property
    def _most_counted(self) -> float:
        """The largest number that its counter can have."""
        return 0

    @abstractmethod
    def _prepare(self, grads: Mapping[int, np.ndarray], params: Sequence[np.ndarray]) -> Prepared | None:
        """What changes these gradients, by the number of their parameter, in place in each step."""
