"""The conformance table: every optimizer with every option, alone and in the combinations that matter.

A new optimizer needs an entry in ROWS here and its equations in reference.py; it gets the SHARED rows by itself, and
all tests that run over CASES. Lookahead is there once for each optimizer that it is put around: the keywords of the two
together.
"""

from typing import Any, NamedTuple


class Case(NamedTuple):
    name: str
    optimizer: str
    kwargs: dict[str, Any]

    def __repr__(self):
        return self.name


def schedule(step):
    """A learning rate with warm-up and decay; `step` counts from 0. A named function, so that it can be pickled."""
    return 0.05 * min(1.0, (step + 1) / 4) * 0.9**step


ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "SGD": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "dampening without momentum": dict(lr=0.1, dampening=0.5),
        "momentum": dict(lr=0.1, momentum=0.9),
        "momentum, dampening": dict(lr=0.1, momentum=0.9, dampening=0.5),
        "momentum, decay, schedule": dict(lr=schedule, momentum=0.8, weight_decay=0.05),
        "nesterov": dict(lr=0.1, momentum=0.9, nesterov=True),
        "nesterov, decay, maximize": dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True),
        "momentum, clipped": dict(lr=0.1, momentum=0.9, max_grad_norm=2.0),
        "velocity": dict(lr=0.1, momentum=0.9, momentum_form="velocity"),
        "velocity, schedule": dict(lr=schedule, momentum=0.9, momentum_form="velocity"),
        "velocity, no momentum": dict(lr=0.1, momentum_form="velocity"),
        "velocity, nesterov": dict(lr=0.1, momentum=0.9, momentum_form="velocity", nesterov=True),
        "velocity, nesterov, schedule, decay": dict(
            lr=schedule, momentum=0.9, momentum_form="velocity", nesterov=True, weight_decay=0.1
        ),
        "ema": dict(lr=0.1, momentum=0.9, momentum_form="ema"),
        "ema, decay, schedule": dict(lr=schedule, momentum=0.9, momentum_form="ema", weight_decay=0.1),
        "ema, debias": dict(lr=0.1, momentum=0.9, momentum_form="ema", debias=True),
        "ema, debias, schedule, maximize": dict(
            lr=schedule, momentum=0.95, momentum_form="ema", debias=True, maximize=True
        ),
    },
    "Adagrad": {
        "defaults": {},
        "lr": dict(lr=0.1),
        "lr_decay": dict(lr=0.1, lr_decay=0.1),
        "decay": dict(lr=0.1, weight_decay=0.1),
        "accumulator": dict(lr=0.1, initial_accumulator_value=0.5),
        "eps": dict(lr=0.1, eps=1e-2),
        "eps inside": dict(lr=0.1, eps=1e-2, eps_inside_sqrt=True),
        "keras": dict(lr=0.1, initial_accumulator_value=0.1, eps=1e-7, eps_inside_sqrt=True),
        "all": dict(
            lr=schedule, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-3, eps_inside_sqrt=True,
            maximize=True, max_grad_norm=3.0,
        ),
    },
    "RMSprop": {
        "defaults": {},
        "alpha": dict(lr=0.01, alpha=0.9),
        "eps": dict(lr=0.01, eps=1e-2),
        "eps inside": dict(lr=0.01, eps=1e-2, eps_inside_sqrt=True),
        "decay": dict(lr=0.01, weight_decay=0.1),
        "square_avg": dict(lr=0.01, initial_square_avg=1.0),
        "momentum": dict(lr=0.01, momentum=0.9),
        "momentum, schedule": dict(lr=schedule, momentum=0.9),
        "lr in momentum": dict(lr=0.01, momentum=0.9, lr_in_momentum=True),
        "lr in momentum, schedule": dict(lr=schedule, momentum=0.9, lr_in_momentum=True),
        "lr in momentum, no momentum": dict(lr=0.01, lr_in_momentum=True),
        "centered": dict(lr=0.01, centered=True),
        "centered, eps inside": dict(lr=0.01, centered=True, eps=1e-2, eps_inside_sqrt=True),
        "centered, decay, square_avg": dict(lr=0.01, centered=True, weight_decay=0.1, initial_square_avg=0.5),
        "centered, momentum": dict(lr=0.01, centered=True, momentum=0.5),
        "tensorflow": dict(
            lr=0.01, alpha=0.9, momentum=0.9, eps=1e-7, initial_square_avg=1.0, eps_inside_sqrt=True,
            lr_in_momentum=True,
        ),
        "all": dict(
            lr=schedule, alpha=0.95, eps=1e-3, weight_decay=0.1, momentum=0.8, centered=True, eps_inside_sqrt=True,
            lr_in_momentum=True, initial_square_avg=0.1, maximize=True, max_grad_norm=3.0,
        ),
    },
}  # fmt: skip

