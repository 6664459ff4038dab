"""Record what the installed peers compute for the wider field of optimizers, as an oracle for machines where they are not installed.

Float64 on the CPU. Parameters and gradients come from formulas (start, waves, bowl below), so nothing but the results is stored.
  python make_wider.py > record.json; python condense_wider.py < record.json > wider.json
With --heldout it records other inputs. spec_error comes from the equations in float64, reference_wider.py, which are kept apart from the package; without
them it is null.
Needs some of: torch, optax+jax, pytorch_optimizer, keras, schedulefree, prodigyopt, dadaptation, timm (its optim folder is enough), and the authors'
packages (adabelief-pytorch, adabound, adamp, qhoptim, madgrad, came-pytorch, dog-optimizer, adam-mini, sophia-opt, torch-optimizer, lion-pytorch,
adam-atan2-pytorch with einops, muon-optimizer). A peer that is missing is left out, and said so on standard error. WIDER_PATH: more folders to import from, joined by ':'.
"""
import importlib.metadata as md, json, math, os, sys, types, warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
sys.path += [os.path.dirname(os.path.abspath(__file__))]
sys.path += [d for d in os.environ.get("WIDER_PATH", "").split(":") if d]
import numpy as np

OUT, sys.stdout = sys.stdout, sys.stderr  # some peers print

HELD = "--heldout" in sys.argv
SEED = 0.83 if HELD else 0.0
SHAPES = [(3, 6), (7,)] if HELD else [(4, 3), (5,)]
STEPS = [1, 2, 3, 4, 6, 11, 12, 25] if HELD else [1, 2, 3, 5, 6, 10, 11, 25]


# ------------------------------------------------------------------ the inputs: element i (row-major) of array k, step t = 1, 2, ...
def start(k, i):
    return math.cos(1.3 * (i + 1) + k + SEED) * 2.0


def waves(t, k, i, p):  # does not depend on the parameters; magnitudes from 1e-2 to 1e2, signs change
    return math.sin(0.7 * t * (i + 1) + k + SEED) * 10.0 ** ((i % 5) - 2)


def bowl(t, k, i, p):  # gradient of sum w/2*(p-c)^2 at the parameters as they are when step() is called
    return 10.0 ** ((i % 3) - 1) * (p - math.sin(0.9 * (i + 1) + k + SEED))


def mild(t, k, i, p):  # as waves, all of magnitude about 1, slow; for the parameter-free family and the matrix optimizers
    return math.sin(0.05 * t * (1 + i % 3) + 0.8 * i * i + k + SEED) + 0.1 * p


PROBLEMS = {"waves": waves, "bowl": bowl, "mild": mild}


def starts(shapes):
    return [np.array([start(k, i) for i in range(math.prod(s))]).reshape(s) for k, s in enumerate(shapes)]


def grads(problem, t, ps):
    f = PROBLEMS[problem]
    return [np.array([f(t, k, i, float(x)) for i, x in enumerate(np.asarray(p).ravel())]).reshape(np.shape(p)) for k, p in enumerate(ps)]


# ------------------------------------------------------------------ peers
def have(name):
    try:
        return md.version(name)
    except md.PackageNotFoundError:
        return None


DIST = dict(torch="torch", optax="optax", keras="keras", pytorch_optimizer="pytorch_optimizer", timm="timm", schedulefree="schedulefree", prodigyopt="prodigyopt",
            dadaptation="dadaptation", adabelief_pytorch="adabelief-pytorch", adabound="adabound", adamp="adamp", qhoptim="qhoptim", madgrad="madgrad",
            came_pytorch="came-pytorch", dog="dog-optimizer", adam_mini="adam-mini", sophia_opt="sophia-opt", torch_optimizer="torch-optimizer",
            lion_pytorch="lion-pytorch", adam_atan2_pytorch="adam-atan2-pytorch", muon_optimizer="muon-optimizer")
VERSIONS = {k: have(v) for k, v in DIST.items()}
if VERSIONS["timm"] and not have("torchvision"):  # timm's top package wants torchvision; its optim folder does not
    import importlib.util
    where = [d for d in sys.path if os.path.isdir(os.path.join(d, "timm", "optim"))][0]
    for n in ("timm", "timm.optim"):
        m = types.ModuleType(n)
        m.__path__ = [os.path.join(where, *n.split("."))]
        sys.modules[n] = m
if VERSIONS["jax" if "jax" in VERSIONS else "optax"]:
    import jax
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import optax
if VERSIONS["torch"]:
    import torch
    torch.set_num_threads(1)
if VERSIONS["keras"]:
    import keras
    keras.config.set_floatx("float64")

_mods = {}


def find(path):
    m, _, n = path.rpartition(".")
    import importlib
    return getattr(importlib.import_module(m), n)


def run_torch(path, kw, shapes, problem, steps, extra):
    ps = [torch.tensor(a, dtype=torch.float64).requires_grad_() for a in starts(shapes)]
    named = extra.get("named")
    first = [(f"layer{k}.attn.wv.weight" if named == "wv" else f"x{k}", p) for k, p in enumerate(ps)] if named else ps
    o = find(path)(first, **kw)
    if extra.get("train"):
        o.train()
    rec, ev = [], []
    for t in range(1, max(steps) + 1):
        for p, g in zip(ps, grads(problem, t, [p.detach().numpy() for p in ps])):
            p.grad = torch.tensor(g, dtype=torch.float64)
        h = extra.get("hessian")
        if h and (t - 1) % 3 == 0:
            hs = [torch.tensor(np.abs(x) + 0.1) for x in grads("mild", t, [p.detach().numpy() for p in ps])]
            if h == "sophiag":  # its update_hessian squares the gradients it finds
                keep = [p.grad for p in ps]
                for p, x in zip(ps, hs):
                    p.grad = x.sqrt()
                o.update_hessian()
                for p, x in zip(ps, keep):
                    p.grad = x
                o.step(bs=1)
            else:
                o.step(hessian=hs)
        elif h == "sophiag":
            o.step(bs=1)
        else:
            o.step()
        if t in steps:
            rec.append([p.detach().flatten().tolist() for p in ps])
            if extra.get("train"):
                o.eval()
                ev.append([p.detach().flatten().tolist() for p in ps])
                o.train()
    return rec, ev


def run_optax(path, kw, shapes, problem, steps, extra):
    ps = [jnp.asarray(a) for a in starts(shapes)]
    tx = find(path)(**kw)
    st = tx.init(ps)
    rec, ev = [], []
    upd = jax.jit(tx.update) if extra.get("jit", True) else tx.update
    for t in range(1, max(steps) + 1):
        g = [jnp.asarray(x) for x in grads(problem, t, ps)]
        u, st = upd(g, st, ps)
        ps = [p + x for p, x in zip(ps, u)]
        if t in steps:
            rec.append([np.asarray(p).ravel().tolist() for p in ps])
            if extra.get("train"):
                ev.append([np.asarray(p).ravel().tolist() for p in optax.contrib.schedule_free_eval_params(st, ps)])
    return rec, ev


def run_keras(path, kw, shapes, problem, steps, extra):
    vs = [keras.Variable(a, dtype="float64") for a in starts(shapes)]
    o = find(path)(**kw)
    o.build(vs)
    rec, ev = [], []
    for t in range(1, max(steps) + 1):
        o.apply([keras.ops.convert_to_tensor(g, dtype="float64") for g in grads(problem, t, [np.asarray(v) for v in vs])], vs)
        if t in steps:
            rec.append([np.asarray(v).ravel().tolist() for v in vs])
    return rec, ev


RUN = dict(optax=run_optax, keras=run_keras)

