"""Tables of schedules: closed forms, the equivalents of PyTorch's schedulers, wrong calls with their messages."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
from cases import schedule as plain

from schuss import schedules as sch

pi, cos, sqrt = math.pi, math.cos, math.sqrt


def ratio(t):
    """A factor for each step."""
    return 0.9 + 0.05 * (t % 3)


# A schedule, its formula, and its initial rate.
FORMS = {
    "constant": (sch.constant(0.1), lambda t: 0.1, 0.1),
    "step": (sch.step(0.1, 7), lambda t: 0.1 * 0.1 ** (t // 7), 0.1),
    "multi_step": (sch.multi_step(0.1, [3, 4, 20], 0.5), lambda t: 0.1 * 0.5 ** sum(t >= m for m in (3, 4, 20)), 0.1),
    "multi_step, none": (sch.multi_step(0.1, ()), lambda t: 0.1, 0.1),
    "exponential": (sch.exponential(0.1, 0.9), lambda t: 0.1 * 0.9**t, 0.1),
    "exponential, growing": (sch.exponential(1e-3, 1.1), lambda t: 1e-3 * 1.1**t, 1e-3),
    "polynomial": (sch.polynomial(0.1, 20), lambda t: 0.1 * max(0, 1 - t / 20), 0.1),
    "polynomial, to an end": (
        sch.polynomial(0.1, 20, power=2.5, end=0.02), lambda t: 0.02 + 0.08 * max(0, 1 - t / 20) ** 2.5, 0.1,
    ),
    "linear, up": (sch.linear(0.0, 0.3, 12), lambda t: 0.3 * min(t / 12, 1), 0.3),
    "linear, down": (sch.linear(0.3, 0.1, 12), lambda t: 0.3 - 0.2 * min(t / 12, 1), 0.3),
    "inverse_sqrt": (sch.inverse_sqrt(0.1, 9), lambda t: 0.1 * min((t + 1) / 9, sqrt(9 / (t + 1))), 0.1),
    "inverse_sqrt, no ramp": (sch.inverse_sqrt(0.1, 1), lambda t: 0.1 / sqrt(t + 1), 0.1),
    "cosine": (sch.cosine(0.1, 0.01, 25), lambda t: 0.01 + 0.045 * (1 + cos(pi * min(t, 25) / 25)), 0.1),
    "cosine, periodic": (sch.cosine(0.1, 0.01, 7, "periodic"), lambda t: 0.01 + 0.045 * (1 + cos(pi * t / 7)), 0.1),
    "cosine_restarts": (sch.cosine_restarts(0.1, 0.0, 9), lambda t: 0.05 * (1 + cos(pi * (t % 9) / 9)), 0.1),
    "cosine_restarts, growing": (
        sch.cosine_restarts(0.1, 0.02, 8, T_mult=2),
        lambda t: 0.02 + 0.04 * (1 + cos(pi * (t / 8 if t < 8 else (t - 8) / 16 if t < 24 else (t - 24) / 32))), 0.1,
    ),
    "warmup": (sch.warmup(sch.step(0.1, 5), 10), lambda t: t / 100 if t < 10 else 0.1 * 0.1 ** ((t - 10) // 5), 0.1),
    "warmup, start": (sch.warmup(sch.constant(0.1), 10, 0.2), lambda t: 0.02 + 0.008 * min(t, 10), 0.1),
    "warmup, skip_first": (sch.warmup(sch.constant(0.1), 9, skip_first=True), lambda t: min(t + 1, 10) / 100, 0.1),
    "warmup, of none": (sch.warmup(sch.exponential(0.1, 0.9), 0), lambda t: 0.1 * 0.9**t, 0.1),
    "warmup, of a function": (sch.warmup(plain, 3), lambda t: plain(0) * t / 3 if t < 3 else plain(t - 3), plain(0)),
    "warmup_cosine": (
        sch.warmup_cosine(0.1, 5, 25, lr_min=0.02),
        lambda t: t / 50 if t < 5 else 0.02 + 0.04 * (1 + cos(pi * min(t - 5, 20) / 20)), 0.1,
    ),
    "join": (
        sch.join([sch.constant(0.2), plain, sch.linear(0.5, 0.1, 10)], [10, 20]),
        lambda t: 0.2 if t < 10 else plain(t - 10) if t < 20 else 0.5 - 0.4 * min((t - 20) / 10, 1), 0.5,
    ),
    "join, of one": (sch.join((sch.constant(0.2),), np.array([], int)), lambda t: 0.2, 0.2),
    "scale": (sch.scale(sch.exponential(0.1, 0.9), 0.5), lambda t: 0.05 * 0.9**t, 0.05),
    "scale, nested": (
        sch.scale(sch.warmup(sch.join([sch.constant(1.0), sch.constant(2.0)], [5]), 4), 0.5),
        lambda t: t / 8 if t < 4 else 0.5 if t < 9 else 1.0, 1.0,
    ),
    "inverse_time": (sch.inverse_time(0.1, 0.5, 4), lambda t: 0.1 / (1 + 0.5 * t / 4), 0.1),
    "inverse_time, staircase": (sch.inverse_time(0.1, 0.5, 4, True), lambda t: 0.1 / (1 + 0.5 * (t // 4)), 0.1),
    "multiplicative": (sch.multiplicative(0.1, ratio), lambda t: 0.1 * math.prod(map(ratio, range(1, t + 1))), 0.1),
    "cosine_restarts, decaying": (
        sch.cosine_restarts(0.1, 0.02, 8, decay=0.5),
        lambda t: 0.02 + 0.04 * 0.5 ** (t // 8) * (1 + cos(pi * (t % 8) / 8)), 0.1,
    ),
    "cosine_restarts, fractional": (
        sch.cosine_restarts(0.1, 0.0, 8, T_mult=1.5, decay=0.5),
        lambda t: 0.05 * next(
            0.5**i * (1 + cos(pi * (t - a) / (b - a)))
            for i, (a, b) in enumerate(itertools.pairwise([0, 8, 20, 38, 65])) if t < b
        ), 0.1,
    ),
    "chain": (sch.chain([plain, sch.exponential(1.0, 0.9), sch.linear(0.5, 1.0, 8)]),
              lambda t: plain(t) * 0.9**t * (0.5 + 0.5 * min(t / 8, 1)), plain(0)),
    "swalr": (
        sch.swalr(sch.exponential(0.1, 0.9), 0.02, 5, 20),
        lambda t: 0.1 * 0.9**t if t < 5 else 0.02 + (0.1 * 0.9**5 - 0.02) * (1 + cos(pi * min(t - 5, 20) / 20)) / 2,
        0.1,
    ),
    "swalr, linear": (
        sch.swalr(sch.constant(0.1), 0.2, anneal_steps=10, anneal="linear"), lambda t: 0.1 + 0.01 * min(t, 10), 0.2,
    ),
    "swalr, at once": (sch.swalr(sch.constant(0.1), 0.02, 5, 0), lambda t: 0.1 if t < 5 else 0.02, 0.1),
    "cyclic": (sch.cyclic(0.01, 0.1, 4), lambda t: 0.01 + 0.09 * abs((t + 4) % 8 - 4) / 4, 0.1),
    "cyclic, triangular2": (
        sch.cyclic(0.01, 0.1, 4, 6, "triangular2"),
        lambda t: 0.01 + 0.09 * 0.5 ** (t // 10) * np.interp(t % 10, [0, 4, 10], [0, 1, 0]), 0.1,
    ),
    "cyclic, exp_range": (
        sch.cyclic(0.01, 0.1, 4, mode="exp_range", gamma=0.95),
        lambda t: 0.01 + 0.09 * 0.95**t * abs((t + 4) % 8 - 4) / 4, 0.1,
    ),
    "one_cycle": (
        sch.one_cycle(1.0, 41, 11 / 41, div_factor=2, final_div_factor=5, anneal="linear"),
        lambda t: 0.5 + 0.05 * t if t < 10 else 1 - 0.9 * (min(t, 40) - 10) / 30, 1.0,
    ),
    "one_cycle, three phases": (
        sch.one_cycle(1.0, 40, 0.25, div_factor=2, final_div_factor=5, anneal="linear", three_phase=True),
        lambda t: np.interp(t, [0, 9, 18, 39], [0.5, 1, 0.5, 0.1]), 1.0,
    ),
}  # fmt: skip
each_schedule = pytest.mark.parametrize("schedule", [f[0] for f in FORMS.values()], ids=list(FORMS))
COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda s: pickle.loads(pickle.dumps(s))}

_ONE_CYCLE = {"anneal_strategy": "anneal"}


def from_torch(name, kwargs, lr, steps):
    """The equivalent of torch.optim.lr_scheduler's `name` for an optimizer with this learning rate."""
    kwargs = dict(kwargs)
    if name == "StepLR":
        return sch.step(lr, **kwargs)
    if name == "MultiStepLR":
        return sch.multi_step(lr, **kwargs)
    if name == "ExponentialLR":
        return sch.exponential(lr, **kwargs)
    if name == "PolynomialLR":
        return sch.polynomial(lr, kwargs.pop("total_iters"), **kwargs)
    if name == "LinearLR":
        return sch.linear(kwargs["start_factor"] * lr, kwargs.get("end_factor", 1.0) * lr, kwargs["total_iters"])
    if name == "CosineAnnealingLR":
        return sch.cosine(lr, kwargs.get("eta_min", 0.0), kwargs["T_max"], after="periodic")
    if name == "CosineAnnealingWarmRestarts":
        return sch.cosine_restarts(lr, kwargs.pop("eta_min", 0.0), **kwargs)
    if name == "OneCycleLR":
        cycled = kwargs.pop("cycle_momentum", True)
        momenta = kwargs.pop("base_momentum", 0.85), kwargs.pop("max_momentum", 0.95)
        own = {_ONE_CYCLE.get(key, key): value for key, value in kwargs.items()}
        return sch.one_cycle(lr, steps, momentum=momenta if cycled else None, **own)
    assert name == "ReduceLROnPlateau"
    return sch.reduce_on_plateau(lr, **kwargs)