ADAM = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "no decay": dict(lr=0.01, weight_decay=0.0),
    "amsgrad": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9)),
    "amsgrad, decay, maximize": dict(lr=0.01, amsgrad=True, weight_decay=0.1, maximize=True),
    "uncorrected": dict(lr=0.01, bias_correction=False),
    "uncorrected, amsgrad": dict(lr=0.01, bias_correction=False, amsgrad=True, betas=(0.9, 0.9)),
    "keras": dict(lr=0.01, eps_form="keras", eps=1e-2),
    "keras, amsgrad": dict(lr=0.01, eps_form="keras", eps=1e-3, amsgrad=True, betas=(0.9, 0.9)),
    "keras, uncorrected": dict(lr=0.01, eps_form="keras", eps=1e-2, bias_correction=False),
    "all": dict(
        lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True, eps_form="keras", maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

ROWS["Adam"] = ADAM
ROWS["AdamW"] = ADAM | {
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "independent": dict(lr=0.01, weight_decay=0.05, decay_form="independent"),
    "independent, schedule": dict(lr=schedule, weight_decay=0.05, decay_form="independent"),
    "independent, amsgrad, keras": dict(
        lr=schedule, weight_decay=0.05, decay_form="independent", amsgrad=True, eps_form="keras"
    ),
}

ROWS["NAG"] = {
    "defaults": {},
    "lr, decay": dict(lr=0.1, weight_decay=0.1),
    "momentum": dict(lr=0.1, momentum=0.5),
    "lookahead": dict(lr=0.1, lookahead=0.9),
    "lookahead 0": dict(lr=0.1, lookahead=0.0),
    "ema": dict(lr=0.1, form="ema"),
    "ema, lookahead, decay": dict(lr=0.1, form="ema", lookahead=0.5, weight_decay=0.1),
    "all": dict(
        lr=schedule, momentum=0.8, form="ema", lookahead=0.2, weight_decay=0.1, maximize=True, max_grad_norm=3.0
    ),
}

# With the default betas the first five steps are not rectified.
ROWS["RAdam"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "never rectified": dict(lr=0.01, betas=(0.5, 0.5)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "decoupled": dict(lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
    "threshold": dict(lr=0.01, threshold=4.0),
    "frozen": dict(lr=0.01, unrectified="frozen"),
    "frozen, decay": dict(lr=0.01, unrectified="frozen", weight_decay=0.1),
    "frozen, decoupled": dict(lr=0.1, unrectified="frozen", weight_decay=0.3, decoupled_weight_decay=True),
    "all": dict(
        lr=schedule, betas=(0.85, 0.99), eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True, threshold=6.5,
        unrectified="frozen", maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip

ROWS["Ranger"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "eps": dict(lr=0.01, eps=1e-2),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "k, alpha": dict(lr=0.01, k=2, alpha=0.8),
    "k 1, alpha 1": dict(lr=0.01, k=1, alpha=1.0),
    "threshold": dict(lr=0.01, threshold=4.0),
    "no centralization": dict(lr=0.01, gradient_centralization=False, k=3),
    "conv only": dict(lr=0.01, gc_conv_only=True),
    "all": dict(
        lr=schedule, betas=(0.85, 0.99), eps=1e-3, weight_decay=0.1, k=3, alpha=0.25, threshold=6.5, gc_conv_only=True,
        maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip

ROWS["LARS"] = {
    "defaults": dict(lr=0.1),
    "decay": dict(lr=0.1, weight_decay=0.1),
    "always": dict(lr=0.1, always_adapt=True, trust_coefficient=0.1),
    "momentum, decay": dict(lr=0.1, momentum=0.5, weight_decay=0.1, trust_coefficient=0.1),
    "no momentum": dict(lr=0.1, momentum=0.0, weight_decay=0.1, dampening=0.5, nesterov=True),
    "eps": dict(lr=0.1, weight_decay=0.1, eps=1.0, trust_coefficient=0.1),
    "nesterov": dict(lr=0.1, weight_decay=0.1, nesterov=True, trust_coefficient=0.1),
    "dampening": dict(lr=0.1, weight_decay=0.1, dampening=0.5, trust_coefficient=0.1),
    "clip": dict(lr=0.1, weight_decay=0.1, trust_clip=True, trust_coefficient=0.05),
    "clip, always, schedule": dict(lr=schedule, always_adapt=True, trust_clip=True, trust_coefficient=0.02),
    "timm": dict(lr=0.1, weight_decay=0.1, lr_in_momentum=False, trust_coefficient=0.1),
    "timm, schedule": dict(lr=schedule, weight_decay=0.1, lr_in_momentum=False, nesterov=True, trust_coefficient=0.1),
    "schedule, decay": dict(lr=schedule, weight_decay=0.1, trust_coefficient=0.1),
    "not adapted": dict(lr=0.1, weight_decay=0.1, always_adapt=True, adapt=False),
    "all": dict(
        lr=schedule, momentum=0.8, weight_decay=0.1, trust_coefficient=0.1, eps=1e-3, nesterov=True, dampening=0.1,
        trust_clip=True, always_adapt=True, lr_in_momentum=False, maximize=True, max_grad_norm=3.0,
    ),
}  # fmt: skip

# Without the clipping that is its default, unless that is what the row is about.
ROWS["LAMB"] = {
    row: dict(max_grad_norm=None) | kwargs
    for row, kwargs in {
        "defaults but for clipping": {},
        "lr": dict(lr=0.01),
        "betas": dict(lr=0.01, betas=(0.8, 0.95)),
        "eps": dict(lr=0.01, eps=1e-2),
        "decay": dict(lr=0.01, weight_decay=0.3),
        "no decay": dict(lr=0.01, weight_decay=0.0),
        "no decay, always": dict(lr=0.01, weight_decay=0.0, always_adapt=True),
        "uncorrected": dict(lr=0.01, bias_correction=False),
        "no averaging": dict(lr=0.01, grad_averaging=False),
        "clip": dict(lr=0.01, trust_clip=True),
        "not adapted": dict(lr=0.01, adapt=False, weight_decay=0.1),
        "schedule, not clipped": dict(lr=schedule),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), eps=1e-3, weight_decay=0.1, bias_correction=False, grad_averaging=False,
            always_adapt=True, trust_clip=True, maximize=True, max_grad_norm=3.0,
        ),
    }.items()
}  # fmt: skip
ROWS["LAMB"]["defaults"] = {}

ROWS["Lion"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.95)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "all": dict(lr=schedule, betas=(0.85, 0.9), weight_decay=0.1, maximize=True, max_grad_norm=3.0),
}

ROWS["NovoGrad"] = {
    "defaults": {},
    "lr": dict(lr=0.01),
    "betas": dict(lr=0.01, betas=(0.8, 0.5)),
    "beta1 zero": dict(lr=0.01, betas=(0.0, 0.9)),
    "eps": dict(lr=0.01, eps=1.0),
    "decay": dict(lr=0.01, weight_decay=0.3),
    "averaging": dict(lr=0.01, grad_averaging=True),
    "averaging, decay, schedule": dict(lr=schedule, grad_averaging=True, weight_decay=0.1),
    "all": dict(
        lr=schedule, betas=(0.85, 0.9), eps=1e-2, weight_decay=0.1, grad_averaging=True, maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

# In the last two axes of an array; of those with one axis it keeps a state as Adagrad does.
ROWS["Adafactor"] = {
    "defaults": {},
    "lr": dict(lr=0.1),
    "beta2_decay": dict(lr=0.1, beta2_decay=-0.3),
    "eps": dict(lr=0.1, eps=(0.5, 0.1)),
    "eps of the dtype": dict(lr=0.1, eps=(None, 2.0)),
    "d": dict(lr=0.1, d=2.0),
    "decay": dict(lr=0.1, weight_decay=0.3),
    "decay, schedule": dict(lr=schedule, weight_decay=0.3),
    "rate above 1/sqrt(t)": dict(lr=0.4),
    "relative step": dict(relative_step=True),
    "relative step, decay": dict(lr=0.1, relative_step=True, weight_decay=0.3),
    "all": dict(
        lr=schedule, beta2_decay=-0.5, eps=(1e-3, 1e-2), d=1.5, weight_decay=0.1, relative_step=True, maximize=True,
        max_grad_norm=3.0,
    ),
}  # fmt: skip

# Options with which the estimate of the distance grows, and so is seen, within a few steps of random gradients.
PRODIGY: dict[str, Any] = dict(d0=0.01, beta3=0.2, d_coef=4.0)
ROWS["Prodigy"] = {"growing": PRODIGY, "defaults": {}, "d0": dict(d0=0.01)} | {
    row: PRODIGY | kwargs
    for row, kwargs in {
        "lr": dict(lr=0.5),
        "betas": dict(betas=(0.8, 0.95)),
        "beta1 zero": dict(betas=(0.0, 0.9)),
        "beta3": dict(beta3=0.5),
        "beta3 zero": dict(beta3=0.0),
        "beta3 of beta2": dict(beta3=None, betas=(0.9, 0.25)),
        "eps": dict(eps=1e-2),
        "decay": dict(weight_decay=0.3),
        "L2 decay": dict(weight_decay=0.3, decoupled_weight_decay=False),
        "corrected": dict(use_bias_correction=True),
        "corrected, decay, schedule": dict(lr=schedule, use_bias_correction=True, weight_decay=0.3, d_coef=400.0),
        "safeguard": dict(lr=0.5, safeguard_warmup=True, d_coef=8.0),
        "safeguard, schedule": dict(lr=schedule, safeguard_warmup=True, d_coef=2000.0),
        "d_coef": dict(d_coef=8.0),
        "growth_rate": dict(growth_rate=1.05),
        "decay, schedule": dict(lr=schedule, weight_decay=0.3, d_coef=90.0),
        "all": dict(
            lr=schedule, betas=(0.85, 0.9), beta3=0.1, eps=1e-3, weight_decay=0.1, decoupled_weight_decay=False,
            use_bias_correction=True, safeguard_warmup=True, d0=0.02, d_coef=2000.0, growth_rate=1.5, maximize=True,
            max_grad_norm=3.0,
        ),
    }.items()
}  # fmt: skip

# The tests' Hessian is positive definite; where it is not, and the fallbacks, is in test_newton.py.
ROWS["Newton"] = {
    "defaults": {},
    "lr": dict(lr=0.5),
    "damping": dict(damping=0.5),
    "all": dict(lr=schedule, damping=0.1, fallback="error", maximize=True, max_grad_norm=3.0),
}

AROUND: dict[str, dict[str, dict[str, Any]]] = {
    "SGD": {
        "momentum": dict(lr=0.1, momentum=0.9, k=3, alpha=0.8),
        "reset": dict(lr=0.1, momentum=0.9, dampening=0.5, k=3, pullback="reset"),
        "pullback": dict(lr=0.1, momentum=0.9, k=3, pullback="pullback"),
        "pullback, schedule": dict(lr=schedule, momentum=0.9, momentum_form="velocity", k=2, pullback="pullback"),
        "k 1, alpha 1": dict(lr=0.1, momentum=0.9, k=1, alpha=1.0),
    },
    "Adagrad": {"reset": dict(lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5, k=3, pullback="reset")},
    "AdamW": {
        "reset": dict(lr=0.01, weight_decay=0.1, k=3, pullback="reset"),
        "pullback": dict(lr=0.01, amsgrad=True, betas=(0.9, 0.9), k=3, alpha=0.25, pullback="pullback"),
    },
    "NAG": {"pullback": dict(lr=0.1, form="ema", k=2, pullback="pullback")},
    "LAMB": {"pullback": dict(lr=0.01, max_grad_norm=None, k=3, pullback="pullback")},
    "Lion": {"pullback": dict(lr=0.01, k=3, pullback="pullback")},
    "NovoGrad": {"reset": dict(lr=0.01, k=3, pullback="reset")},
    "Adafactor": {"reset": dict(lr=0.1, k=3, pullback="reset")},
}

# What every optimizer must do, new ones included.
SHARED: dict[str, dict[str, Any]] = {
    "schedule": dict(lr=schedule),
    "maximize": dict(maximize=True),
    "clipped": dict(max_grad_norm=1.0),
    "skip": dict(nonfinite="skip"),
}


def shared_rows(optimizer: str) -> dict[str, dict[str, Any]]:
    return {row: (PRODIGY if optimizer == "Prodigy" else {}) | kwargs for row, kwargs in SHARED.items()}


# State that takes less memory. Master copies are for parameters of two bytes: test_small_state.py has them.
SMALL: dict[str, dict[str, Any]] = {
    "bfloat16 state": dict(state_dtype="bfloat16", state_seed=3, master_weights=False),
    "bfloat16 state, nearest": dict(state_dtype="bfloat16", state_rounding="nearest"),
    "int8 state": dict(state_dtype="int8", state_seed=7),
}

# Optimizers whose state can be int8.
INT8 = {"SGD", "NAG", "Adam", "AdamW", "RAdam", "Ranger", "LARS", "Lion", "NovoGrad"}
INT8 |= {f"Lookahead({name})" for name in ("SGD", "AdamW")}


# Those that keep state only if told so, or hardly move.
STATEFUL: dict[str, dict[str, Any]] = {name: dict(momentum=0.9) for name in ("SGD", "Lookahead(SGD)")}
STATEFUL["Prodigy"] = PRODIGY


def small_rows(optimizer: str) -> dict[str, dict[str, Any]]:
    """Of those that keep state; Newton has none, and no such options."""
    if optimizer == "Newton":
        return {}
    return {
        row: STATEFUL.get(optimizer, {}) | kwargs
        for row, kwargs in SMALL.items()
        if row != "int8 state" or optimizer in INT8
    }


# What has no default, for rows that do not say it.
REQUIRED: dict[str, dict[str, Any]] = {"LARS": dict(lr=0.1)}

CASES = [
    Case(f"{optimizer}: {row}", optimizer, REQUIRED.get(optimizer, {}) | kwargs)
    for optimizer, rows in (ROWS | {f"Lookahead({name})": rows for name, rows in AROUND.items()}).items()
    for row, kwargs in (rows | shared_rows(optimizer) | small_rows(optimizer)).items()
]
