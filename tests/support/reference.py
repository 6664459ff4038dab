"""Every optimizer as plain NumPy equations in float64: the reference for the compiled kernels.

Written from the papers' equations, never from the kernels. One function per optimizer, named like its class in lower
case: `rule(s, p, g, t, *, lr, ...)` takes the state `s` (a dict, filled and changed in place, names as in
`state_dict()`), the parameter, the gradient and the step `t` counted from 1, and returns the new parameter. Newton and
Prodigy look at all parameters at once, and get them as one vector. What all optimizers share (learning-rate schedules,
maximize, grad_scale, clipping) and Lookahead are in `Reference`. The keyword defaults here are those the package must
have.
"""

import functools
import math

import numpy as np


def l2(g, p, weight_decay):
    """The gradient of loss + weight_decay/2 * |p|^2; a decay of zero leaves g alone even where p is infinite."""
    return g + weight_decay * p if weight_decay else g


def sgd(
    s, p, g, t, *, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False,
    momentum_form="heavy_ball", debias=False,
):  # fmt: skip
    mu = momentum
    g = l2(g, p, weight_decay)
    if mu == 0:
        return p - lr * g
    if momentum_form == "heavy_ball":  # Polyak; the first step copies g, undamped, as PyTorch does
        b = s["b"] = g.copy() if t == 1 else mu * s["b"] + (1 - dampening) * g
        return p - lr * (g + mu * b if nesterov else b)
    if momentum_form == "velocity":
        b = s["b"] = mu * s.get("b", 0) + lr * g
        return p - (mu * b + lr * g if nesterov else b)
    if momentum_form == "ema":
        b = s["b"] = mu * s.get("b", 0) + (1 - mu) * g
        return p - (lr / (1 - mu**t) if debias else lr) * b
    raise AssertionError(momentum_form)


def adagrad(
    state, p, g, t, *, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10,
    eps_inside_sqrt=False,
):  # fmt: skip
    g = l2(g, p, weight_decay)
    s = state["s"] = state.get("s", initial_accumulator_value) + g * g
    root = np.sqrt(s + eps) if eps_inside_sqrt else np.sqrt(s) + eps
    return p - lr / (1 + (t - 1) * lr_decay) * g / root


def rmsprop(
    s, p, g, t, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False,
    eps_inside_sqrt=False, lr_in_momentum=False, initial_square_avg=0.0,
):  # fmt: skip
    g = l2(g, p, weight_decay)
    v = d = s["v"] = alpha * s.get("v", initial_square_avg) + (1 - alpha) * g * g
    if centered:  # the variance; rounding may make it negative
        a = s["a"] = alpha * s.get("a", 0) + (1 - alpha) * g
        d = np.maximum(v - a * a, 0)
    root = np.sqrt(d + eps) if eps_inside_sqrt else np.sqrt(d) + eps
    if momentum == 0:
        return p - lr * g / root
    if lr_in_momentum:
        b = s["b"] = momentum * s.get("b", 0) + lr * g / root
        return p - b
    b = s["b"] = momentum * s.get("b", 0) + g / root
    return p - lr * b


def adam(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, bias_correction=True,
    eps_form="torch",
):  # fmt: skip
    beta1, beta2 = betas
    g = l2(g, p, weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    if amsgrad:  # the maximum of the raw second moments, corrected afterwards
        v = s["vmax"] = np.maximum(s.get("vmax", 0), v)
    bc1, bc2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1, 1)
    if eps_form == "torch":
        return p - lr / bc1 * m / (np.sqrt(v) / math.sqrt(bc2) + eps)
    if eps_form == "keras":  # epsilon-hat of the paper
        return p - lr * math.sqrt(bc2) / bc1 * m / (np.sqrt(v) + eps)
    raise AssertionError(eps_form)


def adamw(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, bias_correction=True,
    eps_form="torch", decay_form="lr", initial_lr=None,
):  # fmt: skip
    decay = {"lr": lr, "independent": lr / initial_lr}[decay_form] * weight_decay
    p = p * (1 - decay)
    return adam(
        s, p, g, t, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, bias_correction=bias_correction, eps_form=eps_form
    )


def nag(s, p, g, t, *, lr=1e-3, momentum=0.9, form="heavy_ball", lookahead=None, weight_decay=0.0):
    """Given the gradients: where they are taken, which is all that `lookahead` is about, is the caller's business."""
    g = l2(g, p, weight_decay)
    b = s["b"] = momentum * s.get("b", 0) + {"heavy_ball": 1, "ema": 1 - momentum}[form] * g
    return p - lr * b


