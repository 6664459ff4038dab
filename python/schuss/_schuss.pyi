from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict, final, type_check_only

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, disjoint_base

__all__ = [
    "AtLookAhead",
    "Core",
    "CudaBlock",
    "CudaEvent",
    "CudaWork",
    "ExclusiveLock",
    "SavedParams",
    "__version__",
    "are_apart",
    "clip_factor",
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
    "cuda_stream",
    "cuda_synchronize",
    "cuda_units",
    "get_num_threads",
    "prologue",
    "register_bfloat16",
    "rule_tree",
    "rules",
    "run",
    "set_num_threads",
    "sum_of_squares",
]

__version__: str

#: Batch, rows and columns as they lie in memory, whether rows are columns there, and how many matrices are interleaved.
_Matrix: TypeAlias = tuple[int, int, int, bool, int]

@type_check_only
class _State(TypedDict):
    name: str
    scope: Literal["element", "backup", "row", "col", "array", "all"]
    nonnegative: bool
    exact: bool
    initial: float | str

@type_check_only
class _Rule(TypedDict):
    hypers: list[str]
    states: list[_State]
    needs_matrix: bool
    elementwise: bool
    programs: list[str]

@disjoint_base
class Core:
    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    @property
    def step_count(self) -> int: ...
    @property
    def skipped_steps(self) -> int: ...
    @property
    def grad_norm(self) -> float | None: ...
    def _configure(self, max_grad_norm: float | None, nonfinite: str) -> None: ...
    def _set_seed(self, seed: int | None) -> None: ...
    def _set_backend(self, backend: Any) -> None: ...
    def _add_group(
        self,
        rules: Sequence[tuple[str, npt.NDArray[np.float64]]],
        rule_of: Sequence[int],
        params: Sequence[np.ndarray],
        states: Sequence[Sequence[np.ndarray]],
        matrices: Sequence[_Matrix | None],
        tree: Any,
        state_dtype: str | None,
        master: bool,
        shared: npt.NDArray[np.float64] | None,
    ) -> None: ...
    def _counters(self) -> tuple[int, int, list[int]]: ...
    def _set_counters(self, steps: int, skipped: int, groups: Sequence[int]) -> None: ...
    def _check_idle(self) -> None: ...
    def _changed_param(self) -> int | None: ...
    def step(self, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False) -> bool: ...

def run(
    rule: str,
    program: str,
    values: npt.NDArray[np.float64],
    step: int,
    params: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    states: Sequence[Sequence[np.ndarray]],
    matrices: Sequence[_Matrix | None],
    shared: npt.NDArray[np.float64] | None = None,
    factor: float = 1.0,
) -> None: ...
def sum_of_squares(arrays: Sequence[np.ndarray]) -> float: ...
def clip_factor(sum_of_squares: float, grad_scale: float, max_norm: float) -> tuple[float, float]: ...

@final
class ExclusiveLock:
    def __new__(cls, *cores: Core, nobody: bool = False) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...

@final
class AtLookAhead:
    def __new__(cls, core: Core) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...

@final
class SavedParams:
    def __new__(cls, core: Core) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...

def are_apart(core: Core, grads: Any) -> bool: ...
def register_bfloat16(dtype: np.dtype[Any]) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def cpu_level() -> str: ...
def cpu_levels() -> list[str]: ...
def rules() -> dict[str, _Rule]: ...
def rule_tree(name: str) -> dict[str, Any] | None: ...
def prologue() -> tuple[tuple[str, str, str], tuple[str, str, str]]: ...

# What is in a build with CUDA, which is the default.

@final
class CudaBlock:
    def __new__(cls, device: int, bytes: int, pinned: bool) -> Self: ...
    @property
    def pointer(self) -> int: ...

@final
class CudaEvent:
    def __new__(cls, device: int) -> Self: ...
    def record(self, stream: int) -> None: ...
    def wait(self) -> None: ...

@final
class CudaWork:
    def __new__(cls, device: int) -> Self: ...
    def add_group(
        self,
        rules: Sequence[tuple[str, int]],
        arrays: Sequence[tuple[int, int, str, int, Sequence[int], _Matrix | None]],
    ) -> None: ...
    def step(
        self,
        program: str,
        values: Sequence[Sequence[float]],
        steps: Sequence[int],
        grads: Sequence[int],
        types: Sequence[str],
        grad_scale: float,
        max_norm: float | None,
        finite: bool,
        zero_grads: bool,
        stream: int,
        shared: npt.NDArray[np.float64] | None = None,
    ) -> tuple[tuple[int, int] | None, float | None]: ...
    def measure(
        self, grads: Sequence[int], types: Sequence[str], grad_scale: float, max_norm: float | None, stream: int
    ) -> tuple[tuple[int, int] | None, float, float]: ...
    def norm(self) -> float | None: ...

def cuda_driver() -> int: ...
def cuda_count() -> int: ...
def cuda_device_of(pointer: int) -> int | None: ...
def cuda_nvrtc(candidates: Sequence[str], newest: int) -> tuple[int, int]: ...
def cuda_compile(source: str, target: str) -> bytes: ...
def cuda_units() -> list[tuple[str, str, tuple[str, str] | None]]: ...
def cuda_source(rule: str, program: str, types: tuple[str, str] | None = None) -> str: ...
def cuda_copy(device: int, to: int, source: int, bytes: int, stream: int) -> None: ...
def cuda_fill(device: int, to: int, byte: int, bytes: int, stream: int) -> None: ...
def cuda_stream(device: int) -> int: ...
def cuda_synchronize(device: int, stream: int) -> None: ...
def cuda_order(device: int, first: int, then: int) -> None: ...