# ------------------------------------------------------------------ defaults of the specification (optimizers-wider.md)
DEFAULTS = {
    "Adadelta": {'lr': 1.0, 'rho': 0.9, 'eps': 1e-06, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'maximize': False},
    "Adamax": {'lr': 0.002, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'eps_form': 'torch', 'decoupled_weight_decay': False, 'maximize': False},
    "NAdam": {'lr': 0.002, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'momentum_decay': 0.004, 'decoupled_weight_decay': False, 'form': 'dozat', 'maximize': False},
    "ASGD": {'lr': 0.01, 'lambd': 0.0001, 'alpha': 0.75, 't0': 1000000.0, 'weight_decay': 0.0, 'maximize': False},
    "Rprop": {'lr': 0.01, 'etas': [0.5, 1.2], 'step_sizes': [1e-06, 50.0], 'maximize': False},
    "Lion": {'lr': 0.0001, 'betas': [0.9, 0.99], 'weight_decay': 0.0, 'cautious': None, 'maximize': False},
    "Signum": {'lr': 0.001, 'momentum': 0.9, 'weight_decay': 0.0, 'decoupled_weight_decay': True, 'maximize': False},
    "AdaBelief": {'lr': 0.001, 'betas': [0.9, 0.999], 'eps': 1e-16, 'weight_decay': 0.0, 'decoupled_weight_decay': True, 'amsgrad': False, 'rectify': False, 'threshold': 5.0, 'unrectified': 'sgd', 'eps_root': None, 'maximize': False},
    "Yogi": {'lr': 0.01, 'betas': [0.9, 0.999], 'eps': 0.001, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'initial_accumulator_value': 1e-06, 'initial_momentum': None, 'maximize': False},
    "AdaBound": {'lr': 0.001, 'betas': [0.9, 0.999], 'final_lr': 0.1, 'gamma': 0.001, 'eps': 1e-08, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'amsbound': False, 'maximize': False},
    "Adan": {'lr': 0.001, 'betas': [0.98, 0.92, 0.99], 'eps': 1e-08, 'weight_decay': 0.0, 'no_prox': False, 'first_diff': 'zero', 'cautious': None, 'maximize': False},
    "QHM": {'lr': 0.001, 'momentum': 0.999, 'nu': 0.7, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'maximize': False},
    "QHAdam": {'lr': 0.001, 'betas': [0.9, 0.999], 'nus': [1.0, 1.0], 'eps': 1e-08, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'maximize': False},
    "AggMo": {'lr': 0.001, 'betas': [0.0, 0.9, 0.99], 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'maximize': False},
    "LaProp": {'lr': 0.0004, 'betas': [0.9, 0.999], 'eps': 1e-15, 'weight_decay': 0.0, 'cautious': None, 'decay_after': True, 'eps_inside': 0.0, 'eps_before_bias': False, 'maximize': False},
    "ADOPT": {'lr': 0.001, 'betas': [0.9, 0.9999], 'eps': 1e-06, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'clip_exp': 0.25, 'cautious': None, 'nesterov': False, 'maximize': False},
    "PAdam": {'lr': 0.1, 'betas': [0.9, 0.999], 'partial': 0.25, 'eps': 1e-08, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'amsgrad': False, 'maximize': False},
    "AdamP": {'lr': 0.001, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'delta': 0.1, 'wd_ratio': 0.1, 'nesterov': False, 'eps_form': 'torch', 'maximize': False},
    "SGDP": {'lr': 0.001, 'momentum': 0.0, 'dampening': 0.0, 'eps': 1e-08, 'weight_decay': 0.0, 'delta': 0.1, 'wd_ratio': 0.1, 'nesterov': False, 'maximize': False},
    "NovoGrad": {'lr': 0.001, 'betas': [0.95, 0.98], 'eps': 1e-08, 'weight_decay': 0.0, 'grad_averaging': False, 'average_first': True, 'eps_root': 0.0, 'maximize': False},
    "AdEMAMix": {'lr': 0.001, 'betas': [0.9, 0.999, 0.9999], 'alpha': 5.0, 'eps': 1e-08, 'weight_decay': 0.0, 'alpha_warmup': None, 'beta3_warmup': None, 'decay': 'inside', 'warmup_from': 0, 'cautious': None, 'maximize': False},
    "StableAdamW": {'lr': 0.001, 'betas': [0.9, 0.99], 'eps': 1e-08, 'weight_decay': 0.01, 'decay_lr': 'clipped', 'rms_floor': None, 'maximize': False},
    "MADGRAD": {'lr': 0.01, 'momentum': 0.9, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'eps': 1e-06, 'maximize': False},
    "FTRL": {'lr': 0.001, 'lr_power': -0.5, 'initial_accumulator_value': 0.1, 'l1': 0.0, 'l2': 0.0, 'l2_shrinkage': 0.0, 'beta': 0.0, 'maximize': False},
    "Tiger": {'lr': 0.001, 'beta': 0.965, 'weight_decay': 0.01, 'maximize': False},
    "Grams": {'lr': 0.001, 'betas': [0.9, 0.999], 'eps': 1e-06, 'weight_decay': 0.0, 'maximize': False},
    "CautiousAdamW": {'lr': 0.001, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.01, 'cautious': 'mean', 'decay_form': 'lr', 'maximize': False},
    "MARS": {'lr': 0.003, 'betas': [0.95, 0.99], 'gamma': 0.025, 'eps': 1e-08, 'weight_decay': 0.0, 'base': 'adamw', 'optimize_1d': False, 'lr_1d': None, 'betas_1d': [0.9, 0.95], 'weight_decay_1d': None, 'first': 'zero', 'cautious': None, 'eps_in': 0.0, 'maximize': False},
    "SophiaG": {'lr': 0.0001, 'betas': [0.965, 0.99], 'rho': 0.04, 'bs': 1.0, 'eps': 1e-15, 'weight_decay': 0.1, 'maximize': False},
    "SophiaH": {'lr': 0.06, 'betas': [0.96, 0.99], 'clip': 0.01, 'eps': 1e-12, 'weight_decay': 0.0, 'maximize': False},
    "Adai": {'lr': 0.001, 'betas': [0.1, 0.99], 'eps': 0.001, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'dampening': 1.0, 'maximize': False},
    "Fromage": {'lr': 0.01, 'min_norm': 0.0, 'maximize': False},
    "ScheduleFreeSGD": {'lr': 1.0, 'momentum': 0.9, 'weight_decay': 0.0, 'warmup_steps': 0, 'r': 0.0, 'weight_lr_power': 2.0, 'maximize': False},
    "ScheduleFreeAdamW": {'lr': 0.0025, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'warmup_steps': 0, 'r': 0.0, 'weight_lr_power': 2.0, 'maximize': False},
    "ScheduleFreeRAdam": {'lr': 0.0025, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'r': 0.0, 'weight_lr_power': 2.0, 'silent_sgd_phase': True, 'maximize': False},
    "AdamMini": {'lr': 0.001, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'blocks': 'rows', 'maximize': False},
    "AdamAtan2": {'lr': 0.001, 'betas': [0.9, 0.999], 'weight_decay': 0.01, 'a': 1.0, 'b': 1.0, 'maximize': False},
    "Adafactor": {'lr': 0.01, 'relative_step': False, 'beta2_decay': -0.8, 'eps': [None, 0.001], 'd': 1.0, 'weight_decay': 0.0, 'maximize': False},
    "AdafactorHF": {'lr': None, 'eps': [1e-30, 0.001], 'clip_threshold': 1.0, 'decay_rate': -0.8, 'beta1': None, 'weight_decay': 0.0, 'scale_parameter': True, 'relative_step': True, 'warmup_init': False, 'maximize': False},
    "CAME": {'lr': 0.0002, 'betas': [0.9, 0.999, 0.9999], 'eps': [1e-30, 1e-16], 'clip_threshold': 1.0, 'weight_decay': 0.0, 'maximize': False},
    "SM3": {'lr': 0.1, 'momentum': 0.0, 'beta': 0.0, 'eps': 1e-30, 'form': 'II', 'eps_zero': False, 'maximize': False},
    "Prodigy": {'lr': 1.0, 'betas': [0.9, 0.999], 'beta3': None, 'eps': 1e-08, 'weight_decay': 0.0, 'decoupled_weight_decay': True, 'use_bias_correction': False, 'safeguard_warmup': False, 'd0': 1e-06, 'd_coef': 1.0, 'growth_rate': 'inf', 'maximize': False},
    "DAdaptAdam": {'lr': 1.0, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'decoupled_weight_decay': False, 'use_bias_correction': False, 'd0': 1e-06, 'growth_rate': 'inf', 'maximize': False},
    "DAdaptSGD": {'lr': 1.0, 'momentum': 0.0, 'weight_decay': 0.0, 'd0': 1e-06, 'growth_rate': 'inf', 'maximize': False},
    "DoG": {'lr': 1.0, 'reps_rel': 1e-06, 'eps': 1e-08, 'init_eta': None, 'weight_decay': 0.0, 'layerwise': False, 'maximize': False},
    "Muon": {'lr': 0.001, 'momentum': 0.95, 'nesterov': True, 'ns_coefficients': [3.4445, -4.775, 2.0315], 'ns_steps': 5, 'eps': 1e-07, 'weight_decay': 0.1, 'adjust_lr_fn': 'original', 'momentum_form': 'ema', 'eps_form': 'max', 'bias_correction': False, 'decay': 'lr', 'maximize': False},
    "SOAP": {'lr': 0.003, 'betas': [0.95, 0.95], 'shampoo_beta': None, 'eps': 1e-08, 'weight_decay': 0.01, 'precondition_frequency': 10, 'correct_bias': True, 'precondition_1d': False, 'normalize_gradient': False, 'max_precondition_dim': 10000, 'maximize': False},
    "Shampoo": {'lr': 0.01, 'momentum': 0.0, 'eps': 1e-06, 'weight_decay': 0.0, 'update_freq': 1, 'order': 2, 'statistics': 'raw', 'maximize': False},
}
ROWS = []  # (optimizer, peer, path, keep, variant, const, extra)