def radam(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False, threshold=5.0,
    unrectified="sgd",
):  # fmt: skip
    beta1, beta2 = betas
    bc1, bc2 = 1 - beta1**t, 1 - beta2**t
    inf = 2 / (1 - beta2) - 1
    rho = inf - 2 * t * beta2**t / bc2
    still = rho <= threshold and unrectified == "frozen"
    if not decoupled_weight_decay:
        g = l2(g, p, weight_decay)
    elif not still:
        p = p * (1 - lr * weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    if rho > threshold:
        r = math.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))
        return p - lr * (m / bc1) * r * math.sqrt(bc2) / (np.sqrt(v) + eps)
    return p if still else p - lr * m / bc1


def ranger(
    s, p, g, t, *, lr=1e-3, betas=(0.95, 0.999), eps=1e-5, weight_decay=0.0, threshold=5.0,
    gradient_centralization=True, gc_conv_only=False,
):  # fmt: skip
    if gradient_centralization and g.size and g.ndim > (3 if gc_conv_only else 1):
        g = g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True)
    return radam(
        s, p, g, t, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=True,
        threshold=threshold,
    )  # fmt: skip


def norm(a):
    return math.sqrt(np.sum(a * a))


def lars(
    s, p, g, t, *, lr, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3, eps=1e-8, nesterov=False, dampening=0.0,
    trust_clip=False, always_adapt=False, lr_in_momentum=True, adapt=True,
):  # fmt: skip
    ratio = 1.0
    if adapt and (weight_decay or always_adapt) and norm(p) != 0 and norm(g) != 0:
        ratio = trust_coefficient * norm(p) / (norm(g) + weight_decay * norm(p) + eps)
        if trust_clip:
            ratio = np.minimum(ratio / lr, 1)  # a NaN stays one
    d = (lr if lr_in_momentum else 1) * ratio * l2(g, p, weight_decay)
    if momentum == 0:
        b = s["b"] = d
    else:  # as in SGD, the first step copies, undamped
        b = s["b"] = d if t == 1 else momentum * s["b"] + (1 - dampening) * d
    return p - (1 if lr_in_momentum else lr) * (d + momentum * b if nesterov else b)


def lamb(
    s, p, g, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=1e-2, bias_correction=True, grad_averaging=True,
    always_adapt=False, trust_clip=False, adapt=True,
):  # fmt: skip
    beta1, beta2 = betas
    bc1, bc2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1, 1)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1 if grad_averaging else 1) * g
    v = s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    u = l2(m / bc1 / (np.sqrt(v / bc2) + eps), p, weight_decay)
    ratio = 1.0
    if adapt and (weight_decay or always_adapt) and norm(p) != 0 and norm(u) != 0:
        ratio = norm(p) / norm(u)
        if trust_clip:
            ratio = np.minimum(ratio, 1)
    return p - lr * ratio * u


