"""The documentation's samples run, and its equations give the kernels' results.

``docs/_ext`` makes the equations from the rules' syntax trees. These tests evaluate the printed expressions in float64
NumPy and compare them with the kernels, for every variant that a page shows. Sphinx is not needed.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import sympy as sp
from families import named
from helpers import ROOT

import schuss
from schuss import _schuss, functional

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import rule_latex  # noqa: E402 - the path comes first
from optimizer_pages import page, pages, prologue  # noqa: E402
from rule_tree import Line, equations, names, symbol  # noqa: E402
from variants import Kernels, variants  # noqa: E402

SCRIPTS = ROOT / "examples" / "gallery"
GENERATED = "generated", "gallery"  # folders that the build writes
PAGES = [page for page in sorted(DOCS.rglob("*.rst")) if not set(GENERATED) & set(page.relative_to(DOCS).parts)]
KINDS = list(schuss.OPTIMIZERS.values())
VARIANTS = [(kind, variant) for kind in KINDS for variant in variants(kind)]
TOOLS = ["clip_norm", "scale", "lookahead", "clamp", "centralize", "copy"]

# Values for which every term changes the result.
NUMBERS = {
    "lr": 0.1,
    "betas": (0.8, 0.9),
    "eps": 1e-2,
    "dampening": 0.25,
    "lr_decay": 0.1,
    "d0": 0.5,
    "growth_rate": 1.5,
    "warmup_steps": 3,
}

# The arguments of `step` for which the kernel's gradient is g, where they are not g alone.
ARGUMENTS = {"NAG": lambda g: (lambda: g,), "Newton": lambda g: (g, np.eye(g.size))}

NUMPY = [{"Select": np.where, "Max": np.maximum, "Min": np.minimum}, "numpy"]
AXES = {"row": -1, "col": -2, "matrix": (-2, -1)}
REDUCTIONS = {"sum": np.sum, "norm": np.sum, "max": np.max, "mean": np.mean, "rms": np.mean}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_samples(page):
    failed, _ = doctest.testfile(str(page), module_relative=False)
    assert failed == 0


@pytest.mark.parametrize(
    ("page", "package"),
    [("porting_pytorch", "torch"), ("pytorch", "torch"), ("flower", "flwr"), ("jax", "jax"), ("joblib", "joblib"),
     ("ray", "ray"), ("deepspeed", "deepspeed")],
)  # fmt: skip
def test_samples_with_other_packages(page, package, monkeypatch):
    """The blocks that need a package, where it is installed; `make test-torch` installs some of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(package)
        text = (DOCS / "guide" / f"{page}.rst").read_text(encoding="utf-8")
        blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
        assert blocks
        for block in blocks:
            exec(textwrap.dedent(block), {"__name__": "__main__"})


def offered_modules():
    """The modules that the gallery's overview offers, for scripts that were downloaded."""
    header = (SCRIPTS / "GALLERY_HEADER.rst").read_text(encoding="utf-8")
    return [DOCS / "gallery" / path for path in re.findall(r":download:`[^`]* <(.*?)>`", header)]


def test_the_gallery_offers_the_modules_that_its_scripts_import():
    local = {path.stem for folder in (SCRIPTS, SCRIPTS.parent) for path in folder.glob("*.py")}
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*SCRIPTS.glob("plot_*.py"), *offered_modules()])
    imported = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    assert {path.stem for path in offered_modules()} == local & set(imported)


def test_a_download_runs_by_itself(tmp_path):
    pytest.importorskip("matplotlib")
    for path in [SCRIPTS / "plot_01_isotropic_bowl.py", *offered_modules()]:
        shutil.copy(path.resolve(), tmp_path)
    command = [sys.executable, "plot_01_isotropic_bowl.py"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "MPLBACKEND": "agg"}, check=True, capture_output=True)
    assert (tmp_path / "build" / "gallery" / "01_isotropic_bowl.png").exists()


def test_the_gallery_draws_every_schedule():
    script = (SCRIPTS / "plot_07_schedules.py").read_text(encoding="utf-8")
    missing = [name for name in schuss.schedules.__all__ if f"schedules.{name}(" not in script]
    assert missing == ["Schedule"]