def row(name, peer, path, keep, variant=None, const=None, **extra):
    """keep: the spec's keywords this peer has, "spec:peer" when it spells them otherwise, "spec:a,b" when it takes a tuple apart, "" for none of it."""
    ROWS.append((name, peer, path, keep.split(), variant or {}, const or {}, extra))


def to_peer(keep, kw, const):
    out = dict(const)
    for item in keep:
        a, _, b = item.partition(":")
        if a not in kw:
            if b == "-":
                continue
            raise KeyError(a)
        v = math.inf if kw[a] == "inf" else kw[a]
        if callable(b):
            pass
        if "," in b:
            out.update(zip(b.split(","), v))
        elif b.endswith("*"):  # a factor: "l2:name/2*"
            n, f = b[:-1].split("/")
            out[n] = v / float(f)
        elif b != "-":
            out[b or a] = tuple(v) if isinstance(v, list) else v
    return out


def nudge(name, kw):  # other hyperparameters for the held-out file
    D, out = DEFAULTS[name], dict(kw)
    if D.get("lr") is not None:
        out.setdefault("lr", D["lr"])
    if "betas" in D:
        out.setdefault("betas", D["betas"])
    r = lambda x: float(f"{x:.6g}")
    for k, v in list(out.items()):
        if v is None or isinstance(v, (bool, str)):
            continue
        if k == "betas":
            out[k] = [r(max(0.0, 1 - (1 - b) * (0.9 if b < 0.2 else 1.6))) for b in v]
        elif k in ("momentum", "beta", "nu", "beta3", "beta1", "rho") and 0 < v < 1:
            out[k] = r(max(0.05, 1 - (1 - v) * 1.6))
        elif k == "lr":
            out[k] = r(v * 0.6)
        elif k in ("weight_decay", "momentum_decay", "lambd", "gamma", "final_lr", "wd_ratio", "partial", "l1", "l2", "delta", "d", "alpha", "clip", "clip_threshold"):
            out[k] = r(v * 1.3)
        elif k in ("eps", "d0", "reps_rel") and isinstance(v, float):
            out[k] = r(v * 3)
        elif k in ("warmup_steps", "alpha_warmup", "beta3_warmup", "t0") and isinstance(v, int):
            out[k] = v + 3
    return out


# ------------------------------------------------------------------ the table
B = dict
CONFIGS = {
    "Adadelta": [B(), B(lr=0.5, rho=0.7, eps=1e-3, weight_decay=0.1), B(lr=0.5, weight_decay=0.1, decoupled_weight_decay=True), B(maximize=True)],
    "Adamax": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], eps=1e-3), B(lr=0.01, weight_decay=0.1), B(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)],
    "NAdam": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], eps=1e-3), B(lr=0.01, momentum_decay=1.0), B(lr=0.01, weight_decay=0.1, momentum_decay=0.1), B(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)],
    "ASGD": [B(lr=0.01), B(lr=0.01, lambd=0.01, alpha=0.5, t0=5, weight_decay=0.1)],
    "Rprop": [B(lr=0.01), B(lr=0.1, etas=[0.3, 1.5], step_sizes=[1e-3, 1.0])],
    "Lion": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], weight_decay=0.1), B(lr=0.01, cautious="mean", weight_decay=0.1), B(lr=0.01, cautious="plus_one", weight_decay=0.1)],
    "Signum": [B(lr=0.01), B(lr=0.01, momentum=0.0), B(lr=0.01, momentum=0.8, weight_decay=0.1), B(lr=0.01, weight_decay=0.1, decoupled_weight_decay=False)],
    "AdaBelief": [B(lr=0.01), B(lr=0.01, eps=1e-8, weight_decay=0.1), B(lr=0.01, eps=1e-8, weight_decay=0.1, decoupled_weight_decay=False), B(lr=0.01, betas=[0.8, 0.95], eps=1e-12, amsgrad=True), B(lr=0.01, rectify=True, betas=[0.9, 0.95])],
    "Yogi": [B(), B(lr=0.1, betas=[0.8, 0.95], eps=1e-8), B(weight_decay=0.1), B(weight_decay=0.1, decoupled_weight_decay=True)],
    "AdaBound": [B(), B(lr=0.01, final_lr=0.05, gamma=0.05, betas=[0.8, 0.95]), B(weight_decay=0.1), B(amsbound=True, gamma=0.1), B(weight_decay=0.1, decoupled_weight_decay=True)],
    "Adan": [B(lr=0.01), B(lr=0.01, betas=[0.9, 0.8, 0.95], eps=1e-4), B(lr=0.01, weight_decay=0.1), B(lr=0.01, weight_decay=0.1, no_prox=True), B(lr=0.01, cautious="mean")],
    "QHM": [B(lr=0.01), B(lr=0.01, momentum=0.9, nu=0.5, weight_decay=0.1), B(lr=0.01, momentum=0.9, nu=1.0), B(lr=0.01, momentum=0.95, weight_decay=0.1, decoupled_weight_decay=True)],
    "QHAdam": [B(lr=0.01), B(lr=0.01, betas=[0.995, 0.999], nus=[0.7, 1.0]), B(lr=0.01, nus=[0.8, 0.6], weight_decay=0.1), B(lr=0.01, nus=[0.7, 1.0], weight_decay=0.1, decoupled_weight_decay=True)],
    "AggMo": [B(), B(lr=0.01, betas=[0.0, 0.5, 0.9, 0.99]), B(weight_decay=0.1), B(weight_decay=0.1, decoupled_weight_decay=True)],
    "LaProp": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], eps=1e-3), B(lr=0.01, weight_decay=0.1), B(lr=0.01, cautious="mean"), B(lr=0.01, cautious="plus_one")],
    "ADOPT": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], eps=1e-3), B(lr=0.01, clip_exp=None), B(lr=0.01, weight_decay=0.1), B(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True), B(lr=0.01, cautious="mean"), B(lr=0.01, cautious="plus_one")],
    "PAdam": [B(), B(lr=0.01, partial=0.125, betas=[0.8, 0.95]), B(lr=0.01, partial=0.5), B(weight_decay=0.1), B(weight_decay=0.1, decoupled_weight_decay=True)],
    "AdamP": [B(lr=0.01), B(lr=0.01, weight_decay=0.1, delta=0.9), B(lr=0.01, nesterov=True, betas=[0.8, 0.95], delta=3.0, weight_decay=0.1)],
    "SGDP": [B(lr=0.001), B(lr=0.001, momentum=0.9, weight_decay=0.1, delta=0.9), B(lr=0.001, momentum=0.9, nesterov=True, delta=3.0, weight_decay=0.1), B(lr=0.001, momentum=0.9, dampening=0.5)],
    "NovoGrad": [B(lr=0.01), B(lr=0.01, betas=[0.9, 0.5], eps=1e-3), B(lr=0.01, weight_decay=0.1), B(lr=0.01, weight_decay=0.1, grad_averaging=True)],
    "AdEMAMix": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95, 0.99], alpha=2.0), B(lr=0.01, weight_decay=0.1), B(lr=0.01, alpha_warmup=10, beta3_warmup=10)],
    "StableAdamW": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], eps=1e-4, weight_decay=0.1)],
    "MADGRAD": [B(), B(lr=0.1, momentum=0.0), B(weight_decay=0.1, momentum=0.5), B(weight_decay=0.1, decoupled_weight_decay=True)],
    "FTRL": [B(lr=0.1), B(lr=0.1, l1=0.5, l2=0.2), B(lr=0.1, beta=1.0, l1=0.1), B(lr=0.1, lr_power=-0.6), B(lr=0.1, l2_shrinkage=0.1), B(lr=0.1, initial_accumulator_value=0.0, l1=0.5, l2=0.2, beta=1.0)],
    "Tiger": [B(lr=0.01), B(lr=0.01, beta=0.8, weight_decay=0.1)],
    "Grams": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], eps=1e-4, weight_decay=0.1)],
    "CautiousAdamW": [B(lr=0.01, weight_decay=0.0), B(lr=0.01, betas=[0.8, 0.95], weight_decay=0.1)],
    "MARS": [B(), B(gamma=0.1, weight_decay=0.1), B(optimize_1d=True, weight_decay=0.1), B(base="lion", optimize_1d=True), B(cautious="mean"), B(cautious="plus_one")],
    "SophiaG": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.9], rho=0.5, weight_decay=0.0)],
    "SophiaH": [B(), B(lr=0.1, betas=[0.8, 0.9], clip=0.5, weight_decay=0.1)],
    "Adai": [B(lr=0.01), B(lr=0.01, betas=[0.2, 0.95], weight_decay=0.1), B(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True), B(lr=0.01, dampening=0.5)],
    "Fromage": [B(), B(lr=0.1)],
    "ScheduleFreeSGD": [B(lr=0.1), B(lr=0.1, momentum=0.8, weight_decay=0.1), B(lr=0.1, warmup_steps=7), B(lr=0.1, r=1.0, weight_lr_power=1.0, warmup_steps=4)],
    "ScheduleFreeAdamW": [B(lr=0.1), B(lr=0.1, betas=[0.8, 0.95], weight_decay=0.1), B(lr=0.1, warmup_steps=7, weight_decay=0.1), B(lr=0.1, r=1.0, weight_lr_power=1.0)],
    "ScheduleFreeRAdam": [B(lr=0.1), B(lr=0.1, betas=[0.8, 0.95], weight_decay=0.1), B(lr=0.05, silent_sgd_phase=False)],
    "AdamMini": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95], weight_decay=0.1)],
    "AdamAtan2": [B(lr=0.01, weight_decay=0.0), B(lr=0.01, weight_decay=0.1, betas=[0.8, 0.95]), B(lr=0.01, a=1.27, b=0.5, weight_decay=0.0)],
    "Adafactor": [B(), B(relative_step=True, problems=["waves"]), B(lr=0.1, weight_decay=0.1, beta2_decay=-0.5, d=2.0), B(lr=0.5, eps=[1e-8, 1e-1], d=1.5)],
    "AdafactorHF": [B(), B(warmup_init=True), B(scale_parameter=False), B(lr=0.01, relative_step=False), B(lr=0.01, relative_step=False, scale_parameter=False, weight_decay=0.1, clip_threshold=0.5), B(lr=0.01, relative_step=False, beta1=0.9, weight_decay=0.1), B(lr=0.01, relative_step=False, scale_parameter=False, decay_rate=-0.6)],
    "CAME": [B(lr=0.01), B(lr=0.01, betas=[0.8, 0.95, 0.99], weight_decay=0.1, clip_threshold=0.5)],
    "SM3": [B(), B(lr=0.1, momentum=0.9), B(lr=0.1, beta=0.9), B(lr=0.1, momentum=0.5, beta=0.5, problems=["mild"])],
    "Prodigy": [B(), B(d0=1e-3, weight_decay=0.1), B(d0=1e-3, use_bias_correction=True), B(d0=1e-3, safeguard_warmup=True, betas=[0.8, 0.95]), B(d0=1e-3, weight_decay=0.1, decoupled_weight_decay=False), B(d0=1e-3, growth_rate=1.5, d_coef=0.5), B(d0=1e-3, use_bias_correction=True, weight_decay=0.1)],
    "DAdaptAdam": [B(), B(d0=1e-3, weight_decay=0.1), B(d0=1e-3, weight_decay=0.1, decoupled_weight_decay=True, use_bias_correction=True), B(d0=1e-3, growth_rate=1.5, betas=[0.8, 0.95])],
    "DAdaptSGD": [B(), B(d0=1e-3, momentum=0.9), B(d0=1e-3, momentum=0.5, weight_decay=0.1), B(d0=1e-3, growth_rate=1.5)],
    "DoG": [B(), B(reps_rel=1e-3), B(reps_rel=1e-3, weight_decay=0.1), B(reps_rel=1e-3, layerwise=True), B(init_eta=0.01), B(lr=0.5, reps_rel=1e-2, layerwise=True, weight_decay=0.1)],
    "Muon": [B(lr=0.02, weight_decay=0.0), B(lr=0.02), B(lr=0.02, nesterov=False, weight_decay=0.0), B(lr=0.02, momentum=0.8, ns_steps=3, weight_decay=0.0), B(lr=0.02, adjust_lr_fn="match_rms_adamw", weight_decay=0.0), B(lr=0.02, adjust_lr_fn="spectral_unclamped", weight_decay=0.0)],
    "SOAP": [B(), B(precondition_frequency=1, betas=[0.9, 0.9]), B(precondition_frequency=3, weight_decay=0.1, shampoo_beta=0.8), B(correct_bias=False), B(normalize_gradient=True)],
    "Shampoo": [B(lr=0.1), B(lr=0.1, weight_decay=0.1), B(lr=0.1, momentum=0.5), B(lr=0.1, update_freq=3), B(lr=0.1, eps=1e-2)],
}
PROBLEM_OF = {n: ["mild", "bowl"] for n in ("Prodigy", "DAdaptAdam", "DAdaptSGD", "DoG", "ScheduleFreeSGD", "ScheduleFreeAdamW", "ScheduleFreeRAdam")}
PROBLEM_OF.update({n: ["mild"] for n in ("Muon", "SOAP", "Shampoo", "SophiaG", "SophiaH", "Fromage")})
PROBLEM_OF.update({n: ["waves", "bowl"] for n in ("AdEMAMix", "Adan", "Lion", "MARS", "FTRL", "CAME", "Adafactor", "NovoGrad", "AdamP", "SGDP")})

