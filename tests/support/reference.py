"""Optimizers in plain float64 NumPy, made and stepped like the classes: the reference for the compiled kernels.

The equations are in `families`. What all optimizers share (learning-rate schedules, maximize, grad_scale, clipping) and
Lookahead are here.
"""

import math

import numpy as np
from families import EQUATIONS, named

# What rules are told beside the optimizer's keywords.
NO_KEYWORDS = {"initial_lr", "machine_eps", "frozen"}
JOINT = named("JOINT")


def rule_of(optimizer):
    return EQUATIONS[inner(optimizer)]


def inner(optimizer):
    """The name of what is inside, of "Lookahead(SGD)"; else the name itself."""
    return optimizer.removeprefix("Lookahead(").removesuffix(")")


def defaults_of(optimizer):
    """What each keyword must be by default; one without a default is not there."""
    rule = {k: v for k, v in rule_of(optimizer).__kwdefaults__.items() if k not in NO_KEYWORDS}
    whole = dict(maximize=False, max_grad_norm=1.0 if inner(optimizer) == "LAMB" else None, nonfinite="propagate")
    if inner(optimizer) != "Newton":
        whole |= dict(state_dtype=None, state_rounding="stochastic", state_seed=0, master_weights=False)
    around = dict(k=5, alpha=0.5, pullback="none") if inner(optimizer) != optimizer else {}
    return rule | whole | (dict(k=6, alpha=0.5) if optimizer == "Ranger" else around)


class Reference:
    """One group of float64 copies of arrays, stepped like the optimizer class of that name."""

    def __init__(self, optimizer, params, **given):
        self.rule = rule_of(optimizer)
        self.joint = inner(optimizer) in JOINT and not given.get("layerwise")
        self.machine_eps = [2.0**-52 if np.asarray(p).dtype == np.float64 else 2.0**-23 for p in params]
        self.params = [np.array(p, dtype=np.float64) for p in params]
        self.shared = {}  # the states of all parameters as one vector, and the numbers that belong to all of them
        self.state = [{} for _ in params]
        self.t = self.since = 0  # steps in all, and since the state was last made anew
        options = defaults_of(optimizer) | given
        lr = options.pop("lr")
        self.schedule = lr if callable(lr) else lambda step: lr
        self.maximize, self.max_grad_norm, _ = map(options.pop, ("maximize", "max_grad_norm", "nonfinite"))
        for name in ("state_dtype", "state_rounding", "state_seed", "master_weights"):  # arithmetic here is exact
            options.pop(name, None)
        self.k = options.pop("k", None)
        if self.k:
            self.alpha, self.pullback = options.pop("alpha"), options.pop("pullback", "none")
            self.pulled = ["m", "b"] if self.pullback == "pullback" else []
            self.state = [{"slow": p.copy()} for p in self.params]
        self.options = options | ({"initial_lr": self.schedule(0)} if "initial_lr" in self.rule.__kwdefaults__ else {})

    def step(self, grads, grad_scale=1.0):
        self.t, self.since = self.t + 1, self.since + 1
        gs = [np.asarray(g).astype(np.float64) / grad_scale for g in grads]
        if self.max_grad_norm is not None:
            norm = math.sqrt(sum(float(np.sum(g * g)) for g in gs))
            gs = [g * min(1, self.max_grad_norm / (norm + 1e-6)) for g in gs]
        if self.maximize:
            gs = [-g for g in gs]
        options = self.options | {"lr": self.schedule(self.t - 1)}
        if self.joint:
            p, g = (np.concatenate([a.ravel() for a in arrays]) for arrays in (self.params, gs))
            self.params = self.parts(self.rule(self.shared, p, g, self.t, **options))
            for name in [name for name, value in self.shared.items() if np.ndim(value)]:
                for s, part in zip(self.state, self.parts(self.shared[name]), strict=True):
                    s[name] = part
            return
        typed = "machine_eps" in self.rule.__kwdefaults__
        own = [{"machine_eps": eps} if typed else {} for eps in self.machine_eps]
        self.params = [
            self.rule(s, p, g, self.since, **options, **more)
            for s, p, g, more in zip(self.state, self.params, gs, own, strict=True)
        ]
        if self.k and self.t % self.k == 0:
            self.sync()

    def update_hessian(self, estimates):
        """Averages estimates of the Hessian's diagonal, as Sophia does."""
        beta2 = self.options["betas"][1]
        for s, p, estimate in zip(self.state, self.params, estimates, strict=True):
            s["h"] = beta2 * s.get("h", np.zeros_like(p)) + (1 - beta2) * estimate

    def parts(self, vector):
        """One vector for all parameters, cut into arrays of their shapes."""
        parts = np.split(vector, np.cumsum([p.size for p in self.params])[:-1])
        return [part.reshape(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def sync(self):
        """Lookahead's slow weights, and what happens to the state of the optimizer inside."""
        for i, s in enumerate(self.state):
            self.params[i] = s["slow"] = s["slow"] + self.alpha * (self.params[i] - s["slow"])
            for name in set(self.pulled) & set(s):
                slow = s.get(f"slow_{name}", 0)
                s[name] = s[f"slow_{name}"] = slow + self.alpha * (s[name] - slow)
        if self.pullback == "reset":
            self.state = [{"slow": s["slow"]} for s in self.state]
            self.since = 0