def lion(s, p, g, t, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    beta1, beta2 = betas
    m = s.get("m", 0)
    s["m"] = beta2 * m + (1 - beta2) * g
    return p * (1 - lr * weight_decay) - lr * np.sign(beta1 * m + (1 - beta1) * g)


def novograd(s, p, g, t, *, lr=1e-3, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0, grad_averaging=False):
    beta1, beta2 = betas
    squares = np.sum(g * g)
    v = s["v"] = squares if t == 1 else beta2 * s["v"] + (1 - beta2) * squares
    u = l2(g / (np.sqrt(v) + eps), p, weight_decay)
    m = s["m"] = beta1 * s.get("m", 0) + (1 - beta1 if grad_averaging else 1) * u
    return p - lr * m


def rms(a):
    return np.sqrt(np.mean(a * a))


def adafactor(
    s, p, g, t, *, lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, relative_step=False,
    machine_eps=2.0**-52,
):  # fmt: skip
    """PyTorch's form; `relative_step` is the rate of the paper's authors. An array without elements stays as it is."""
    eps1, eps2 = machine_eps if eps[0] is None else eps[0], eps[1]
    beta2 = 1 - t**beta2_decay  # 0 at the first step: there is no bias to correct
    rho = min(1e-2 if relative_step else lr, 1 / math.sqrt(t))
    shapes = {"v": p.shape}
    if p.ndim > 1:  # rows and columns of the last two axes
        shapes = {"r": (*p.shape[:-1], 1), "c": (*p.shape[:-2], 1, p.shape[-1])}
    for name, shape in shapes.items():
        s.setdefault(name, np.zeros(shape))
    if p.size == 0:
        return p
    rate = np.maximum(eps2, rms(p)) * rho
    if p.ndim > 1:
        r = s["r"] = beta2 * s["r"] + (1 - beta2) * np.mean(g * g, axis=-1, keepdims=True)
        c = s["c"] = beta2 * s["c"] + (1 - beta2) * np.mean(g * g, axis=-2, keepdims=True)
        v = r * c / np.maximum(np.mean(r, axis=-2, keepdims=True), eps1)
    else:
        v = s["v"] = beta2 * s["v"] + (1 - beta2) * g * g
    u = g / np.sqrt(np.maximum(v, eps1 * eps1))
    return p * (1 - lr * weight_decay) - rate * u / np.maximum(1, rms(u) / d)


def prodigy(
    s, p, g, t, *, lr=1.0, betas=(0.9, 0.999), beta3=None, eps=1e-8, weight_decay=0.0, decoupled_weight_decay=True,
    use_bias_correction=False, safeguard_warmup=False, d0=1e-6, d_coef=1.0, growth_rate=math.inf, frozen=None,
):  # fmt: skip
    """`frozen` is true for elements whose group has a learning rate of 0: for them nothing happens."""
    beta1, beta2 = betas
    beta3 = math.sqrt(beta2) if beta3 is None else beta3
    zero = np.zeros_like(p)
    for name, start in dict(m=zero, v=zero, s=zero, p0=p, d=d0, d_max=d0, num=0.0).items():
        s.setdefault(name, start)
    live = np.full(p.shape, lr != 0) if frozen is None else ~frozen
    d = s["d"]
    dlr = d * lr * (math.sqrt(1 - beta2**t) / (1 - beta1**t) if use_bias_correction else 1)
    if not decoupled_weight_decay:
        g = l2(g, p, weight_decay)
    num = beta3 * s["num"] + d / d0 * dlr * np.sum((g * (s["p0"] - p))[live])
    s["m"] = np.where(live, beta1 * s["m"] + (1 - beta1) * d * g, s["m"])
    s["v"] = np.where(live, beta2 * s["v"] + (1 - beta2) * d * d * g * g, s["v"])
    s["s"] = np.where(live, beta3 * s["s"] + d / d0 * (d if safeguard_warmup else dlr) * g, s["s"])
    den = np.sum(np.abs(s["s"][live]))
    if den == 0:
        return p
    s["num"] = num
    estimate = d_coef * num / den
    d = max(d, estimate) if d == d0 else d
    s["d_max"] = max(s["d_max"], estimate)  # a NaN is no progress, and changes neither
    d = s["d"] = min(s["d_max"], d * growth_rate)
    if decoupled_weight_decay:
        p = np.where(live, p * (1 - weight_decay * dlr), p)
    m = s["m"] if beta1 else d * g
    return np.where(live, p - dlr * m / (np.sqrt(s["v"]) + d * eps), p)


@functools.cache
def hessian(n):
    """The tests' Hessian of n unknowns: full, symmetric and positive definite."""
    k = np.arange(n)
    return np.diag(1.0 + k % 3) + 0.5 ** abs(k[:, None] - k)


def newton(s, p, g, t, *, lr=1.0, damping=0.0, fallback="damp"):
    """All parameters as one vector."""
    return p - lr * np.linalg.solve(hessian(p.size) + damping * np.eye(p.size), g)


# What rules are told beside the optimizer's keywords.
NO_KEYWORDS = {"initial_lr", "machine_eps", "frozen"}


def rule_of(optimizer):
    return globals()[inner(optimizer).lower()]


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
        self.rule, self.joint = rule_of(optimizer), inner(optimizer) in ("Newton", "Prodigy")
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
        self.options = options | ({"initial_lr": self.schedule(0)} if self.rule is adamw else {})

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
        own = [{"machine_eps": eps} if self.rule is adafactor else {} for eps in self.machine_eps]
        self.params = [
            self.rule(s, p, g, self.since, **options, **more)
            for s, p, g, more in zip(self.state, self.params, gs, own, strict=True)
        ]
        if self.k and self.t % self.k == 0:
            self.sync()

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