def test_api_pages_are_complete():
    """Every public name is on a page."""
    own = {name: getattr(schuss, name) for name in schuss.__all__}
    own = {name: thing for name, thing in own.items() if callable(thing) and name != "Offload"}
    given = {name for name, thing in own.items() if thing.__module__.startswith("schuss")}
    listed = re.findall(r"^   (\w+)$", (DOCS / "api" / "functions.rst").read_text(encoding="utf-8"), re.MULTILINE)
    assert given == {*listed, *pages(), "Optimizer"}
    for module in (schuss.schedules, schuss.init, schuss.transforms):
        page = DOCS / "api" / f"{module.__name__.rpartition('.')[2]}.rst"
        listed = re.findall(r"^   (\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert listed == list(module.__all__)


def test_every_optimizer_is_in_one_list_of_the_overview():
    overview = (DOCS / "optimizers" / "index.rst").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^   (\w+)$", overview, re.MULTILINE)) == sorted(pages())


def test_the_table_of_small_states_names_the_optimizers_with_int8():
    page = (DOCS / "guide" / "small_state.rst").read_text(encoding="utf-8")
    row = page.partition('``"int8"``')[2].partition("\n====")[0]
    assert sorted(re.findall(r":class:`(\w+)`", row)) == sorted(named("INT8"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_page_explains_the_symbols_of_its_equations(kind):
    """Each letter is explained, or defined by an equation; a name in words is the option's own."""
    text = page(kind.__name__, kind)
    lines = [line for v in variants(kind) for stages in v.programs.values() for stage in stages for line in stage.lines]
    defined = {line.name for line in lines if not line.assigns}
    defined |= {"t"} if kind.__name__ == "ASGD" else set()
    for name in {name for line in lines for name in names(line.value)} - defined:
        written = rule_latex.tex(name)
        assert f":math:`{written}`" in text or written.startswith("\\mathrm"), (name, text)
    assert "\n    Examples\n" in kind.__doc__


@pytest.mark.parametrize("name", [*_schuss.rules(), *TOOLS])
def test_every_rule_translates(name):
    """Every name has a value before it is read, and the LaTeX is balanced."""
    tree = _schuss.rule_tree(name)
    for program in tree["programs"]:
        known = {"lr", "t", "p", "g", *tree["hypers"], *(state["name"] for state in tree["states"])}
        stages = equations(tree, program, {}, [])
        assert stages or name == "clip_norm"
        for line in (line for stage in stages for line in stage.lines):
            assert names(line.value) <= known
            known.add(line.name)
            printed = rule_latex.latex(line)
            assert printed.count("{") == printed.count("}")
            assert len(re.findall(r"\\left\W", printed)) == len(re.findall(r"\\right\W", printed))
            assert "Select" not in printed


def test_messages_of_the_rule_parser():
    """The messages quoted on the page about the rule language are those of the parser's own tests."""
    page = (DOCS / "internals" / "rule_language.rst").read_text(encoding="utf-8")
    quoted = re.findall(r"^   \* - ``.*\n     - ``(.*)``$", page, re.MULTILINE)
    asked = (ROOT / "rust" / "macros" / "src" / "tests.rs").read_text(encoding="utf-8")
    assert len(quoted) > 10
    assert [message for message in quoted if f'"{message}"' not in asked] == []


def value_of(line, known):
    used = sorted(names(line.value))
    value = sp.lambdify([symbol(name) for name in used], line.value, NUMPY)(*(known[name] for name in used))
    if line.reduction is None:
        return value
    operation, scope = line.reduction
    value = value if np.ndim(value) else np.full(known["p"].shape, value)  # a sum of ones counts elements
    axis = AXES.get(scope)
    found = REDUCTIONS[operation](value, axis=axis, keepdims=axis is not None)
    return np.sqrt(found) if operation in ("norm", "rms") else found


def run(stages, values, scalars=None):
    """All values of one array after the stages. Row and column vectors have length 1 in the other axis."""
    known = {**values, **(scalars or {})}
    with np.errstate(all="ignore"):
        for stage in stages:
            scale, l2, decay = prologue()
            # The prologue comes first in each pass.
            known["g"] = values.get("g")
            before = [scale, l2] if any("g" in names(line.value) for line in stage.lines) else []
            before += [decay] if any(line.name == "p" for line in stage.lines) else []
            for line in (*(before if scalars else []), *stage.lines):
                known[line.name] = value_of(line, known)
    return known


def options_of(kernels, options, **more):
    """The options, with the values of NUMBERS where the class takes them."""
    chosen = dict(options)
    for name, value in (NUMBERS | more).items():
        possible = name in kernels.defaults and name not in chosen and kernels.allows({**chosen, name: value})
        if possible and kernels.rules({**chosen, name: value}) == kernels.rules(chosen):
            chosen[name] = value
    return chosen


def stepped(kind, kernels, variant, step, options):
    """A random array after a step with number `step`, and the values before it."""
    rng = np.random.default_rng([step, len(options)])
    shape = (5, 7) if 2 in variant.ndims else (35,)
    p, g = rng.standard_normal((2, *shape))
    tree = _schuss.rule_tree(variant.rule)
    shapes = {"element": p.shape, "row": (*p.shape[:-1], 1), "col": (1, p.shape[-1]), "array": (), "all": ()}
    own = {s["name"]: s["scope"] for s in tree["states"] if s["scope"] in shapes and not s["scratch"]}
    scratch = [s["name"] for s in tree["states"] if s["scratch"]]
    states = {name: np.array(np.abs(rng.standard_normal(shapes[scope]))) for name, scope in own.items()}
    hypers = {**kernels.defaults, **options}
    values = {name: float(kernels.values(options)[name]) for name in tree["hypers"]}
    values |= {"lr": hypers["lr"], "t": float(step), "p": p.copy(), "g": g.copy()}
    values |= {name: state.copy() for name, state in states.items()}
    function = getattr(functional, f"{kind.__name__.lower()}_", None)
    if function is not None:
        function(p, g, *states.values(), step=step, **options)
        return {"p": p, **states}, values
    # Rows of the rule are rows of the array.
    layout = {"layout": "out_in"} if "layout" in kernels.defaults else {}
    optimizer = kind(p, **layout, **options)
    state = optimizer.state_dict()
    state["step"] = state["param_groups"][0]["step"] = step - 1
    for name, scope in own.items():
        (state["shared"] if scope == "all" else state["state"][0])[name] = states[name]
    optimizer.load_state_dict(state)
    optimizer.step(*ARGUMENTS.get(kind.__name__, lambda g: (g,))(g))
    if scratch:  # as matrix products have left it to the step
        values |= dict(zip(scratch, optimizer._step_scratch[0], strict=True))
    state = optimizer.state_dict()
    return {"p": p, **{name: ({**state["state"][0], **state.get("shared", {})})[name] for name in own}}, values


def assert_same(found, expected):
    for name, array in expected.items():
        np.testing.assert_allclose(np.broadcast_to(found[name], array.shape), array, 1e-9, 1e-12, err_msg=name)


def of(x):
    return getattr(x, "__name__", None) or f"{x.rule}{dict(x.options)}"


@pytest.mark.parametrize(("kind", "variant"), VARIANTS, ids=of)
@pytest.mark.parametrize("step", [1, 2, 7, 40])
def test_equations(kind, variant, step):
    """The equations of the pages give the kernels' results."""
    kernels = Kernels(kind)
    own_decay = kernels.kind._decay({**kernels.defaults, **variant.options}) == "own"
    options = options_of(kernels, variant.options, weight_decay=0.1 if own_decay else 0.0)
    expected, values = stepped(kind, kernels, variant, step, options)
    assert_same(run(variant.programs["step"], values), expected)


DECAYING = [(kind, v) for kind, v in VARIANTS if kind.__name__ != "Newton" and "weight_decay" in Kernels(kind).defaults]


@pytest.mark.parametrize(("kind", "variant"), DECAYING, ids=of)
def test_prologue(kind, variant):
    """Weight decay and `maximize` come before every pass, as the overview of optimizers says."""
    kernels = Kernels(kind)
    options = options_of(kernels, variant.options, weight_decay=0.3, maximize=True)
    expected, values = stepped(kind, kernels, variant, 40, options)  # a step in which nothing is frozen
    decay = kernels.kind._decay({**kernels.defaults, **options})
    scalars = {"gradient_factor": -1.0, "l2": 0.3 if decay == "l2" else 0.0, "decay": 1.0}
    if decay == "decoupled":
        scalars["decay"] = 1.0 - values["lr"] * 0.3
    assert_same(run(variant.programs["step"], values, scalars), expected)


@pytest.mark.parametrize("options", [{}, {"form": "ema"}, {"lookahead": 0.4}], ids=str)
def test_look_ahead(options):
    """NAG's closure sees the parameters that the look-ahead equations give."""
    p, g, found = np.array([1.0, -2.0]), np.array([0.5, 0.25]), []
    optimizer = schuss.NAG(p, lr=0.1, momentum=0.7, **options)
    optimizer.step(lambda: g)
    values = {"lr": 0.1, "t": 2.0, "p": p.copy(), "b": optimizer.state_dict()["state"][0]["b"].copy()}
    optimizer.step(lambda: (found.append(p.copy()), g)[1])
    kernels = Kernels(schuss.NAG)
    hypers = {name: float(value) for name, value in kernels.values({"momentum": 0.7, **options}).items()}
    assert_same(run(kernels.equations("nag", options)["look_ahead"], values | hypers), {"p": found[0]})


@pytest.mark.parametrize("kind", [schuss.ScheduleFreeSGD, schuss.ScheduleFreeAdamW, schuss.ScheduleFreeRAdam])
def test_modes(kind):
    """Schedule-free optimizers switch as their programs say."""
    p = np.array([1.0, -2.0])
    optimizer, kernels = kind(p, lr=0.1), Kernels(kind)
    for _ in range(5):
        optimizer.step(p)
    rule = kernels.kind._rule({})
    hypers = {name: float(kernels.values({})[name]) for name in _schuss.rule_tree(rule)["hypers"]}
    for mode, switch in (("eval", optimizer.eval), ("train", optimizer.train)):
        values = {"p": p.copy(), "z": optimizer.state_dict()["state"][0]["z"].copy(), "lr": 0.1, "t": 6.0}
        switch()
        assert_same(run(kernels.equations(rule, {})[mode], values | hypers), {"p": p})


@pytest.mark.parametrize("kind", [schuss.SophiaG, schuss.SophiaH])
def test_update_hessian(kind):
    h, estimate = np.array([1.0, 2.0]), np.array([0.5, 3.0])
    optimizer, kernels = kind(np.ones(2)), Kernels(kind)
    optimizer.state_dict()["state"][0]["h"][...] = h
    optimizer.update_hessian(estimate)
    values = {"h": h, "g": estimate, "lr": 0.1, "t": 1.0, "p": np.ones(2)}
    rule = kernels.kind._rule({})
    hypers = {name: float(kernels.values({})[name]) for name in _schuss.rule_tree(rule)["hypers"]}
    found = run(kernels.equations(rule, {})["update_hessian"], values | hypers)
    assert_same(found, {"h": optimizer.state_dict()["state"][0]["h"]})


def test_synchronization():
    p = np.array([1.0, -2.0])
    optimizer = schuss.Lookahead(schuss.SGD(p, lr=0.1), k=1, alpha=0.3)
    slow, g = p.copy(), np.array([0.5, 0.25])
    optimizer.step(g)
    stages = equations(_schuss.rule_tree("lookahead"), "sync", {}, [])
    found = run(stages, {"p": slow - 0.1 * g, "slow": slow, "factor": 0.3})
    assert_same(found, {"p": p, "slow": optimizer.state_dict()["state"][0]["slow"]})


@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_clipping(bound):
    g = np.random.default_rng(0).standard_normal(50)
    stages = equations(_schuss.rule_tree("clip_norm"), "step", {"unit": 1.0}, ["grad_scale"], ["factor"])
    found = run(stages, {"g": g.copy(), "grad_scale": 1.0, "max_norm": bound})
    expected = g * found["factor"]
    schuss.clip_grad_norm_(g, bound)
    assert_same({"g": expected}, {"g": g})


p, g, v, m, s, a = map(symbol, "pgvmsa")
lr, t, beta1, beta2, eps = map(symbol, ["lr", "t", "beta1", "beta2", "eps"])


@pytest.mark.parametrize(
    ("line", "latex"),
    [
        (Line("p", p - lr * g, True), r"p \leftarrow p - \eta g"),
        (Line("m", beta1 * m + (1 - beta1) * g, True), r"m \leftarrow \beta_{1} m + \left(1 - \beta_{1}\right) g"),
        (Line("s", g * g + s, True), r"s \leftarrow s + g^{2}"),
        (Line("x", a / (sp.sqrt(v) + eps)), r"x = \frac{a}{\sqrt{v} + \epsilon}"),
        (Line("x", 1 - beta2**t), r"x = 1 - \beta_{2}^{t}"),
        (
            Line("norm_p", p**2, reduction=("norm", "array")),
            r"\lVert p \rVert = \sqrt{\textstyle \sum_{\text{array}} p^{2}}",
        ),
        (Line("x", g, reduction=("mean", "row")), r"x = \operatorname{mean}_{\text{row}} g"),
    ],
)
def test_latex(line, latex):
    assert rule_latex.latex(line) == latex
