"""A user's program that uses every part of the public interface; `make lint` has mypy and pyright check it.

Lines marked ``type: ignore`` are mistakes that both must find: without an error on them, the mark is an error. They
are in a function that nothing calls.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt

import schuss
from schuss import functional, init, schedules, transforms

Layer = dict[str, npt.NDArray[np.float32]]


class Halving:
    """A schedule of one's own: any callable from the step to a rate."""

    def __call__(self, step: int) -> float:
        return 0.1 * 0.5 ** (step // 100)


class Decaying(schuss.Adam):
    """An optimizer of one's own: annotations are parameters of the constructor."""

    weight_decay: float | Callable[[int], float] = 0.1


def model() -> dict[str, Layer]:
    return {
        "hidden": {"w": init.kaiming_normal((4, 3), rng=0), "b": np.zeros(3, np.float32)},
        "output": {"w": init.xavier_uniform((3, 2), rng=1), "b": np.zeros(2, np.float32)},
    }


def gradients(params: dict[str, Layer]) -> dict[str, Layer]:
    return {name: {key: np.ones_like(array) for key, array in layer.items()} for name, layer in params.items()}


def set_rate(opt: schuss.Optimizer, rate: float) -> None:
    opt.lr = min(opt.lr, rate)


def training() -> float:
    params = model()
    opt = schuss.AdamW(params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, max_grad_norm=1.0, nonfinite="skip")
    taken: bool = opt.step(gradients(params), grad_scale=2.0, zero_grads=True)
    opt.grads["hidden"]["w"] += 1.0
    opt.step()
    pair = np.array([0, 2]), np.ones((2, 2))
    taken = opt.step_rows({"output": {"w": pair, "b": None}}, grad_scale=2.0, partial=True)
    opt.max_grad_norm, opt.nonfinite = None, "error"
    with opt.stepping() as update:
        update(params["output"]["b"], np.ones(2), grad_scale=2.0)
    opt.zero_grad()
    opt.lr *= 0.5
    rate: float = opt.lr
    opt.lr = Halving()
    set_rate(opt, rate)
    norm: float | None = opt.grad_norm
    opt.param_groups[0]["lr"] = 1e-4
    steps: int = opt.step_count + opt.skipped_steps
    state = opt.state_dict()
    opt.load_state_dict(state)
    return steps + float(taken) + (norm or 0.0) + float(params["output"]["b"][0])


def groups() -> tuple[schuss.ParamGroup, ...]:
    w, b = np.ones((2, 2)), np.zeros(2)
    opt = schuss.SGD(
        [{"params": [w], "weight_decay": 1e-4}, {"params": [b]}],
        lr=schedules.warmup_cosine(0.1, 10, 100),
        momentum=0.9,
        momentum_form="velocity",
    )
    opt.add_param_group({"params": np.ones(3), "lr": Halving()})
    opt.step([[w.copy()], [b.copy()], np.ones(3)])
    schuss.LAMB(schuss.split_groups(model(), lr=1e-4), lr=1e-3)
    return opt.param_groups


def every_kind() -> list[schuss.Optimizer]:
    made = [kind(np.ones(3), lr=1e-3) for kind in schuss.OPTIMIZERS.values()]
    ema = schuss.EMA(schuss.Adam(np.ones(3)), decay=0.9)
    ema.update()
    with ema.swap():
        ema.state_dict()
    lbfgs = schuss.LBFGS(np.ones(3), line_search_fn="strong_wolfe")
    lbfgs.step(lambda: (1.0, np.ones(3)))
    sam = schuss.SAM(schuss.Adam(np.ones(3)), rho=0.1)
    sam.step(lambda: np.ones(3))
    changed = schuss.Transformed(schuss.Adam(np.ones(3)), [transforms.clip(1.0), transforms.accumulate(2)])
    changed.step(np.ones(3))
    averages = [changed, lbfgs, sam, ema, schuss.SWA(made[0], start=2), schuss.Polyak(made[0])]
    return [*made, *averages, schuss.Lookahead(schuss.Adam(np.ones(3)), k=3), Decaying(np.ones(3), lr=0.1)]


def offloaded(params: object) -> schuss.Offload:  # on a GPU, so nothing calls it
    return schuss.Offload(schuss.AdamW, params, lr=1e-3)


def closures() -> None:
    w = np.ones(2)
    schuss.NAG(w, lr=0.1).step(lambda: w.copy())
    schuss.Newton(w).step(w.copy(), np.eye(2))
    free = schuss.ScheduleFreeAdamW(w)
    free.step(w.copy())
    free.eval()
    free.train()
    sophia = schuss.SophiaG(w)
    sophia.update_hessian(w.copy())
    averages = schuss.ASGD(w).averaged()
    with schuss.Lookahead(schuss.Adam(w)).evaluate():
        print(averages, w)


def small_state() -> None:
    half = np.ones(512, ml_dtypes.bfloat16)
    schuss.AdamW(half, state_dtype="int8", state_rounding="nearest", state_seed=3, master_weights=True)


def checkpoints(folder: Path) -> None:
    params = model()
    opt = schuss.Adam(params)
    schuss.save(folder / "opt.safetensors", opt)
    schuss.load(folder / "opt.safetensors", opt)


def tools() -> float:
    grads = gradients(model())
    schuss.clip_grad_value_(grads, 0.5)
    schuss.centralize_(grads, layout="in_out")
    packed = schuss.Adam(schuss.pack([np.ones(2), np.ones(3)]), track_grad_norm=True)
    _ = packed.grads
    packed.step()
    logged: dict[str, float] = packed.metrics()
    clipped: float | None = packed.clip_factor
    print(logged, clipped, packed.param_groups[0].current("lr"))
    packed.step_count = 3
    total: float = schuss.clip_grad_norm_(grads, 1.0) + schuss.global_norm(grads)
    p, m, v = np.ones(2), np.zeros(2), np.zeros(2)
    functional.adam_(p, np.ones(2), m, v, step=1, lr=0.1)
    schuss.set_num_threads(schuss.get_num_threads())
    schuss.share_threads_with_blas(share=False)
    schuss.show_config()
    assert schuss.cpu_level() in schuss.cpu_levels()
    return total


def rates() -> list[float]:
    plateau = schedules.reduce_on_plateau(0.1)
    plateau.update(1.0)
    cosine: schedules.Schedule = schedules.cosine(0.1, 0.0, 100, after="periodic")
    return [plateau(1), schedules.join([cosine, Halving()], [50])(60)]


def mistakes() -> None:
    schuss.Adam(np.ones(2), eps_form="kears")  # type: ignore[arg-type]
    schuss.Adam(np.ones(2), learning_rate=0.1)  # type: ignore[call-arg]
    schuss.AdamW(np.ones(2), 1e-3, (0.9, 0.99), 1e-8, 0.01, False, True, "torch", False, "lr", None, False, True)  # type: ignore[call-arg]
    schuss.Adam(np.ones(2), betas=0.9)  # type: ignore[arg-type]
    schuss.Adam(np.ones(2), state_dtype="float16")  # type: ignore[arg-type]
    schuss.Adam(np.ones(2)).learning_rate = 0.1  # type: ignore[attr-defined]
    schuss.Adam(np.ones(2)).nonfinite = "ignore"  # type: ignore[assignment]
    schuss.Adam(np.ones(2)).skipped_steps = 3  # type: ignore[misc]
    schuss.centralize_(np.ones((2, 2)), layout="rows")  # type: ignore[arg-type]
    schuss.save("opt", np.ones(2))  # type: ignore[arg-type]


if __name__ == "__main__":
    print(training(), groups(), every_kind(), tools(), rates())
    closures()
    small_state()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints(Path(folder))
