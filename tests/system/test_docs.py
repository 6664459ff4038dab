"""The documentation's samples run, and its equations are those of the kernels.

Equations are made from the rules' texts by ``docs/_ext``. Here the same parsed texts are evaluated in float64 NumPy and
compared with what the kernels return, for every setting that a page shows. Sphinx is not needed.
"""

import doctest
import re
import sys
import textwrap
import warnings

import numpy as np
import pytest
from helpers import ROOT

import schuss
from schuss import functional

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import equations  # noqa: E402 - the path comes first
import rule_latex  # noqa: E402 - the path comes first
import rule_math  # noqa: E402
import rule_source  # noqa: E402
import rule_text  # noqa: E402
from rule_text import evaluate, parse, run  # noqa: E402
from variants import RULES, Kernels, has_rules, optimizers, variants  # noqa: E402

WRITTEN = "generated", "lists", "gallery"  # folders that the build writes
PAGES = [page for page in sorted(DOCS.rglob("*.rst")) if not set(WRITTEN) & set(page.relative_to(DOCS).parts)]
KINDS = [kind for kind in optimizers().values() if has_rules(kind)]
VARIANTS = [(kind, variant) for kind in KINDS for variant in variants(kind)]

# Values that make every term count.
NUMBERS = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-2, "dampening": 0.25, "lr_decay": 0.1}

# What `step` takes so that the kernel's gradient is g, where that is not g alone.
ARGUMENTS = {"NAG": lambda g: (lambda: g,), "Newton": lambda g: (g, np.eye(g.size))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_samples(page):
    failed, _ = doctest.testfile(str(page), module_relative=False)
    assert failed == 0


@pytest.mark.parametrize("module", [rule_text, rule_latex, equations], ids=lambda module: module.__name__)
def test_extension_samples(module):
    assert doctest.testmod(module).failed == 0


def test_torch_samples():
    """The blocks that need PyTorch, where it is installed; in the package's tests it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch")
        text = (DOCS / "guide" / "porting_pytorch.rst").read_text(encoding="utf-8")
        blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
        assert blocks
        for block in blocks:
            exec(textwrap.dedent(block), {})


@pytest.mark.parametrize("name", RULES)
def test_every_rule_translates(name):
    rule = RULES[name]
    host, direction, update = rule_math.texts(rule, name)
    known = {"lr", "t", "norm_p", "norm_g", "norm_d", *rule["hypers"]}
    for part in (host, {"p", "g", *rule["states"]}, direction, update):
        for statement in part:
            if isinstance(statement, str):
                known.add(statement)
                continue
            assert rule_text.names(statement.value) <= known
            known.add(statement.target)
            printed = rule_latex.latex(statement)
            assert printed.count("{") == printed.count("}")
            assert len(re.findall(r"\\left\W", printed)) == len(re.findall(r"\\right\W", printed))
    assert set(rule["scalars"]) <= known


def options_of(kernels, variant, **more):
    """The variant's options, with numbers that make every term count where the class takes them."""
    free = {name: NUMBERS[name] for name in kernels.defaults if name in NUMBERS and name not in variant.constants}
    return {name: value for name, value in (free | variant.options | more).items() if name in kernels.defaults}


def stepped(kind, kernels, variant, step, options):
    """What a step number `step` makes of random arrays, and the values that the rule starts from."""
    rng = np.random.default_rng([step, len(options)])
    p, g = rng.standard_normal((2, 50))
    states = {name: np.abs(rng.standard_normal(50)) for name in RULES[variant.rule]["states"]}
    hypers = {**kernels.defaults, **options}
    own = kernels.kind._rule_values(hypers)
    values = {name: float(own[name]) for name in RULES[variant.rule]["hypers"]}
    values |= {"lr": hypers["lr"], "t": float(step), "p": p.copy(), "g": g.copy()}
    values |= {name: state.copy() for name, state in states.items()}
    function = getattr(functional, f"{kind.__name__.lower()}_", None)
    if function is not None:
        function(p, g, *states.values(), step=step, **options)
        return {"p": p, **states}, values, hypers
    optimizer = kind(p, **options)
    state = optimizer.state_dict()
    state["step"] = state["param_groups"][0]["step"] = step - 1
    state["state"][0] |= states
    optimizer.load_state_dict(state)
    optimizer.step(*ARGUMENTS.get(kind.__name__, lambda g: (g,))(g))
    return {"p": p, **{name: optimizer.state_dict()["state"][0][name] for name in states}}, values, hypers


def by_text(name, values):
    """The parsed text of a rule carried out, a layerwise one in its two phases."""
    host, direction, update = rule_math.texts(RULES[name], name)
    before = [s for s in host if s.target != "ratio"]
    known = run(before + direction, values)
    if len(before) < len(host):
        known |= {f"norm_{array}": np.linalg.norm(known[array]) for array in "pgd" if array in known}
        known = run(host[-1:], known)
    return run(update, known)


def assert_same(found, expected):
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("kind", "variant"), VARIANTS, ids=lambda x: getattr(x, "__name__", None) or str(x.options))
@pytest.mark.parametrize("step", [1, 2, 7, 40])
def test_equations(kind, variant, step):
    """Both the rule's text and the equations that are shown give what the kernel gives."""
    kernels = Kernels(kind)
    layerwise = rule_source.layer_of(variant.rule) is not None
    options = options_of(kernels, variant, weight_decay=0.1 if layerwise else 0.0)
    expected, values, _ = stepped(kind, kernels, variant, step, options)
    assert_same(by_text(variant.rule, values), expected)
    case = [case for case in variant.cases if case.holds(values)]
    assert len(case) == 1
    assert_same(case[0].run(values), expected)