PO = "pytorch_optimizer."
std = "lr betas eps weight_decay maximize"
# ---- torch
row("Adadelta", "torch", "torch.optim.Adadelta", "lr rho eps weight_decay maximize", const=dict(foreach=False))
row("Adamax", "torch", "torch.optim.Adamax", std)
row("NAdam", "torch", "torch.optim.NAdam", std + " momentum_decay decoupled_weight_decay")
row("ASGD", "torch", "torch.optim.ASGD", "lr lambd alpha t0 weight_decay maximize", note="torch keeps eta in float32: the trajectory is exact to about 1e-7 only")
row("Rprop", "torch", "torch.optim.Rprop", "lr etas step_sizes maximize")
row("Adafactor", "torch", "torch.optim.Adafactor", "lr beta2_decay eps d weight_decay maximize")
row("Muon", "torch", "torch.optim.Muon", "lr momentum nesterov ns_coefficients ns_steps eps weight_decay adjust_lr_fn", matrix=True, note="iteration in bfloat16: compare to about 1e-2 of one step")
# ---- keras
K = "keras.optimizers."
row("Adadelta", "keras", K + "Adadelta", "lr:learning_rate rho eps:epsilon")
row("Adamax", "keras", K + "Adamax", "lr:learning_rate betas:beta_1,beta_2 eps:epsilon", variant=dict(eps_form="keras"))
row("Adamax", "keras", K + "Adamax", "lr:learning_rate betas:beta_1,beta_2 eps:epsilon weight_decay decoupled_weight_decay:-", variant=dict(eps_form="keras"), fix=lambda k, f: k if f["weight_decay"] and f["decoupled_weight_decay"] else None)
row("NAdam", "keras", K + "Nadam", "lr:learning_rate betas:beta_1,beta_2 eps:epsilon momentum_decay:-", variant=dict(momentum_decay=1.0))
row("Lion", "keras", K + "Lion", "lr:learning_rate betas:beta_1,beta_2 weight_decay")
row("FTRL", "keras", K + "Ftrl", "lr:learning_rate lr_power:learning_rate_power initial_accumulator_value l1:l1_regularization_strength l2:l2_regularization_strength/2* l2_shrinkage:l2_shrinkage_regularization_strength beta")
row("Adafactor", "keras", K + "Adafactor", "lr:learning_rate beta2_decay:beta_2_decay eps:epsilon_1,epsilon_2 d:clip_threshold weight_decay", fix=lambda k, f: None if k["epsilon_1"] is None else k,
    note="Keras adds epsilon_1 to g*g and has no floor on v (as AdafactorHF); its relative step also takes min(lr, 1/sqrt t)")
