from collections.abc import Sequence
from typing import Any, TypedDict, type_check_only

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

__all__ = [
    "Core",
    "__version__",
    "are_apart",
    "cpu_level",
    "cpu_levels",
    "get_num_threads",
    "keep_params",
    "register_bfloat16",
    "restore_params",
    "rules",
    "set_num_threads",
    "solve_damped",
    "sum_of_squares",
    "update",
]

__version__: str

@type_check_only
class _Rule(TypedDict):
    doc: str
    hypers: list[str]
    states: list[str]
    scalars: list[str]
    each_step: str
    update: str

@disjoint_base
class Core:
    def __new__(cls, *_args: Any, **_kwargs: Any) -> Core: ...
    @property
    def step_count(self) -> int: ...
    @property
    def skipped_steps(self) -> int: ...
    @property
    def grad_norm(self) -> float | None: ...
    def _configure(self, max_grad_norm: float | None, nonfinite: str) -> None: ...
    def _add_group(
        self,
        rule: str,
        values: npt.NDArray[np.float64],
        params: Sequence[np.ndarray],
        states: Sequence[Sequence[np.ndarray]],
        center: Sequence[bool],
        tree: Any,
    ) -> None: ...
    def _counters(self) -> tuple[int, int, list[int]]: ...
    def _set_counters(self, steps: int, skipped: int, groups: Sequence[int]) -> None: ...
    def _check_idle(self) -> None: ...
    def _hold(self) -> None: ...
    def _release(self) -> None: ...
    def step(self, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False) -> bool: ...

def update(
    rule: str,
    values: npt.NDArray[np.float64],
    step: int,
    params: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    states: Sequence[Sequence[np.ndarray]],
    center: bool,
    copy: bool,
) -> None: ...
def sum_of_squares(arrays: Sequence[np.ndarray]) -> float: ...
def keep_params(core: Core, block: npt.NDArray[np.uint8]) -> int | None: ...
def restore_params(core: Core, block: npt.NDArray[np.uint8]) -> int | None: ...
def are_apart(core: Core, grads: Any) -> bool: ...
def solve_damped(
    hessian: npt.NDArray[np.float64], rhs: npt.NDArray[np.float64], damping: float, raise_: bool
) -> tuple[float, int | None]: ...
def register_bfloat16(dtype: np.dtype[Any]) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def cpu_level() -> str: ...
def cpu_levels() -> list[str]: ...
def rules() -> dict[str, _Rule]: ...