_REFUSED = [
    (lambda s: s.constant(-1.0), ValueError, "lr must be a number >= 0, got -1.0"),
    (lambda s: s.constant(math.nan), ValueError, "lr must be a number >= 0, got nan"),
    (lambda s: s.constant("0.1"), TypeError, "lr must be a number >= 0, got '0.1'"),
    (lambda s: s.constant(True), TypeError, "lr must be a number >= 0, got True"),
    (lambda s: s.step(0.1, 0), ValueError, "step_size must be a whole number >= 1, got 0"),
    (lambda s: s.step(0.1, 2.0), TypeError, "step_size must be a whole number >= 1, got 2.0"),
    (lambda s: s.step(0.1, True), TypeError, "step_size must be a whole number >= 1, got True"),
    (lambda s: s.step(0.1, 2, 0), ValueError, "gamma must be a number > 0, got 0"),
    (lambda s: s.multi_step(0.1, [3, 3]), ValueError, "milestones must be increasing, got [3, 3]"),
    (lambda s: s.multi_step(0.1, [0]), ValueError, "milestones[0] must be a whole number >= 1, got 0"),
    (lambda s: s.multi_step(0.1, [1, 2.5]), TypeError, "milestones[1] must be a whole number >= 1, got 2.5"),
    (lambda s: s.multi_step(0.1, 3), TypeError, "milestones must be a list of increasing whole numbers >= 1, got 3"),
    (lambda s: s.exponential(0.1, math.inf), ValueError, "gamma must be a number > 0, got inf"),
    (lambda s: s.polynomial(0.1, 0), ValueError, "total_steps must be a whole number >= 1, got 0"),
    (lambda s: s.polynomial(0.1, 5, 0.0), ValueError, "power must be a number > 0, got 0.0"),
    (lambda s: s.polynomial(0.1, 5, end=-1), ValueError, "end must be a number >= 0, got -1"),
    (lambda s: s.linear(-0.1, 1, 5), ValueError, "start must be a number >= 0, got -0.1"),
    (lambda s: s.inverse_sqrt(0.1, 0), ValueError, "warmup_steps must be a whole number >= 1, got 0"),
    (lambda s: s.cosine(0.1, 0.2, 5), ValueError, "lr_min must be a number >= 0 and <= 0.1, got 0.2"),
    (lambda s: s.cosine(0.1, None, 5), TypeError, "lr_min must be a number >= 0 and <= 0.1, got None"),
    (lambda s: s.cosine(0.1, 0.0, 0), ValueError, "T must be a whole number >= 1, got 0"),
    (lambda s: s.cosine(0.1, 0.0, 5, "stay"), ValueError, "after must be 'hold' or 'periodic', got 'stay'"),
    (lambda s: s.cosine_restarts(0.1, 0.0, 0), ValueError, "T_0 must be a whole number >= 1, got 0"),
    (lambda s: s.cosine_restarts(0.1, 0.0, 5, 0.5), ValueError, "T_mult must be a number >= 1, got 0.5"),
    (lambda s: s.cosine_restarts(0.1, 0.0, 5, 2, 0), ValueError, "decay must be a number > 0 and <= 1, got 0"),
    (lambda s: s.cosine_restarts(0.1, 0.0, 5, 2, 2.0), ValueError, "decay must be a number > 0 and <= 1, got 2.0"),
    (lambda s: s.inverse_time(0.1, -1), ValueError, "decay_rate must be a number >= 0, got -1"),
    (lambda s: s.inverse_time(0.1, 1, 0), ValueError, "decay_steps must be a whole number >= 1, got 0"),
    (lambda s: s.inverse_time(0.1, 1, 1, 1), TypeError, "staircase must be True or False, got 1"),
    (
        lambda s: s.multiplicative(0.1, 0.9), TypeError,
        "factor must be a callable of the step, such as schedules.constant(0.1), got 0.9",
    ),
    (
        lambda s: s.multiplicative(0.1, lambda t: -1)(2), ValueError,
        "factor returned -1 at step 1; it must return a number >= 0",
    ),
    (
        lambda s: s.multiplicative(0.1, s.reduce_on_plateau(0.9)), ValueError,
        "factor keeps state; multiply a rate by it with schedules.chain",
    ),
    (lambda s: s.chain([]), TypeError, "schedules must be a list of callables of the step, got []"),
    (lambda s: s.swalr(s.constant(0.1), -1), ValueError, "swa_lr must be a number >= 0, got -1"),
    (lambda s: s.swalr(s.constant(0.1), 0.1, -1), ValueError, "start must be a whole number >= 0, got -1"),
    (lambda s: s.swalr(s.constant(0.1), 0.1, anneal="e"), ValueError, "anneal must be 'cos' or 'linear', got 'e'"),
    (lambda s: s.cyclic(0.1, 0.01), ValueError, "max_lr must be a number >= 0.1, got 0.01"),
    (lambda s: s.cyclic(0.1, 1, 0), ValueError, "step_size_up must be a whole number >= 1, got 0"),
    (lambda s: s.cyclic(0.1, 1, 2, 0), ValueError, "step_size_down must be a whole number >= 1, got 0"),
    (
        lambda s: s.cyclic(0.1, 1, mode="sine"), ValueError,
        "mode must be 'triangular' or 'triangular2' or 'exp_range', got 'sine'",
    ),
    (lambda s: s.cyclic(0.1, 1, gamma=2.0), ValueError, "gamma must be a number > 0 and <= 1, got 2.0"),
    (
        lambda s: s.warmup(0.1, 5), TypeError,
        "schedule must be a callable of the step, such as schedules.constant(0.1), got 0.1",
    ),
    (
        lambda s: s.warmup(s.cosine, 5), TypeError,
        "schedule must be a callable of the step, such as schedules.constant(0.1), got "
        "<class 'schuss.schedules._annealing.cosine'>",
    ),
    (lambda s: s.warmup(s.constant(0.1), -1), ValueError, "steps must be a whole number >= 0, got -1"),
    (lambda s: s.warmup(s.constant(0.1), 5, 1.5), ValueError, "start must be a number >= 0 and <= 1, got 1.5"),
    (lambda s: s.warmup(s.constant(0.1), 5, 0.0, 1), TypeError, "skip_first must be True or False, got 1"),
    (lambda s: s.warmup_cosine(0.1, 5, 5), ValueError, "total_steps must be a whole number >= 6, got 5"),
    (lambda s: s.one_cycle(0.1, 0), ValueError, "total_steps must be a whole number >= 1 and < 2**63, got 0"),
    (lambda s: s.one_cycle(0.1, 9, 1.1), ValueError, "pct_start must be a number >= 0 and <= 1, got 1.1"),
    (
        lambda s: s.one_cycle(0.1, 9, 0.6, three_phase=True), ValueError,
        "pct_start must be a number >= 0 and <= 0.5, got 0.6",
    ),
    (lambda s: s.one_cycle(0.1, 9, div_factor=0), ValueError, "div_factor must be a number > 0, got 0"),
    (lambda s: s.one_cycle(0.1, 9, final_div_factor=-1), ValueError, "final_div_factor must be a number > 0, got -1"),
    (lambda s: s.one_cycle(0.1, 9, anneal="exp"), ValueError, "anneal must be 'cos' or 'linear', got 'exp'"),
    (lambda s: s.one_cycle(0.1, 9, three_phase=1), TypeError, "three_phase must be True or False, got 1"),
    (
        lambda s: s.one_cycle(0.1, 9, momentum=0.9), TypeError,
        "momentum must be a pair of numbers >= 0 and < 1, got 0.9",
    ),
    (
        lambda s: s.one_cycle(0.1, 9, momentum=(0.5, 1)), ValueError,
        "momentum[1] must be a number >= 0 and < 1, got 1",
    ),
    (
        lambda s: s.one_cycle(0.1, 9, momentum=(0.9, 0.8)), ValueError,
        "momentum must be a pair of the lowest and the highest momentum, got (0.9, 0.8)",
    ),
    (lambda s: s.join([], []), TypeError, "schedules must be a list of callables of the step, got []"),
    (
        lambda s: s.join([s.constant(1), 0.5], [3]), TypeError,
        "schedules[1] must be a callable of the step, such as schedules.constant(0.1), got 0.5",
    ),
    (
        lambda s: s.join([s.constant(1)] * 2, [3, 4]), ValueError,
        "boundaries must have one entry fewer than schedules, 1, got 2",
    ),
    (lambda s: s.join([s.constant(1)] * 3, [4, 3]), ValueError, "boundaries must be increasing, got [4, 3]"),
    (lambda s: s.scale(s.constant(1), -1), ValueError, "factor must be a number >= 0, got -1"),
    (lambda s: s.reduce_on_plateau(0.1, "low"), ValueError, "mode must be 'min' or 'max', got 'low'"),
    (lambda s: s.reduce_on_plateau(0.1, factor=1.0), ValueError, "factor must be a number > 0 and < 1, got 1.0"),
    (lambda s: s.reduce_on_plateau(0.1, patience=-1), ValueError, "patience must be a whole number >= 0, got -1"),
    (lambda s: s.reduce_on_plateau(0.1, threshold=-1), ValueError, "threshold must be a number >= 0, got -1"),
    (
        lambda s: s.reduce_on_plateau(0.1, threshold_mode="no"), ValueError,
        "threshold_mode must be 'rel' or 'abs', got 'no'",
    ),
    (lambda s: s.reduce_on_plateau(0.1, min_lr=0.2), ValueError, "min_lr must be a number >= 0 and <= 0.1, got 0.2"),
    (lambda s: s.reduce_on_plateau(0.1, eps=None), TypeError, "eps must be a number >= 0, got None"),
    (lambda s: s.reduce_on_plateau(0.1).update("1"), TypeError, "metric must be a number, got '1'"),
    (
        lambda s: s.reduce_on_plateau(0.1).load_state_dict({"rate": 0.1}), ValueError,
        "the state of a reduce_on_plateau must be a dict with rate, best, bad_updates, cooldown_left, "
        "got {'rate': 0.1}",
    ),
    (
        lambda s: s.warmup(s.reduce_on_plateau(0.1), 2).load_state_dict({"parts": [None]}), ValueError,
        "the state of a warmup must be a dict with 'parts', one for each schedule",
    ),
]  # fmt: skip

refused = pytest.mark.parametrize("call, error, message", _REFUSED, ids=[message for *_, message in _REFUSED])
