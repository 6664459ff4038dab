"""Record the rates (and momenta) of torch.optim.lr_scheduler, step by step, and torch.nn.init's gains.

Run: python make_torch_schedules.py > torch-schedules-<version>.json   (needs torch)
"""
import json, math, sys, warnings
import torch
from torch.optim import lr_scheduler

warnings.simplefilter("ignore")
LR, STEPS = 0.1, 30
METRICS = [1.0, 0.9, 0.9, 0.95, 0.91, 0.9, 0.899, 0.899, 0.899, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.88, 0.89, 0.9] + [0.9] * 10

CONFIGS = {
    "StepLR": [dict(step_size=7), dict(step_size=1, gamma=0.5)],
    "MultiStepLR": [dict(milestones=[3, 4, 20]), dict(milestones=[10], gamma=0.3)],
    "ExponentialLR": [dict(gamma=0.9), dict(gamma=1.1)],
    "PolynomialLR": [dict(total_iters=20), dict(total_iters=13, power=2.5)],
    "LinearLR": [dict(start_factor=0.25, total_iters=9), dict(start_factor=1.0, end_factor=0.125, total_iters=40)],
    "CosineAnnealingLR": [dict(T_max=29), dict(T_max=8, eta_min=0.01)],
    "CosineAnnealingWarmRestarts": [dict(T_0=7), dict(T_0=4, T_mult=2, eta_min=0.01), dict(T_0=1, T_mult=3)],
    "OneCycleLR": [
        dict(),
        dict(anneal_strategy="linear"),
        dict(three_phase=True),
        dict(three_phase=True, anneal_strategy="linear", pct_start=0.45),
        dict(pct_start=0.17, div_factor=10.0, final_div_factor=100.0, base_momentum=0.8, max_momentum=0.9),
        dict(pct_start=0.0),
        dict(pct_start=1.0),
        dict(pct_start=0.01, three_phase=True),
        dict(cycle_momentum=False),
    ],
    "ReduceLROnPlateau": [
        dict(patience=2),
        dict(patience=0, factor=0.5, cooldown=3, min_lr=0.02),
        dict(patience=3, threshold=0.05, threshold_mode="abs"),
        dict(mode="max", patience=1, factor=0.5, threshold=0.0),
        dict(patience=0, factor=0.5, eps=0.01),
    ],
}


def record(name, kwargs, kind, **options):
    opt = kind([torch.zeros(1, requires_grad=True)], lr=LR, **options)
    if name == "OneCycleLR":
        kwargs = dict(kwargs, max_lr=LR, total_steps=STEPS)
    scheduler = getattr(lr_scheduler, name)(opt, **kwargs)
    lrs, momenta = [], []
    for t in range(STEPS):
        group = opt.param_groups[0]
        lrs.append(group["lr"])
        momenta.append(group["betas"][0] if "betas" in group else group["momentum"])
        opt.step()
        if t < STEPS - 1:
            scheduler.step(*([METRICS[t]] if name == "ReduceLROnPlateau" else []))
    return lrs, momenta


cases = []
for name, configs in CONFIGS.items():
    for kwargs in configs:
        lrs, momenta = record(name, kwargs, torch.optim.SGD, momentum=0.5)
        case = {"scheduler": name, "kwargs": kwargs, "lr": lrs}
        if name == "OneCycleLR":
            case["momentum"] = momenta
            assert momenta == record(name, kwargs, torch.optim.Adam, betas=(0.5, 0.9))[1]
        cases.append(case)
gain = torch.nn.init.calculate_gain
gains = [[name, 0.0, gain(name)] for name in ("linear", "sigmoid", "tanh", "relu", "selu")]
gains += [["conv", 0.0, gain("conv2d")]] + [["leaky_relu", a, gain("leaky_relu", a)] for a in (0.0, 0.01, 0.2, math.sqrt(5))]
json.dump({"torch": torch.__version__, "lr": LR, "metrics": METRICS, "cases": cases, "gains": gains}, sys.stdout, separators=(",", ":"))