row("Adafactor", "keras", K + "Adafactor", "lr:learning_rate beta2_decay:beta_2_decay d:clip_threshold weight_decay", const=dict(epsilon_1=1e-30, epsilon_2=1e-3))
row("Muon", "keras", K + "Muon", "lr:learning_rate momentum nesterov ns_steps ns_coefficients:muon_a,muon_b,muon_c weight_decay adjust_lr_fn:-", variant=dict(momentum_form="heavy_ball", adjust_lr_fn="match_rms_adamw", eps_form="add"), matrix=True, const=dict(rms_rate=0.2))
row("Muon", "keras", K + "Muon", "lr:learning_rate momentum nesterov ns_steps ns_coefficients:muon_a,muon_b,muon_c weight_decay adjust_lr_fn:-", variant=dict(momentum_form="heavy_ball", adjust_lr_fn="none", eps_form="add"), matrix=True, const=dict(rms_rate=None))
row("ScheduleFreeAdamW", "keras", K + "ScheduleFreeAdamW", "lr:learning_rate betas:beta_1,beta_2 eps:epsilon weight_decay warmup_steps", note="parameters in Keras are the training point y")
# ---- optax
ob = "lr:learning_rate betas:b1,b2 eps"
row("Adadelta", "optax", "optax.adadelta", "lr:learning_rate rho eps weight_decay")
row("Adamax", "optax", "optax.adamax", ob)
row("Adamax", "optax", "optax.adamaxw", ob + " weight_decay decoupled_weight_decay:-", fix=lambda k, f: k if f["weight_decay"] and f["decoupled_weight_decay"] else None)
row("NAdam", "optax", "optax.nadam", ob + " momentum_decay:-", variant=dict(momentum_decay=None))
row("Lion", "optax", "optax.lion", "lr:learning_rate betas:b1,b2 weight_decay")
row("Signum", "optax", "optax.signum", "lr:learning_rate momentum:beta", fix=lambda k, f: k if k["beta"] else None)
row("Signum", "optax", "optax.sign_sgd", "lr:learning_rate momentum:-", fix=lambda k, f: k if not f["momentum"] else None)
row("AdaBelief", "optax", "optax.adabelief", ob + " eps_root", fix=lambda k, f: {**k, "eps_root": k["eps"]})
row("Yogi", "optax", "optax.yogi", ob)
row("Adan", "optax", "optax.adan", "lr:learning_rate betas:b1,b2,b3 eps weight_decay", const=dict(eps_root=0.0), note="optax multiplies the difference by 1-b2 where the paper's code has b2 (and b2 there is the code's): not the paper")
row("NovoGrad", "optax", "optax.novograd", ob + " weight_decay")
row("AdEMAMix", "optax", "optax.contrib.ademamix", "lr:learning_rate betas:b1,b2,b3 alpha eps weight_decay")
row("ADOPT", "optax", "optax.contrib.adopt", ob + " clip_exp:-", fix=lambda k, f: {**k, "use_clipping": f["clip_exp"] is not None})
row("MADGRAD", "optax", "optax.contrib.madgrad", "lr:learning_rate momentum weight_decay eps")
row("Fromage", "optax", "optax.fromage", "lr:learning_rate", const=dict(min_norm=0.0))
row("SM3", "optax", "optax.sm3", "lr:learning_rate momentum", variant=dict(eps=1e-8), fix=lambda k, f: k if f["momentum"] else None)
row("Rprop", "optax", "optax.rprop", "lr:learning_rate etas:eta_minus,eta_plus step_sizes:min_step_size,max_step_size", note="wrong: the previous stored update is applied, one step late; optax stores the scaled update, not the gradient, and multiplies by it; after a flip it differs from torch")
row("Prodigy", "optax", "optax.contrib.prodigy", "lr:learning_rate betas beta3 eps d0:estim_lr0 d_coef:estim_lr_coef weight_decay safeguard_warmup use_bias_correction:-", variant=dict(use_bias_correction=True))
row("DAdaptAdam", "optax", "optax.contrib.dadapt_adamw", "lr:learning_rate betas eps d0:estim_lr0 weight_decay decoupled_weight_decay:- use_bias_correction:-", variant=dict(use_bias_correction=True, decoupled_weight_decay=True))
row("DoG", "optax", "optax.contrib.dog", "lr:learning_rate eps weight_decay reps_rel:init_step", fix=lambda k, f: None if f["layerwise"] or f["init_eta"] else {**k, "init_step": ("heuristic", k["init_step"])})
row("ScheduleFreeSGD", "optax", "optax.contrib.schedule_free_sgd", "lr:learning_rate momentum:b1 weight_decay weight_lr_power", train=True)
row("ScheduleFreeAdamW", "optax", "optax.contrib.schedule_free_adamw", ob + " weight_decay weight_lr_power", train=True)
row("AdafactorHF", "optax", "optax.adafactor", "lr:learning_rate scale_parameter:multiply_by_parameter_scale clip_threshold:clipping_threshold weight_decay:weight_decay_rate beta1:momentum relative_step:- eps:eps,- decay_rate", const=dict(min_dim_size_to_factor=1, dtype_momentum="float64"),
    fix=lambda k, f: None if f["relative_step"] else {**{a: b for a, b in k.items() if a != "-"}, "decay_rate": -k["decay_rate"], "weight_decay_rate": k["weight_decay_rate"] or None},
    note="decay is not multiplied by lr in optax; rows and columns are the two largest axes by size; momentum is not scaled alike; decay rate computed in float32")
