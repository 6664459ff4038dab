from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, final, type_check_only

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, disjoint_base

__all__ = [
    "EVALUATING",
    "AfterStep",
    "Arrangement",
    "AtLookAhead",
    "Changes",
    "Core",
    "CudaBlock",
    "CudaEvent",
    "CudaStream",
    "CudaWork",
    "ExclusiveLock",
    "Job",
    "OtherValues",
    "OwnedMemory",
    "Shards",
    "Stepper",
    "Stepping",
    "__version__",
    "apart",
    "are_plain",
    "clip_factor",
    "cpu_level",
    "cpu_levels",
    "cuda_compile",
    "cuda_copy",
    "cuda_device_of",
    "cuda_driver",
    "cuda_least_arch",
    "cuda_nvrtc",
    "cuda_order",
    "cuda_source",
    "cuda_synchronize",
    "cuda_units",
    "cuda_zero",
    "cut_size",
    "get_num_threads",
    "prologue",
    "register_bfloat16",
    "rule_tree",
    "rules",
    "set_num_threads",
    "share_threads_with_blas",
    "sum_of_squares",
]

__version__: str
EVALUATING: str

#: Batch, rows and columns in memory order, whether rows are columns there, and how many matrices are interleaved.
_Matrix: TypeAlias = tuple[int, int, int, bool, int]

@type_check_only
class _State(TypedDict):
    name: str
    scope: Literal["element", "backup", "row", "col", "array", "all"]
    nonnegative: bool
    exact: bool
    scratch: bool
    initial: float | str

@type_check_only
class _Rule(TypedDict):
    hypers: list[str]
    states: list[_State]
    needs_matrix: bool
    elementwise: bool
    joint: bool
    programs: list[str]

@disjoint_base
class Core:
    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    @property
    def step_count(self) -> int: ...
    @property
    def skipped_steps(self) -> int: ...
    @property
    def _norms(self) -> tuple[float | None, float | None]: ...
    @property
    def _limits(self) -> tuple[float | None, bool, str]: ...
    @_limits.setter
    def _limits(self, limits: tuple[float | None, bool, str]) -> None: ...
    @property
    def _rounding_seed(self) -> int | None: ...
    @_rounding_seed.setter
    def _rounding_seed(self, seed: int | None) -> None: ...
    @property
    def _counters(self) -> tuple[int, int, list[int], list[int]]: ...
    @_counters.setter
    def _counters(self, counters: tuple[int, int, Sequence[int], Sequence[int]]) -> None: ...
    # These can only be set.
    _arrangement: Arrangement
    _reserved: Sequence[np.ndarray]
    @property
    def _read_only(self) -> bool: ...
    @property
    def _awaited(self) -> bool: ...
    def _set_backend(self, backend: Any) -> None: ...
    def _check_idle(self) -> None: ...
    @property
    def _changes(self) -> int: ...
    @property
    def _present(self) -> list[int] | None: ...
    def _changed_param(self) -> int | None: ...
    @property
    def _mode(self) -> Literal["train", "eval"]: ...
    @_mode.setter
    def _mode(self, mode: str) -> None: ...
    def _run(self, program: str, arrays: Any, changes: Changes) -> None: ...
    def _step_rows(
        self,
        grads: Any,
        rows: Sequence[tuple[int, npt.NDArray[np.int64], np.ndarray]],
        grad_scale: float,
        partial: bool,
    ) -> bool: ...
    def step(
        self, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False, partial: bool = False
    ) -> bool: ...

@final
class Arrangement:
    def __new__(
        cls,
        groups: Sequence[
            tuple[
                Sequence[tuple[str, npt.NDArray[np.float64]]],
                Sequence[int],
                Sequence[np.ndarray],
                Sequence[Sequence[np.ndarray]],
                Sequence[_Matrix | None],
            ]
        ],
        tree: Any,
        state_dtype: str | None,
        master: bool,
        shared: npt.NDArray[np.float64] | None,
        missed: Sequence[int],
        shards: Shards | None = None,
    ) -> Self: ...

