from collections.abc import Sequence
from typing import Any, TypedDict, final, type_check_only

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

__all__ = [
    "Core",
    "CudaBlock",
    "CudaWork",
    "__version__",
    "are_apart",
    "cpu_level",
    "cpu_levels",
    "cuda_compile",
    "cuda_copy",
    "cuda_count",
    "cuda_device_of",
    "cuda_driver",
    "cuda_fill",
    "cuda_nvrtc",
    "cuda_order",
    "cuda_source",
    "cuda_synchronize",
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

# What is in a build with CUDA, which is the default.

@final
class CudaBlock:
    def __new__(cls, device: int, bytes: int, pinned: bool) -> CudaBlock: ...
    @property
    def pointer(self) -> int: ...

@final
class CudaWork:
    def __new__(cls, device: int) -> CudaWork: ...
    def add_group(
        self, rule: str, values: int, arrays: Sequence[tuple[int, str, int, Sequence[int], int, bool]]
    ) -> None: ...
    def step(
        self,
        values: Sequence[Sequence[float]],
        steps: Sequence[int],
        grads: Sequence[int],
        types: Sequence[str],
        grad_scale: float,
        max_norm: float | None,
        finite: bool,
        after: int,
        stream: int,
    ) -> tuple[tuple[int, int] | None, float | None]: ...
    def norm(self) -> float | None: ...

def cuda_driver() -> int: ...
def cuda_count() -> int: ...
def cuda_device_of(pointer: int) -> int | None: ...
def cuda_nvrtc(candidates: Sequence[str], newest: int) -> tuple[int, int]: ...
def cuda_compile(source: str, target: str) -> bytes: ...
def cuda_source(rule: str, param: str, grad: str, centered: bool) -> list[str]: ...
def cuda_copy(device: int, to: int, source: int, bytes: int, stream: int) -> None: ...
def cuda_fill(device: int, to: int, byte: int, bytes: int, stream: int) -> None: ...
def cuda_synchronize(device: int, stream: int) -> None: ...
def cuda_order(device: int, first: int, then: int) -> None: ...