row("Muon", "optax", "optax.contrib.muon", "lr:learning_rate momentum:beta nesterov ns_coefficients:ns_coeffs ns_steps weight_decay adjust_lr_fn:-", variant=dict(bias_correction=True, eps=1e-8, eps_form="add", adjust_lr_fn="original_transposed"), matrix=True)
# ---- pytorch_optimizer
dw = " weight_decay decoupled_weight_decay:weight_decouple"
row("Adadelta", "pytorch_optimizer", PO + "AdaDelta", "lr rho eps maximize" + dw)
row("Adamax", "pytorch_optimizer", PO + "AdaMax", "lr betas eps maximize" + dw)
row("Lion", "pytorch_optimizer", PO + "Lion", "lr betas weight_decay cautious maximize", fix=lambda k, f: None if f["cautious"] == "mean" else {**k, "cautious": bool(k["cautious"])}, const=dict(weight_decouple=True))
row("Signum", "pytorch_optimizer", PO + "SignSGD", "lr momentum" + dw)
row("AdaBelief", "pytorch_optimizer", PO + "AdaBelief", "lr betas eps amsgrad:ams_bound rectify" + dw)
row("Yogi", "pytorch_optimizer", PO + "Yogi", "lr betas eps initial_accumulator_value:initial_accumulator" + dw)
row("AdaBound", "pytorch_optimizer", PO + "AdaBound", "lr betas final_lr gamma eps amsbound:ams_bound" + dw)
row("Adan", "pytorch_optimizer", PO + "Adan", "lr betas eps weight_decay no_prox:weight_decouple")
row("QHM", "pytorch_optimizer", PO + "QHM", "lr momentum nu" + dw)
row("QHAdam", "pytorch_optimizer", PO + "QHAdam", "lr betas nus eps" + dw)
row("AggMo", "pytorch_optimizer", PO + "AggMo", "lr betas" + dw)
row("LaProp", "pytorch_optimizer", PO + "LaProp", "lr betas eps weight_decay cautious", variant=dict(decay_after=True, eps_before_bias=True, eps_inside=1e-15), fix=lambda k, f: None if f["cautious"] == "mean" else {**k, "cautious": bool(k["cautious"])})
row("ADOPT", "pytorch_optimizer", PO + "ADOPT", "lr betas eps cautious clip_exp:-" + dw, fix=lambda k, f: None if f["cautious"] == "mean" or f["clip_exp"] is None else {**k, "cautious": bool(k["cautious"])})
row("PAdam", "pytorch_optimizer", PO + "PAdam", "lr betas partial eps" + dw)
row("AdamP", "pytorch_optimizer", PO + "AdamP", "lr betas eps weight_decay delta wd_ratio nesterov", variant=dict(eps_form="keras"))
row("SGDP", "pytorch_optimizer", PO + "SGDP", "lr momentum dampening eps weight_decay delta wd_ratio nesterov")
row("NovoGrad", "pytorch_optimizer", PO + "NovoGrad", "lr betas eps weight_decay grad_averaging", variant=dict(average_first=False))
row("AdEMAMix", "pytorch_optimizer", PO + "AdEMAMix", "lr betas alpha eps weight_decay alpha_warmup:t_alpha_beta3 beta3_warmup:-", const=dict(weight_decouple=True))
row("StableAdamW", "pytorch_optimizer", PO + "StableAdamW", "lr betas eps weight_decay", variant=dict(rms_floor=1e-16))
row("MADGRAD", "pytorch_optimizer", PO + "MADGRAD", "lr momentum eps" + dw)
row("FTRL", "pytorch_optimizer", PO + "FTRL", "lr lr_power beta l1:lambda_1 l2:lambda_2 initial_accumulator_value:-", variant=dict(initial_accumulator_value=0.0))
row("Tiger", "pytorch_optimizer", PO + "Tiger", "lr beta weight_decay")
row("Grams", "pytorch_optimizer", PO + "Grams", "lr betas eps weight_decay")
row("MARS", "pytorch_optimizer", PO + "MARS", "lr betas gamma eps base:mars_type optimize_1d weight_decay cautious weight_decay_1d lr_1d betas_1d", variant=dict(first="full", eps_in=1e-15), fix=lambda k, f: None if f["cautious"] == "mean" else {**k, "cautious": bool(k["cautious"]), "lr_1d": k["lr_1d"] or k["lr"], "weight_decay_1d": k["weight_decay"] if k["weight_decay_1d"] is None else k["weight_decay_1d"]})
row("SophiaH", "pytorch_optimizer", PO + "SophiaH", "lr betas clip:p eps weight_decay", const=dict(update_period=10**6), hessian="sophiah")
row("Adai", "pytorch_optimizer", PO + "Adai", "lr betas eps dampening" + dw)
row("Fromage", "pytorch_optimizer", PO + "Fromage", "lr")
row("ScheduleFreeSGD", "pytorch_optimizer", PO + "ScheduleFreeSGD", "lr momentum weight_decay warmup_steps r weight_lr_power", train=True)
row("ScheduleFreeAdamW", "pytorch_optimizer", PO + "ScheduleFreeAdamW", "lr betas eps weight_decay warmup_steps r weight_lr_power", train=True)
row("ScheduleFreeRAdam", "pytorch_optimizer", PO + "ScheduleFreeRAdam", "lr betas eps weight_decay r weight_lr_power silent_sgd_phase", train=True)
row("AdafactorHF", "pytorch_optimizer", PO + "AdaFactor", "lr eps:eps1,eps2 clip_threshold decay_rate beta1:betas weight_decay scale_parameter relative_step warmup_init", fix=lambda k, f: {**k, "lr": k["lr"] or 1e-3, "betas": (k["betas"], 0.999) if k["betas"] else (None, 0.999), "momentum": k["betas"] is not None} if False else {**k, "betas": (k["betas"], 0.999), "momentum": None} if False else None)
row("CAME", "pytorch_optimizer", PO + "CAME", "lr betas eps:eps1,eps2 clip_threshold weight_decay")
row("SM3", "pytorch_optimizer", PO + "SM3", "lr momentum beta eps")
row("Prodigy", "pytorch_optimizer", PO + "Prodigy", "lr betas beta3 eps weight_decay decoupled_weight_decay:weight_decouple use_bias_correction:bias_correction safeguard_warmup d0 d_coef growth_rate", fix=lambda k, f: {**k, "growth_rate": float(k["growth_rate"])})
row("DAdaptAdam", "pytorch_optimizer", PO + "DAdaptAdam", "lr betas eps weight_decay decoupled_weight_decay:weight_decouple use_bias_correction:bias_correction d0 growth_rate", fix=lambda k, f: {**k, "growth_rate": float(k["growth_rate"])})
row("DAdaptSGD", "pytorch_optimizer", PO + "DAdaptSGD", "lr momentum weight_decay d0 growth_rate", fix=lambda k, f: {**k, "growth_rate": float(k["growth_rate"])})
row("SOAP", "pytorch_optimizer", PO + "SOAP", "lr betas shampoo_beta weight_decay precondition_frequency eps correct_bias precondition_1d normalize_gradient", held_shapes=[(5, 4), (7,)])  # a side longer than the other by 2 has an arbitrary eigenbasis
row("Shampoo", "pytorch_optimizer", PO + "Shampoo", "lr momentum eps:matrix_eps weight_decay update_freq:preconditioning_compute_steps")
row("CautiousAdamW", "pytorch_optimizer", PO + "AdamP", "lr betas eps weight_decay cautious", variant=dict(cautious="plus_one", eps_form="keras"), fix=lambda k, f: None)
# ---- timm
T = "timm.optim."
row("Lion", "timm", T + "lion.Lion", "lr betas weight_decay cautious:caution", fix=lambda k, f: None if f["cautious"] == "plus_one" else {**k, "caution": bool(k["caution"])})
row("AdaBelief", "timm", T + "adabelief.AdaBelief", "lr betas eps amsgrad rectify weight_decay decoupled_weight_decay:decoupled_decay")
row("Adan", "timm", T + "adan.Adan", "lr betas eps weight_decay no_prox cautious:caution", fix=lambda k, f: {**k, "caution": bool(k["caution"])})
row("LaProp", "timm", T + "laprop.LaProp", "lr betas eps weight_decay cautious:caution", fix=lambda k, f: None if f["cautious"] == "plus_one" else {**k, "caution": bool(k["caution"])})
row("ADOPT", "timm", T + "adopt.Adopt", "lr betas eps weight_decay decoupled_weight_decay:decoupled clip_exp cautious:caution", fix=lambda k, f: None if f["cautious"] == "plus_one" else {**k, "caution": bool(k["caution"])})
row("AdamP", "timm", T + "adamp.AdamP", "lr betas eps weight_decay delta wd_ratio nesterov")
row("SGDP", "timm", T + "sgdp.SGDP", "lr momentum dampening eps weight_decay delta wd_ratio nesterov")
row("NovoGrad", "timm", T + "nvnovograd.NvNovoGrad", "lr betas eps weight_decay grad_averaging", note="the second moment is kept in float32: exact to about 1e-7")
row("AdafactorHF", "timm", T + "adafactor.Adafactor", "lr eps:eps,eps_scale clip_threshold decay_rate beta1:betas weight_decay scale_parameter relative_step:- warmup_init", const=dict(min_dim_size_to_factor=1), fix=lambda k, f: {**k, "betas": (k["betas"], 0.999) if k["betas"] else None},
    note="scale_parameter only acts with the relative step in timm (in fairseq/HF too: with an external lr the scale applies when scale_parameter is set)")
