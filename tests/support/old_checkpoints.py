"""Checkpoints that later versions must load. As a script it makes those that are missing:

    python tests/support/old_checkpoints.py

Each entry of MAKERS has a file in tests/data/checkpoints, saved after STEPS steps, and a line in bits.txt there: the
fingerprint of an optimizer that loads the file and takes MORE steps.
"""

import math
from itertools import count

import ml_dtypes
import numpy as np
from bits import digest, raw
from helpers import DATA, F32, F64, cast, leaves

import schuss
from schuss import schedules

FOLDER = DATA / "checkpoints"
STEPS, MORE = 5, 3
BF16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = [(33,), (4, 5), (2, 3, 4, 5)]


def values(*seed, shape, dtype):
    """Multiples of 1/512 between -2 and 2, the same on every machine."""
    whole = (raw(*seed, n=math.prod(shape)) % 2001).astype(F64) - 1000
    return cast(whole / 512, dtype).reshape(shape)


def arrays_of(seed):
    """A function that returns a new array at each call."""
    number = count()
    return lambda *shape, dtype=F32: values(seed, next(number), shape=shape, dtype=dtype)


def adam(new, lr):
    groups = [
        {"params": {"w": new(5, 3), "b": new(3, dtype=F64)}},
        {"params": [new(7, dtype=BF16)], "lr": lr / 4, "betas": (0.5, 0.75), "weight_decay": 0.25},
    ]
    return schuss.Adam(groups, lr=lr, amsgrad=True, max_grad_norm=2.0, nonfinite="skip")


def sgd(new, lr):
    params = {"a": new(33), 1: [np.asfortranarray(new(5, 3))], "1": (new(), {None: new(0)}), (2, "x"): {}}
    return schuss.SGD(params, lr=lr, momentum=0.75, weight_decay=0.125)


def sgd_plateau(new, lr):
    lr = schedules.reduce_on_plateau(lr, factor=0.5, patience=1)
    return schuss.SGD(new(9), lr=lr, momentum=0.75)


def adamw_int8(new, lr):
    params = [new(300), np.asfortranarray(new(20, 31))]
    return schuss.AdamW(params, lr=lr, state_dtype="int8", state_seed=5)


def adamw_bfloat16(new, lr):
    params = [new(300, dtype=BF16), new(4, 5, dtype=BF16)]
    return schuss.AdamW(params, lr=lr, state_dtype="bfloat16", state_seed=5, master_weights=True)


def plain(cls, **options):
    return lambda new, lr: cls([new(*shape) for shape in SHAPES], lr=lr, **options)


def lookahead(cls, k, pullback, **options):
    return lambda new, lr: schuss.Lookahead(plain(cls, **options)(new, lr), k=k, pullback=pullback)


MAKERS = {
    "adam": adam,
    "sgd": sgd,
    "sgd-plateau": sgd_plateau,
    "adamw-int8": adamw_int8,
    "adamw-bfloat16": adamw_bfloat16,
    "lookahead-adamw": lookahead(schuss.AdamW, 3, "pullback"),
    "lookahead-sgd": lookahead(schuss.SGD, 4, "reset", momentum=0.75),
    "nag": plain(schuss.NAG, form="ema"),
    "adagrad": plain(schuss.Adagrad, lr_decay=0.25, initial_accumulator_value=0.5),
    "rmsprop": plain(schuss.RMSprop, centered=True, momentum=0.5),
    "radam": plain(schuss.RAdam),
    "ranger": plain(schuss.Ranger, layout="out_in"),  # synchronizes first in a step after loading
    "lars": plain(schuss.LARS, weight_decay=0.125),
    "lamb": plain(schuss.LAMB),
}
WITH_PARAMS = {"adam", "sgd", "adamw-bfloat16", "lookahead-adamw", "ranger"}


def take(opt, steps):
    for t in steps:
        for k, g in enumerate(leaves(opt.grads)):
            g[...] = values(7, t, k, shape=g.shape, dtype=g.dtype)
        opt.step((lambda: opt.grads) if isinstance(opt, schuss.NAG) else None)
        for group in opt.param_groups:
            if isinstance(group["lr"], schedules.reduce_on_plateau):
                group["lr"].update(1.0)


def made(name):
    """The optimizer to save; it has skipped a step if its options allow that."""
    opt = MAKERS[name](arrays_of(1), 0.0625)
    take(opt, range(1, STEPS + 1))
    if opt.nonfinite == "skip":
        for g in leaves(opt.grads):
            g.fill(np.nan)
        opt.step()
    return opt


def loaded(name):
    """An optimizer that was made with other values, and has loaded the file."""
    opt = MAKERS[name](arrays_of(2), 0.5)
    schuss.load(FOLDER / f"{name}.safetensors", opt, include_params=name in WITH_PARAMS)
    return opt


def continued(name):
    opt = loaded(name)
    take(opt, range(STEPS + 1, STEPS + MORE + 1))
    return digest(opt)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in MAKERS:
        path = FOLDER / f"{name}.safetensors"
        if not path.exists():
            schuss.save(path, made(name), include_params=name in WITH_PARAMS)
            with open(FOLDER / "bits.txt", "a") as file:
                print(continued(name), name, file=file)
