"""Record what other packages compute for Adafactor, Lion, NovoGrad and Prodigy, in float64, from formulas.

Run: python make_wider.py > wider.json   (needs all packages that PEERS names; with some of them it records those)
Of a larger record of other packages' optimizers this is what is tested here: the cases that follow the equations of
support/reference.py. A package that computes something else is told apart by its `spec_error`, and left out.
"""
import importlib, importlib.metadata, json, math, os, sys, warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
OUT, sys.stdout = sys.stdout, sys.stderr  # some packages print
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import numpy as np
from reference import Reference, defaults_of

SHAPES, LAST, STEPS = [(4, 3), (5,)], 25, [1, 2, 5, 25]
PEERS = {
    "torch": "torch", "optax": "optax", "keras": "keras", "pytorch_optimizer": "pytorch_optimizer", "timm": "timm",
    "prodigyopt": "prodigyopt", "torch_optimizer": "torch-optimizer", "lion_pytorch": "lion-pytorch",
}


# The inputs: element i, in C order, of array k; p is the parameter as it is when step t = 1, 2, ... is taken.
def start(k, i):
    return math.cos(1.3 * (i + 1) + k) * 2.0


def waves(t, k, i, p):
    return math.sin(0.7 * t * (i + 1) + k) * 10.0 ** ((i % 5) - 2)


def bowl(t, k, i, p):
    return 10.0 ** ((i % 3) - 1) * (p - math.sin(0.9 * (i + 1) + k))


def mild(t, k, i, p):
    return math.sin(0.05 * t * (1 + i % 3) + 0.8 * i * i + k) + 0.1 * p


def starts():
    return [np.array([start(k, i) for i in range(math.prod(s))]).reshape(s) for k, s in enumerate(SHAPES)]


def grads(problem, t, ps):
    made = ([problem(t, k, i, float(x)) for i, x in enumerate(np.ravel(p))] for k, p in enumerate(ps))
    return [np.array(g).reshape(np.shape(p)) for g, p in zip(made, ps)]


# One trajectory: a list of arrays for each step.
def run_torch(make, problem):
    import torch

    ps = [torch.tensor(p, requires_grad=True) for p in starts()]
    opt = make(ps)
    for t in range(1, LAST + 1):
        for p, g in zip(ps, grads(problem, t, [p.detach().numpy() for p in ps])):
            p.grad = torch.tensor(g)
        opt.step()
        yield [p.detach().numpy().copy() for p in ps]


def run_optax(make, problem):
    import jax, optax

    jax.config.update("jax_enable_x64", True)
    ps = [jax.numpy.asarray(p) for p in starts()]
    opt = make()
    state, update = opt.init(ps), jax.jit(opt.update)
    for t in range(1, LAST + 1):
        updates, state = update([jax.numpy.asarray(g) for g in grads(problem, t, ps)], state, ps)
        ps = optax.apply_updates(ps, updates)
        yield [np.asarray(p) for p in ps]


def run_keras(make, problem):
    import jax, keras

    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    ps = [keras.Variable(p, dtype="float64") for p in starts()]
    opt = make()
    opt.build(ps)
    for t in range(1, LAST + 1):
        gs = grads(problem, t, [np.asarray(p) for p in ps])
        opt.apply([keras.ops.convert_to_tensor(g, dtype="float64") for g in gs], ps)
        yield [np.asarray(p) for p in ps]


def run_reference(name, kwargs, problem):
    reference = Reference(name, starts(), **kwargs)
    for t in range(1, LAST + 1):
        reference.step(grads(problem, t, reference.params))
        yield reference.params


# Hyperparameters to record; names as in reference.py.
CONFIGS = {
    "Lion": [dict(lr=0.01), dict(lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)],
    "NovoGrad": [
        dict(lr=0.01), dict(lr=0.01, betas=(0.9, 0.5), eps=1e-3), dict(lr=0.01, weight_decay=0.1),
        dict(lr=0.01, weight_decay=0.1, grad_averaging=True),
    ],
    "Adafactor": [
        dict(), dict(lr=0.1, weight_decay=0.1, beta2_decay=-0.5, d=2.0), dict(lr=0.5, eps=(1e-8, 1e-1), d=1.5),
        dict(relative_step=True),
    ],
    "Prodigy": [
        dict(), dict(d0=1e-3, weight_decay=0.1), dict(d0=1e-3, use_bias_correction=True),
        dict(d0=1e-3, safeguard_warmup=True, betas=(0.8, 0.95)),
        dict(d0=1e-3, weight_decay=0.1, decoupled_weight_decay=False), dict(d0=1e-3, growth_rate=1.5, d_coef=0.5),
        dict(d0=1e-3, use_bias_correction=True, weight_decay=0.1),
    ],
}
PROBLEMS = {"Lion": [waves, bowl], "NovoGrad": [waves, bowl], "Adafactor": [waves, bowl], "Prodigy": [mild, bowl]}