row("Adafactor", "timm", T + "adafactor.Adafactor", "relative_step:-", const=dict(min_dim_size_to_factor=1), fix=lambda k, f: k if f["relative_step"] else None)
row("MADGRAD", "timm", T + "madgrad.MADGRAD", "lr momentum weight_decay eps decoupled_weight_decay:decoupled_decay")
row("MARS", "timm", T + "mars.Mars", "lr betas gamma eps base:mars_type optimize_1d weight_decay cautious:caution lr_1d:- betas_1d", const=dict(lr_1d_factor=1.0), fix=lambda k, f: None if f["cautious"] == "plus_one" else {**k, "caution": bool(k["caution"])})
row("CautiousAdamW", "timm", T + "adamw.AdamWLegacy", "lr betas eps weight_decay", const=dict(caution=True))
row("NAdam", "timm", T + "nadamw.NAdamW", "lr betas eps weight_decay decoupled_weight_decay:- momentum_decay:-", variant=dict(momentum_decay=None, form="nadamw"), fix=lambda k, f: k if not f["weight_decay"] or f["decoupled_weight_decay"] else None)
# ---- the authors' own packages
row("Lion", "lion_pytorch", "lion_pytorch.Lion", "lr betas weight_decay")
row("AdaBelief", "adabelief_pytorch", "adabelief_pytorch.AdaBelief", "lr betas eps amsgrad rectify weight_decay decoupled_weight_decay:weight_decouple", const=dict(print_change_log=False))
row("AdaBound", "adabound", "adabound.AdaBound", "lr betas final_lr gamma eps weight_decay amsbound")
row("AdamP", "adamp", "adamp.AdamP", "lr betas eps weight_decay delta wd_ratio nesterov")
row("SGDP", "adamp", "adamp.SGDP", "lr momentum dampening eps weight_decay delta wd_ratio nesterov")
row("QHM", "qhoptim", "qhoptim.pyt.QHM", "lr momentum nu weight_decay decoupled_weight_decay:weight_decay_type", fix=lambda k, f: {**k, "weight_decay_type": "direct" if f["decoupled_weight_decay"] else "grad"})
row("QHAdam", "qhoptim", "qhoptim.pyt.QHAdam", "lr betas nus eps weight_decay decoupled_weight_decay:decouple_weight_decay")
row("MADGRAD", "madgrad", "madgrad.MADGRAD", "lr momentum weight_decay eps decoupled_weight_decay:decouple_decay")
row("CAME", "came_pytorch", "came_pytorch.CAME", "lr betas eps clip_threshold weight_decay")
row("DoG", "dog", "dog.DoG", "lr reps_rel eps init_eta weight_decay layerwise:-", fix=lambda k, f: None if f["layerwise"] else k)
row("DoG", "dog", "dog.LDoG", "lr reps_rel eps init_eta weight_decay layerwise:-", fix=lambda k, f: k if f["layerwise"] else None)
row("AdamMini", "adam_mini", "adam_mini.Adam_mini", "lr betas eps weight_decay", variant=dict(blocks="rows"), matrix=True, named="wv")
row("AdamMini", "adam_mini", "adam_mini.Adam_mini", "lr betas eps weight_decay", variant=dict(blocks="array"), named="plain")
row("SophiaG", "sophia_opt", "sophia_opt.SophiaG", "lr betas rho weight_decay", variant=dict(bs=1.0), hessian="sophiag", note="update_hessian squares what it gets, so the square roots were given to it")
row("ScheduleFreeSGD", "schedulefree", "schedulefree.SGDScheduleFree", "lr momentum weight_decay warmup_steps r weight_lr_power", train=True)
row("ScheduleFreeAdamW", "schedulefree", "schedulefree.AdamWScheduleFree", "lr betas eps weight_decay warmup_steps r weight_lr_power", train=True)
row("ScheduleFreeRAdam", "schedulefree", "schedulefree.RAdamScheduleFree", "lr betas eps weight_decay r weight_lr_power silent_sgd_phase", train=True)
row("Prodigy", "prodigyopt", "prodigyopt.Prodigy", "lr betas beta3 eps weight_decay decoupled_weight_decay:decouple use_bias_correction safeguard_warmup d0 d_coef growth_rate", fix=lambda k, f: {**k, "growth_rate": float(k["growth_rate"])})
row("DAdaptAdam", "dadaptation", "dadaptation.DAdaptAdam", "lr betas eps weight_decay decoupled_weight_decay:decouple use_bias_correction d0 growth_rate", fix=lambda k, f: {**k, "growth_rate": float(k["growth_rate"])})
row("DAdaptSGD", "dadaptation", "dadaptation.DAdaptSGD", "lr momentum weight_decay d0 growth_rate", fix=lambda k, f: {**k, "growth_rate": float(k["growth_rate"])})
row("AdamAtan2", "adam_atan2_pytorch", "adam_atan2_pytorch.AdamAtan2", "lr betas weight_decay a b", const=dict(decoupled_wd=False))
row("Muon", "muon_optimizer", "muon.SingleDeviceMuon", "lr momentum weight_decay", variant=dict(eps_form="add"), matrix=True, note="Keller Jordan's code; iteration in bfloat16: compare to about 1e-2")
# ---- torch_optimizer (the older collection)
TO = "torch_optimizer."
row("Yogi", "torch_optimizer", TO + "Yogi", "lr betas eps initial_accumulator_value:initial_accumulator weight_decay")
row("AggMo", "torch_optimizer", TO + "AggMo", "lr betas weight_decay")
row("NovoGrad", "torch_optimizer", TO + "NovoGrad", "lr betas eps weight_decay grad_averaging", note="the second moment is kept in float32: exact to about 1e-7")
row("AdaBound", "torch_optimizer", TO + "AdaBound", "lr betas final_lr gamma eps weight_decay amsbound:amsbound")
row("Shampoo", "torch_optimizer", TO + "Shampoo", "lr momentum eps:epsilon weight_decay update_freq", variant=dict(order=1, statistics="running"), note="exponent -1/order and statistics of the partly preconditioned gradient: not the paper")
row("AdafactorHF", "torch_optimizer", TO + "Adafactor", "lr eps:eps2 clip_threshold decay_rate beta1 weight_decay scale_parameter relative_step warmup_init")
row("Adafactor", "torch_optimizer", TO + "Adafactor", "relative_step:-", fix=lambda k, f: k if f["relative_step"] else None)
row("QHAdam", "torch_optimizer", TO + "QHAdam", "lr betas nus eps weight_decay decoupled_weight_decay:decouple_weight_decay")


# ------------------------------------------------------------------ not a plain sequence of step(grads)
def quartic(ps):  # loss and gradients at ps: sum w/2 d^2 + 0.05 d^4, d = p - c, plus 0.1 (sum of everything)^2; w and c as in bowl
    tot = sum(float(p.sum()) for p in ps)
    loss, gs = 0.1 * tot * tot, []
    for k, p in enumerate(ps):
        n = p.size
        w = np.array([10.0 ** ((i % 3) - 1) for i in range(n)]).reshape(p.shape)
        d = p - np.array([math.sin(0.9 * (i + 1) + k + SEED) for i in range(n)]).reshape(p.shape)
        loss += float((0.5 * w * d * d + 0.05 * d ** 4).sum())
        gs.append(w * d + 0.2 * d ** 3 + 0.2 * tot)
    return loss, gs


def tt(shapes):
    return [torch.tensor(a, dtype=torch.float64).requires_grad_() for a in starts(shapes)]


def flat(ps):
    return [(p.detach().numpy() if hasattr(p, "detach") else np.asarray(p)).ravel().tolist() for p in ps]


def special_lbfgs():
    out = []
    for kw in [dict(lr=1.0, max_iter=4, history_size=5), dict(lr=0.1, max_iter=3, history_size=2), dict(lr=1.0, max_iter=4, history_size=5, line_search_fn="strong_wolfe"), dict(lr=0.5, max_iter=20, history_size=3, line_search_fn="strong_wolfe")]:
        if HELD:
            kw["lr"] *= 0.8
        ps = tt(SHAPES)
        o = torch.optim.LBFGS(ps, **kw)
        rec, losses, evals = [], [], []

        def closure():
            loss, gs = quartic([p.detach().numpy() for p in ps])
            for p, g in zip(ps, gs):
                p.grad = torch.tensor(g)
            return torch.tensor(loss, dtype=torch.float64)

        for _ in range(6):
            losses.append(float(o.step(closure)))
            rec.append(flat(ps))
            evals.append(int(o.state[ps[0]]["func_evals"]))
        out.append(dict(optimizer="LBFGS", special="lbfgs", kwargs=kw, problem="quartic", peer="torch", peer_class="torch.optim.LBFGS", shapes=SHAPES, steps=[1, 2, 3, 4, 5, 6], params=rec, loss_at_start_of_step=losses, func_evals=evals))
    return out


def special_sam():
    import pytorch_optimizer
    out = []
    for kw in [dict(rho=0.05), dict(rho=0.5, adaptive=True), dict(rho=0.1, momentum=0.9), dict(rho=0.3, adaptive=True, momentum=0.5)]:
        if HELD:
            kw["rho"] *= 1.7
        ps = tt(SHAPES)
        a = dict(kw)
        o = pytorch_optimizer.SAM(ps, torch.optim.SGD, rho=a.pop("rho"), adaptive=a.pop("adaptive", False), lr=0.02, **a)
        rec = []
        for t in range(1, 26):
            for which in (o.first_step, o.second_step):
                for p, g in zip(ps, quartic([p.detach().numpy() for p in ps])[1]):
                    p.grad = torch.tensor(g)
                which()
            if t in STEPS:
                rec.append(flat(ps))
        out.append(dict(optimizer="SAM", special="sam", kwargs=kw, base="SGD(lr=0.02, momentum=momentum)", problem="quartic", peer="pytorch_optimizer", peer_class="pytorch_optimizer.SAM", shapes=SHAPES, params=rec))
    return out


ROWS_N = 8 if HELD else 6


def sparse_rows(t):  # indices (repeated ones add up) and their gradient rows at step t
    idx = [t % ROWS_N, (2 * t + 1) % ROWS_N, t % ROWS_N]
    return idx, [[waves(t, j, c, 0.0) for c in range(3)] for j in range(3)]


def special_sparse():
    out = []
    for kw in [dict(lr=0.01), dict(lr=0.01, betas=[0.8, 0.95], eps=1e-3), dict(lr=0.01, maximize=True)]:
        if HELD:
            kw["lr"] *= 0.6
        p = torch.tensor(starts([(ROWS_N, 3)])[0]).requires_grad_()
        o = torch.optim.SparseAdam([p], **{**kw, "betas": tuple(kw.get("betas", (0.9, 0.999)))})
        rec = []
        for t in range(1, 26):
            idx, val = sparse_rows(t)
            p.grad = torch.sparse_coo_tensor(torch.tensor([idx]), torch.tensor(val, dtype=torch.float64), (ROWS_N, 3))
            o.step()
            if t in STEPS:
                rec.append([p.detach().flatten().tolist()])
        out.append(dict(optimizer="SparseAdam", special="sparse", kwargs=kw, problem="sparse_rows", peer="torch", peer_class="torch.optim.SparseAdam", shapes=[(ROWS_N, 3)], params=rec,
                        note="step t: indices t mod n, (2t+1) mod n, t mod n; row j is waves(t, j, c), c = 0, 1, 2; n rows"))
    return out


