"""The measured jobs: every optimizer of the registry, ready to step, with the memory traffic of its step."""

import functools
import importlib.util
import itertools
import os
from math import prod
from pathlib import Path

import numpy as np

import schuss

from . import floor, libraries, traffic

SIZES = [1_024, 16_384, 65_536, 131_072, 262_144, 1_048_576, 8_388_608, 33_554_432, 134_217_728]
IN_CACHE = [n for n in SIZES if 16_384 <= n <= 1_048_576]
PAST_CACHE = [n for n in SIZES if n > 1_048_576]
DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16}
if importlib.util.find_spec("ml_dtypes"):
    DTYPES["bfloat16"] = importlib.import_module("ml_dtypes").bfloat16
THREADS = schuss.get_num_threads()

ADAMW = {
    "lr": libraries.LR,
    "betas": (libraries.BETA1, libraries.BETA2),
    "eps": libraries.EPS,
    "weight_decay": libraries.WEIGHT_DECAY,
}
# Options that a class needs. LARS has no default learning rate, and does not adapt without weight decay. With constant
# gradients, others would leave the numbers of their dtype while they are timed: their steps grow with the parameters or
# from step to step, or they divide by a variance, which vanishes.
SLOW = [
    "Adafactor",
    "AdafactorHF",
    "Prodigy",
    "DAdaptAdam",
    "DAdaptSGD",
    "DoG",
    "Fromage",
    "ScheduleFreeSGD",
    "AdaBelief",
]
NEEDED = {name: {"lr": 1e-6} for name in SLOW} | {
    "LARS": {"lr": 1e-3, "weight_decay": 1e-4},
    "Rprop": {"step_sizes": (1e-6, 1e-3)},
}
# Newton solves a linear system, and others compute matrix products; the section `systems` measures these.
OTHER_KIND = {"Newton", "Muon", "SOAP", "Shampoo"}
# Every optimizer of the registry, then options that change its states, equations or passes.
CASES = {name: (name, {}) for name in schuss.OPTIMIZERS if name not in OTHER_KIND}
CASES |= {
    "SGD, momentum": ("SGD", {"momentum": 0.9}),
    "RMSprop, centered, momentum": ("RMSprop", {"lr": 1e-10, "centered": True, "momentum": 0.9}),
    "Adam, amsgrad": ("Adam", {"amsgrad": True}),
    "DoG, layerwise": ("DoG", {"layerwise": True}),
    "LAMB, no clipping": ("LAMB", {"max_grad_norm": None}),
    "Adafactor, flat": ("Adafactor", {}),
    "Lookahead(AdamW)": ("AdamW", {}),
}
CASES = {case: own for case, own in CASES.items() if own[0] in schuss.OPTIMIZERS}


def shape(case, n):
    """n elements as a matrix, because some optimizers do less work for one-dimensional arrays."""
    width = min(n, 64 if n < 65_536 else 1_024)
    return (n,) if case.endswith("flat") else (n // width, width)


def make(case, params, **options):
    """The optimizer of a case."""
    name, own = CASES[case]
    optimizer = schuss.OPTIMIZERS[name](params, **{**NEEDED.get(name, {}), **own, **options})
    return schuss.Lookahead(optimizer) if case.startswith("Lookahead") else optimizer


def process_environment(**extra):
    """The environment of a child process that imports ``benchmarks`` too."""
    here = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, inherited] if inherited else [here]), **extra}


def leaves(structure):
    """The arrays of a nested structure, in order; written out, since the suite also runs on older versions."""
    if isinstance(structure, np.ndarray):
        return [structure]
    children = structure.values() if hasattr(structure, "values") else structure
    return list(itertools.chain.from_iterable(map(leaves, children)))


class Job:
    """An optimizer of the package with parameters and gradients; the first step has been taken."""

    def __init__(self, case, shapes, dtype="float32", **options):
        params = libraries.random_arrays(shapes, DTYPES[dtype])
        grads = libraries.random_arrays(shapes, DTYPES[dtype], 1)
        # As users do: one array is passed directly, several in a list.
        self.params, self.grads = (params, grads) if len(shapes) > 1 else (params[0], grads[0])
        self.case, self.elements = case, sum(map(prod, map(np.atleast_1d, shapes)))
        self.optimizer = make(case, self.params, **options)
        closure = (lambda: self.grads) if CASES[case][0] == "NAG" else self.grads
        self.step = functools.partial(self.optimizer.step, closure)
        self.step()

    @property
    def period(self):
        """The number of steps after which the work repeats: Lookahead's k, else 1."""
        return getattr(self.optimizer, "_k", 1)

    def cycle(self):
        """Takes the steps of one period."""
        for _ in range(self.period):
            self.step()

    def states(self):
        """{name: array}, for a job with one array."""
        own = self.optimizer.state_dict()["state"][0]
        return {name: leaves(tree)[0].reshape(-1) for name, tree in own.items()}

    def rule(self):
        """The name of the rule, for a job with one array."""
        return self.optimizer.param_groups[0].rules[0]

    def passes(self):
        """The passes of a period over one array that is larger than the caches.

        They are those of clipping, of the rule's programs and of Lookahead's synchronization.
        """
        p, g = (a.reshape(-1) for a in (self.params, self.grads))
        rule, arrays = self.rule(), {"p": p, "g": g, **self.states()}
        arrays |= {name: np.empty_like(p) for name in traffic.backups(rule)}
        clip = traffic.passes("clip_norm", arrays) if self.optimizer.max_grad_norm is not None else []
        step = [*traffic.passes(rule, arrays, "look_ahead"), *clip, *traffic.passes(rule, arrays)]
        sync = traffic.passes("lookahead", arrays, "sync") if "slow" in arrays else []
        return step * self.period + sync

    def floor(self, threads=THREADS):
        """The traffic floor of a period, over the job's own arrays."""
        return floor.make_floor(self.passes(), threads)

    def bytes(self):
        """Bytes per element that a step has to move, averaged over a period."""
        return sum(one.bytes for one in self.passes()) / self.elements / self.period

    def divider(self):
        """Divisions and square roots per element of each of a step's passes, for a rule without a look-ahead."""
        group = self.optimizer.param_groups[0]
        clip = [(0, 0)] if self.optimizer.max_grad_norm is not None else []
        return clip + traffic.divider(self.rule(), dict(type(self.optimizer)._rule_values(group.hypers)))


def one(case, n, dtype="float32", **options):
    """The job of a case over one array of n elements."""
    return Job(case, [shape(case, n)], dtype, **options)