@pytest.mark.parametrize("kind", [k for k in KINDS if "weight_decay" in Kernels(k).defaults], ids=lambda k: k.__name__)
def test_prologue(kind):
    """Weight decay and `maximize` come in front of every rule, as the page of all optimizers says."""
    kernels, variant = Kernels(kind), variants(kind)[0]
    options = options_of(kernels, variant, weight_decay=0.3, maximize=True)
    expected, values, hypers = stepped(kind, kernels, variant, 2, options)
    decay = kernels.kind._decay(hypers)
    scalars = {"gradient_factor": -1.0, "l2": 0.3 if decay == "l2" else 0.0, "decay": 1.0}
    if decay == "decoupled":
        scalars["decay"] = 1.0 - hypers["lr"] * 0.3
    assert_same(by_text(variant.rule, run(parse(rule_math.PROLOGUE), {**scalars, **values})), expected)


def test_synchronization():
    p = np.array([1.0, -2.0])
    optimizer = schuss.Lookahead(schuss.SGD(p, lr=0.1), k=1, alpha=0.3)
    slow, g = p.copy(), np.array([0.5, 0.25])
    optimizer.step(g)
    found = run(list(rule_source.synchronization()), {"p": slow - 0.1 * g, "slow": slow, "alpha": 0.3})
    assert_same(found, {"p": p, "slow": optimizer.state_dict()["state"][0]["slow"]})


def test_prologue_is_the_source():
    source = (DOCS.parent / "rust" / "kernels" / "src" / "rule.rs").read_text(encoding="utf-8")
    text = re.search(r"^prologue! \{\n.*?\{(.*?)\}", source, re.MULTILINE | re.DOTALL)[1]
    assert parse(text) == parse(rule_math.PROLOGUE)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("p -= lr * g;", r"p \leftarrow p - \eta g"),
        ("m = fma(beta1, m, (1.0 - beta1) * g);", r"m \leftarrow \beta_1 m + \left(1 - \beta_1\right) g"),
        ("s = fma(g, g, s);", r"s \leftarrow s + g^2"),
        ("let d = max(fma(-a, a, v), 0.0);", r"d = \max\left(v - a^2, 0\right)"),
        ("x = a / (sqrt(v) / b + eps);", r"x \leftarrow \frac{a}{\sqrt{v} / b + \epsilon}"),
        ("x = abs(g) * sign(m);", r"x \leftarrow \left|g\right| \operatorname{sign}\left(m\right)"),
        (
            "x = select(a > 0.0 && b != 1.0, min(a, b), -c);",
            r"x \leftarrow \begin{cases} \min\left(a, b\right) & \text{if } a > 0 \text{ and } b \neq 1 \\ "
            r"-c & \text{otherwise} \end{cases}",
        ),
        ("x = 1.0 - pow(beta2, t);", r"x \leftarrow 1 - \beta_2^{t}"),
    ],
)
def test_latex(text, latex):
    assert rule_latex.latex(parse(text)[0]) == latex


@pytest.mark.parametrize("text", ["p = g", "p = ;", "let p += g;", "p = g ? m : v;", "p = fma(g, m;", "for i in p {}"])
def test_other_languages_are_refused(text):
    with pytest.raises(rule_text.RuleSyntaxError):
        parse(text)


def test_evaluation():
    host = parse("x = { let y = a + 1.0; if y > 2.0 && !(b == 0.0) { y.sqrt() } else if a < 0.0 { -y } else { 0.5 } };")
    assert run(host, {"a": 3.0, "b": 1.0})["x"] == 2.0
    assert run(host, {"a": -3.0, "b": 1.0})["x"] == 2.0
    assert run(host, {"a": 3.0, "b": 0.0})["x"] == 0.5
    clipped = parse("x = match c != 0.0 { true if a > 1.0 => 1.0, true => a, false => -a };")
    assert [run(clipped, {"a": a, "c": c})["x"] for a, c in ((3.0, 1.0), (0.5, 1.0), (3.0, 0.0))] == [1.0, 0.5, -3.0]
    array = evaluate(parse("x = select(g > 0.0, fma(g, g, 1.0), max(g, -1.0));")[0].value, {"g": np.array([2.0, -3.0])})
    assert array.tolist() == [5.0, -1.0]