@final
class Shards:
    def __new__(
        cls, rank: int, params: Sequence[np.ndarray], cuts: Sequence[Sequence[int]], bucket: int, count: int
    ) -> Self: ...
    @property
    def bytes(self) -> list[list[tuple[int, int]]]: ...
    @property
    def sums(self) -> list[int]: ...
    @property
    def gradient_bytes(self) -> int: ...
    @property
    def phase(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    def connect(
        self,
        combine: Sequence[Any],
        numbers: np.ndarray,
        starts: Sequence[Sequence[Any]],
        messages: Sequence[Sequence[np.ndarray]],
    ) -> None: ...
    def begin(self, earlier: Sequence[np.ndarray]) -> None: ...
    def refuse(self) -> None: ...

def cut_size(matrix: _Matrix | None) -> int: ...

@final
class Job:
    def __new__(
        cls,
        rule: str,
        program: str,
        values: Sequence[npt.NDArray[np.float64]],
        step: int,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        states: Sequence[Sequence[np.ndarray]],
        matrices: Sequence[_Matrix | None],
        shared: npt.NDArray[np.float64] | None = None,
        factor: float = 1.0,
        groups: Sequence[int] | None = None,
    ) -> Self: ...
    def set(self, values: Sequence[float]) -> None: ...
    def run(self) -> None: ...

@final
class Changes:
    def __new__(
        cls,
        attributes: Sequence[tuple[Any, str, Any]] = ...,
        *,
        jobs: Sequence[Job] = ...,
        copies: Sequence[tuple[np.ndarray, np.ndarray]] = ...,
        fills: Sequence[tuple[np.ndarray, float]] = ...,
        calls: Sequence[tuple[Any, tuple[Any, ...]]] = ...,
        if_skipped: bool = False,
        kept: Any = None,
    ) -> Self: ...
    def make(self) -> None: ...
    def make_after(self, calls: Sequence[tuple[Callable[[Any], Any], Any, Any]]) -> None: ...

@final
class OwnedMemory:
    def __new__(cls, array: np.ndarray) -> Self: ...
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

@final
class AfterStep:
    def __new__(cls, core: Core, changes: Changes | None, wrapper: Core | None = None) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...

@final
class Stepper:
    def __new__(cls, rule: str, values: Sequence[float], example: npt.NDArray[Any]) -> Self: ...
    def __call__(self, step: int, param: Any, grad: Any, states: Sequence[Any]) -> bool: ...

def sum_of_squares(arrays: Sequence[np.ndarray]) -> tuple[float, float]: ...
def clip_factor(squares: tuple[float, float], grad_scale: float, max_norm: float) -> tuple[float, float]: ...

@final
class ExclusiveLock:
    def __new__(cls, *cores: Core, read_only: bool = False) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...

@final
class Stepping:
    def __new__(cls, owner: Core, arrays: Sequence[Core]) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...
    def update(self, i: int, gradient: Any, grad_scale: float) -> bool: ...

@final
class AtLookAhead:
    def __new__(cls, core: Core) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...

@final
class OtherValues:
    def __new__(cls, core: Core, wrappers: Sequence[Core], job: Job) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_raised: object) -> None: ...

def are_plain(arrays: Sequence[Any], written: bool) -> bool: ...
def apart(core: Core, grads: Any, partial: bool) -> list[np.ndarray | None] | None: ...
def register_bfloat16(dtype: np.dtype[Any]) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def share_threads_with_blas(share: bool, library: tuple[list[int], int] | None) -> None: ...
def cpu_level() -> str: ...
def cpu_levels() -> list[str]: ...
def rules() -> dict[str, _Rule]: ...
def rule_tree(name: str) -> dict[str, Any] | None: ...
def prologue() -> tuple[tuple[str, str, str], tuple[str, str, str]]: ...

# Only in builds with CUDA, which is the default.

@final
class CudaBlock:
    def __new__(cls, device: int, bytes: int, pinned: bool) -> Self: ...
    @property
    def pointer(self) -> int: ...

@final
class CudaEvent:
    def __new__(cls, device: int) -> Self: ...
    def record(self, stream: int) -> None: ...
    def reached(self) -> bool: ...
    def wait(self) -> None: ...

@final
class CudaStream:
    def __new__(cls, device: int) -> Self: ...
    @property
    def handle(self) -> int: ...

@final
class CudaWork:
    def __new__(cls, device: int) -> Self: ...
    def add_group(
        self,
        rules: Sequence[tuple[str, int]],
        arrays: Sequence[tuple[int, int, str, int, Sequence[int], _Matrix | None]],
    ) -> None: ...
    def disagreement(self, values: Sequence[Sequence[float]]) -> tuple[str, float, float] | None: ...
    def step(
        self,
        program: str,
        values: Sequence[Sequence[float]],
        steps: Sequence[int],
        missed: Sequence[int],
        grads: Sequence[int],
        types: Sequence[str],
        grad_scale: float,
        max_norm: float | None,
        finite: bool,
        tracked: bool,
        zero_grads: bool,
        stream: int,
        taken: Changes | None = None,
        owner: Core | None = None,
    ) -> tuple[int, int, float] | None: ...
    # It can only be set.
    _added: tuple[Sequence[tuple[str, int]], Sequence[tuple[int, int, str, int, Sequence[int], _Matrix | None]]]
    def measure(
        self, grads: Sequence[int], types: Sequence[str], grad_scale: float, max_norm: float | None, stream: int
    ) -> tuple[tuple[int, int] | None, float, float]: ...
    def mark(self, stream: int) -> None: ...
    def hold(self, stream: int) -> None: ...
    def shared(self) -> list[float]: ...
    def set_shared(self, values: Sequence[float]) -> None: ...
    def norm(self) -> float | None: ...

def cuda_driver() -> int: ...
def cuda_least_arch() -> int: ...
def cuda_device_of(pointer: int) -> int | None: ...
def cuda_nvrtc(candidates: Sequence[str], newest: int, arch: int) -> tuple[int, int]: ...
def cuda_compile(source: str, target: str) -> bytes: ...
def cuda_units() -> list[tuple[str, str, tuple[str, str] | None]]: ...
def cuda_source(rule: str, program: str, types: tuple[str, str] | None = None) -> str: ...
def cuda_copy(device: int, to: int, source: int, bytes: int, stream: int, wait: bool = False) -> None: ...
def cuda_zero(device: int, to: int, bytes: int, stream: int) -> None: ...
def cuda_synchronize(device: int, stream: int) -> None: ...
def cuda_order(device: int, first: int, then: int) -> None: ...