# Whose class, and what it calls its keywords: "a:b" is b there, "a:b,c" a pair taken apart, "a=x" what it has built in.
ROWS = [
    ("Lion", "keras.optimizers.Lion", "lr:learning_rate betas:beta_1,beta_2 weight_decay"),
    ("Lion", "optax.lion", "lr:learning_rate betas:b1,b2 weight_decay"),
    ("Lion", "pytorch_optimizer.Lion", "lr betas weight_decay"),
    ("Lion", "timm.optim.lion.Lion", "lr betas weight_decay"),
    ("Lion", "lion_pytorch.Lion", "lr betas weight_decay"),
    ("NovoGrad", "optax.novograd", "lr:learning_rate betas:b1,b2 eps weight_decay"),
    ("NovoGrad", "timm.optim.nvnovograd.NvNovoGrad", "lr betas eps weight_decay grad_averaging"),
    ("NovoGrad", "torch_optimizer.NovoGrad", "lr betas eps weight_decay grad_averaging"),
    ("Adafactor", "torch.optim.Adafactor", "lr beta2_decay eps d weight_decay"),
    (
        "Adafactor", "keras.optimizers.Adafactor",
        "lr:learning_rate beta2_decay:beta_2_decay d:clip_threshold weight_decay",
    ),
    ("Adafactor", "timm.optim.adafactor.Adafactor", "relative_step=True"),
    ("Adafactor", "torch_optimizer.Adafactor", "relative_step=True"),
    (
        "Prodigy", "optax.contrib.prodigy",
        "lr:learning_rate betas beta3 eps d0:estim_lr0 d_coef:estim_lr_coef weight_decay safeguard_warmup "
        "use_bias_correction=True",
    ),
    (
        "Prodigy", "pytorch_optimizer.Prodigy",
        "lr betas beta3 eps weight_decay decoupled_weight_decay:weight_decouple use_bias_correction:bias_correction "
        "safeguard_warmup d0 d_coef growth_rate",
    ),
    (
        "Prodigy", "prodigyopt.Prodigy",
        "lr betas beta3 eps weight_decay decoupled_weight_decay:decouple use_bias_correction safeguard_warmup d0 d_coef "
        "growth_rate",
    ),
]
# What a class must be told so that it computes the same at all.
ALWAYS = {
    "pytorch_optimizer.Lion": dict(weight_decouple=True),
    "keras.optimizers.Adafactor": dict(epsilon_1=1e-30, epsilon_2=1e-3),
    "timm.optim.adafactor.Adafactor": dict(min_dim_size_to_factor=1),
}


def spelling(row):
    """What a row says: our names with theirs, and our names with what is built in."""
    items = row.split()
    spelled = dict(item.split(":") if ":" in item else (item, item) for item in items if "=" not in item)
    return spelled, {name: value == "True" for name, value in (item.split("=") for item in items if "=" in item)}


def wanted(configs, spelled, built_in):
    """The hyperparameters that the class can have, each once."""
    found = []
    for kwargs in (built_in | config for config in configs):
        possible = set(kwargs) <= set(spelled) | set(built_in) and all(kwargs[k] == v for k, v in built_in.items())
        if possible and kwargs not in found:
            found.append(kwargs)
    return found


def told(path, spelled, options):
    """What the class is called with."""
    result = dict(ALWAYS.get(path, {}))
    for name, theirs in spelled.items():
        result |= dict(zip(theirs.split(","), options[name])) if "," in theirs else {theirs: options[name]}
    return result


def main():
    versions, cases = {}, []
    for name, path, row in ROWS:
        package, _, member = path.rpartition(".")
        peer = path.partition(".")[0]
        try:
            cls = getattr(importlib.import_module(package), member)
            versions[peer] = importlib.metadata.version(PEERS[peer])
        except ImportError as error:
            print(f"left out: {path}: {error}")
            continue
        run = {"optax": run_optax, "keras": run_keras}.get(peer, run_torch)
        spelled, built_in = spelling(row)
        for kwargs in wanted(CONFIGS[name], spelled, built_in):
            theirs = told(path, spelled, defaults_of(name) | kwargs)
            for problem in PROBLEMS[name]:
                make = lambda *params: cls(*params, **theirs)
                record, error = list(run(make, problem)), 0.0
                for got, ours in zip(record, run_reference(name, kwargs, problem)):
                    far = max(np.max(np.abs(a - b)) for a, b in zip(got, starts()))
                    error = max(error, max(np.max(np.abs(a - b)) for a, b in zip(got, ours)) / far)
                if error > 1e-5:
                    continue
                params = [[p.ravel().tolist() for p in record[t - 1]] for t in STEPS]
                cases.append(dict(optimizer=name, kwargs=kwargs, problem=problem.__name__, peer=peer, peer_class=path,
                                  spec_error=float(f"{error:.1e}"), params=params))
    json.dump(dict(shapes=SHAPES, steps=STEPS, peers=versions, cases=cases), OUT, separators=(",", ":"))
    print(file=OUT)


if __name__ == "__main__":
    main()