def special_averages():
    from torch.optim import swa_utils as su
    out = []
    dec = 0.95 if HELD else 0.9
    for kind, kw, fn in [("SWA", {}, su.get_swa_multi_avg_fn()), ("EMA", dict(decay=dec), su.get_ema_multi_avg_fn(dec))]:
        m = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(a)) for a in starts(SHAPES)])
        av = su.AveragedModel(m, multi_avg_fn=fn)
        rec = []
        for t in range(1, 26):
            with torch.no_grad():
                for k, (p, a) in enumerate(zip(m, starts(SHAPES))):
                    p.copy_(torch.tensor([mild(t, k, i, x) for i, x in enumerate(a.ravel())]).reshape(a.shape))
            av.update_parameters(m)
            if t in STEPS:
                rec.append(flat(av.module))
        out.append(dict(optimizer=kind, special="average", kwargs=kw, problem="the parameters at update t are mild(t) of the starting ones", peer="torch", peer_class="torch.optim.swa_utils.AveragedModel", shapes=SHAPES, params=rec,
                        note="the first update copies (n_averaged == 0)"))
    for kw in [dict(swa_lr=0.05, anneal_epochs=5, anneal_strategy="cos"), dict(swa_lr=0.05, anneal_epochs=5, anneal_strategy="linear"), dict(swa_lr=0.05, anneal_epochs=0)]:
        o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.7 if HELD else 0.5)
        s = su.SWALR(o, **kw)
        lrs = []
        for _ in range(10):
            lrs.append(float(o.param_groups[0]["lr"]))
            o.step()
            s.step()
        out.append(dict(optimizer="SWALR", special="swalr", kwargs={**kw, "lr": 0.7 if HELD else 0.5}, problem="", peer="torch", peer_class="torch.optim.swa_utils.SWALR", shapes=[], params=[], lrs=lrs))
    return out


def special_transforms():
    out = []
    c = 1.7 if HELD else 1.0
    base = lambda: optax.sgd(0.01, momentum=0.9)
    todo = [("adaptive_grad_clip", dict(clipping=0.05 * c, eps=1e-3), lambda k: optax.adaptive_grad_clip(**k)), ("adaptive_grad_clip", dict(clipping=0.5 * c, eps=1e-3), lambda k: optax.adaptive_grad_clip(**k)),
            ("clip_by_block_rms", dict(threshold=0.5 * c), lambda k: optax.clip_by_block_rms(**k)), ("clip_by_global_norm", dict(max_norm=2.0 * c), lambda k: optax.clip_by_global_norm(**k)),
            ("clip", dict(max_delta=0.3 * c), lambda k: optax.clip(**k)), ("zero_nans", {}, lambda k: optax.zero_nans()), ("centralize", {}, lambda k: optax.centralize()),
            ("MultiSteps", dict(every_k_schedule=3, inner="sgd(0.01, momentum=0.9)"), lambda k: optax.MultiSteps(base(), 3)),
            ("apply_if_finite", dict(max_consecutive_errors=2, inner="sgd(0.01, momentum=0.9)"), lambda k: optax.apply_if_finite(base(), 2))]
    for name, kw, make in todo:
        tx = make(kw)
        ps = [jnp.asarray(a) for a in starts(SHAPES)]
        st = tx.init(ps)
        rec, move = [], name in ("MultiSteps", "apply_if_finite")
        for t in range(1, 11):
            g = grads("waves", t, ps)
            if name in ("zero_nans", "apply_if_finite") and t % 5 in (2, 3, 4):
                g[0].flat[1] = float("nan")
                if name == "zero_nans":
                    g[1].flat[2] = float("inf")
            u, st = tx.update([jnp.asarray(x) for x in g], st, ps)
            if move:
                ps = [a + b for a, b in zip(ps, u)]
            rec.append(flat(ps if move else u))
        out.append(dict(optimizer=name, special="transform", kwargs=kw, problem="waves" + ("; element 1 of array 0 is NaN when t mod 5 is 2, 3 or 4" if "nan" in name or "finite" in name else "") + ("; element 2 of array 1 is inf then" if name == "zero_nans" else ""), peer="optax", peer_class="optax." + name, shapes=SHAPES,
                        steps=list(range(1, 11)), params=rec, note="params holds the parameters" if move else "params holds the transformed gradients, at the starting parameters"))
    return out


SPECIAL = [special_lbfgs, special_sam, special_sparse, special_averages, special_transforms]
# table ends


def clean(x):  # strict JSON: NaN is null, infinities are strings
    if isinstance(x, float) and not math.isfinite(x):
        return None if x != x else "inf" if x > 0 else "-inf"
    if isinstance(x, dict):
        return {k: clean(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [clean(v) for v in x]
    return x


ONLY = [a[7:] for a in sys.argv if a.startswith("--only=")]


def main():
    peers = {k: v for k, v in VERSIONS.items() if v}
    cases, failed = [], []
    for name, peer, path, keep, variant, const, extra in ROWS:
        if not VERSIONS.get(peer) or (ONLY and name not in ONLY and peer not in ONLY):
            continue
        have_keys = {i.partition(":")[0] for i in keep}
        problems = PROBLEM_OF.get(name, ["waves"])
        for cfg in CONFIGS[name]:
            cfg = dict(cfg)
            probs = cfg.pop("problems", problems)
            if HELD:
                cfg = nudge(name, cfg)
            full = {**DEFAULTS[name], **cfg, **variant}
            unsupported = [k for k in cfg if k not in have_keys and cfg[k] != DEFAULTS[name].get(k) and k not in variant]
            if unsupported or any(k in variant and cfg[k] != variant[k] for k in cfg):
                continue
            shapes = [s for s in SHAPES if len(s) == 2] if extra.get("matrix") else SHAPES
            if HELD and "held_shapes" in extra:
                shapes = extra["held_shapes"]
            for problem in probs:
                try:
                    pk = to_peer(keep, full, const)
                except KeyError as e:
                    failed.append(f"{name} {peer}: no keyword {e}")
                    continue
                if "fix" in extra:
                    pk = extra["fix"](pk, full)
                    if pk is None:
                        continue
                try:
                    rec, ev = RUN.get(peer, run_torch)(path, pk, shapes, problem, STEPS, extra)
                except Exception as e:
                    failed.append(f"{name} {peer} {cfg}: {type(e).__name__} {e}"[:300])
                    continue
                c = dict(optimizer=name, kwargs={k: v for k, v in full.items() if v != DEFAULTS[name].get(k) or k in cfg}, problem=problem, peer=peer, peer_class=path,
                         peer_kwargs={k: v if isinstance(v, (int, float, str, bool, list, tuple, type(None))) else str(v) for k, v in pk.items()}, shapes=shapes, params=rec)
                if ev:
                    c["eval_params"] = ev
                if extra.get("hessian"):
                    c["hessian"] = "before steps 1, 4, 7, ...: abs(mild(t))+0.1 at the parameters as they are"
                if extra.get("note"):
                    c["note"] = extra["note"]
                cases.append(c)
    for f in SPECIAL:
        try:
            cases += f()
        except Exception as e:
            failed.append(f"{f.__name__}: {type(e).__name__} {e}"[:300])
    cases = clean(cases)
    try:  # how far the specification's equations (reference_wider.py, kept apart) are from each record, relative to the distance travelled
        from reference_wider import spec_error
        for c in cases:
            e = spec_error(c, SEED, STEPS)
            c["spec_error"] = None if e is None else float(f"{e:.1e}")
            c["follows_spec"] = None if e is None else e < (0.3 if "bfloat16" in c.get("note", "") else 1e-5)
    except ImportError:
        pass
    out = dict(format=1, heldout=HELD, seed=SEED, shapes=SHAPES, steps=STEPS, peers=peers, defaults=DEFAULTS, cases=cases)
    if "--list-failed" in sys.argv:
        json.dump(failed, sys.stderr, indent=1)
    print(f"{len(cases)} cases, {len(failed)} failed; missing peers: {[k for k, v in VERSIONS.items() if not v]}", file=sys.stderr)
    for x in failed:
        print("FAILED", x, file=sys.stderr)
    json.dump(clean(out), OUT, separators=(",", ":"), default=str)
    print(file=OUT)


if __name__ == "__main__":
    main()
