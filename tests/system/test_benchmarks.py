"""What the benchmarks read from the rules: passes and their memory traffic; the dashboard's pages. Measures nothing."""

import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[2] / "benches"
# Bytes per float32 element, counted by hand: 4 for an array that a pass reads, 8 for one that it writes.
BYTES = {
    "SGD": 12,
    "AdamW": 4 + 24,
    "NAG": (16 + 4) + (8 + 16),
    "LARS": 8 + (4 + 16),
    "LAMB": 4 + (8 + 16) + (8 + 8),
    "LAMB, no clipping": (8 + 16) + (8 + 8),
    "Lion": 4 + 16,
    "NovoGrad": 4 + (4 + 16),
    "Adafactor": 8 + 4 + (4 + 8),
    "Adafactor, flat": (8 + 8) + (4 + 8 + 4),
    "CAME": 4 + 4 + (4 + 8) + (8 + 4),
    "SM3": 4 + 8,
    "Prodigy": (12 + 8) + (4 + 24),
    "DAdaptAdam": (12 + 8) + (4 + 24),
    "DAdaptSGD": 4 + (4 + 16 + 4),
    "DoG": 12 + (4 + 8),
    "Lookahead(AdamW)": 28 + 16 / 5,
    "Ranger": 4 + 28 + 16 / 6,
}


@pytest.fixture
def jobs(monkeypatch):
    if not BENCHES.exists():
        pytest.skip("an installed package has no benchmarks")
    monkeypatch.syspath_prepend(BENCHES)
    return importlib.import_module("benchmarks.jobs")


def test_every_module_of_the_suite_can_be_imported(jobs):
    package = importlib.import_module("benchmarks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"benchmarks.{module.name}")


def test_the_traffic_of_a_step_is_that_of_its_passes(jobs):
    for case, expected in BYTES.items():
        assert jobs.Job(case, [jobs.shape(case, 1024)]).bytes() == pytest.approx(expected), case


def test_the_floor_has_a_loop_for_every_pass(jobs):
    source = (BENCHES / "floor" / "src" / "lib.rs").read_text()
    known = {tuple(map(int, found)) for found in re.findall(r"\b(\d) (\d) (\d) (\d);", source)}
    for case in jobs.CASES:
        for one in jobs.Job(case, [jobs.shape(case, 1024)]).passes():
            assert tuple(map(len, one)) in known, case


def test_divisions_and_square_roots_are_counted(jobs):
    # LAMB's first pass measures the gradient, and its third reuses the second's direction.
    cases = {"SGD": [(0, 0)], "AdamW": [(1, 1)], "LAMB": [(0, 0), (1, 1), (0, 0)]}
    cases["LAMB, no clipping"] = [(1, 1), (0, 0)]
    # Powers that are roots or none by default, and the quotients inside of an angle.
    cases |= {"PAdam": [(1, 2)], "FTRL": [(1, 2)], "AdamAtan2": [(2, 1)]}
    made = {case: jobs.Job(case, [jobs.shape(case, 1024)]) for case in jobs.CASES}
    assert {case: made[case].divider() for case in cases} == cases
    for case, job in made.items():
        if not case.startswith(("NAG", "Lookahead", "Ranger")):  # they do more than one rule's step
            assert len(job.divider()) == len(job.passes()), case


def test_a_timed_call_makes_nothing(jobs, monkeypatch):
    """`asv run --quick` times one call, which must be a step and not the job's construction."""
    package, timing = importlib.import_module("benchmarks"), importlib.import_module("benchmarks.timing")
    modules = [importlib.import_module(f"benchmarks.{each.name}") for each in pkgutil.iter_modules(package.__path__)]
    timed = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    timed = {kind for kind in timed if issubclass(kind, timing.Timed) and hasattr(kind, "params")}
    assert {kind.__name__ for kind in timed} >= {"Step", "StepOptions", "Many", "Call", "FloorTimes"}
    for kind in timed - {importlib.import_module("benchmarks.ratios").FloorTimes}:  # its loop is compiled first
        benchmark, choice = kind(), [values[0] for values in kind.params]
        benchmark.setup(*choice)
        with monkeypatch.context() as patch:
            patch.setattr(jobs.Job, "__init__", None)
            before = benchmark.step
            benchmark.time_step(*choice)
        assert benchmark.step is before


DASHBOARD = """<head>
<script src="https://one.example/jquery-3.3.1.min.js" integrity="sha256-a=" onerror="fail()"></script>
<script language="javascript" type="text/javascript" src="asv.js"></script>
<script src="//two.example/flot@1.0.0/js/jquery.flot.orderBars.js"></script>
<link rel="stylesheet" href="https://two.example/css/bootstrap.min.css" integrity="sha256-b=">
</head><a href="https://three.example/">asv</a>"""


def test_parts_are_not_recorded_in_the_place_of_another_machines_figures(tmp_path, monkeypatch):
    if not BENCHES.exists():
        pytest.skip("an installed package has no benchmarks")
    monkeypatch.syspath_prepend(BENCHES)
    page, speed = importlib.import_module("page"), importlib.import_module("speed")
    path = tmp_path / "results.json"
    path.write_text('{"machine": {}, "figures": {"floors": {}}, "measured": {}}')
    monkeypatch.setattr(page, "RESULTS", path)
    monkeypatch.setattr(speed, "commit", lambda: "none")
    monkeypatch.setattr(speed, "measured", lambda *_: ({}, {}))
    monkeypatch.setattr("sys.argv", ["speed.py", "--only", "small_state"])
    with pytest.raises(SystemExit, match=r"^results.json is of another machine or other versions"):
        speed.main()
    assert "floors" in json.loads(path.read_text())["figures"]


@pytest.fixture
def dashboard(monkeypatch):
    if not BENCHES.exists():
        pytest.skip("an installed package has no benchmarks")
    monkeypatch.syspath_prepend(BENCHES)
    return importlib.import_module("dashboard")


def test_the_dashboard_loads_nothing_from_elsewhere(dashboard, tmp_path):
    """A page loads copies, which lie beside it; its own scripts and links stay."""
    names = ["jquery.min.js", "bootstrap.min.css", "glyphicons.woff"]
    pages, packages = tmp_path / "html", tmp_path / "packages"
    for folder in [pages, packages]:
        folder.mkdir()
    for name in names:
        (packages / name).write_text(name)
    (pages / "index.html").write_text(DASHBOARD)
    dashboard.localize(pages, {**dashboard.available([]), **{name: packages / name for name in names}})
    page = (pages / "index.html").read_text()
    loaded = re.findall(r'(?:src|rel="stylesheet" href)="([^"]*)"', page)
    assert loaded == [
        "local/js/jquery.min.js",
        "asv.js",
        "local/js/jquery.flot.orderBars.js",
        "local/css/bootstrap.min.css",
    ]
    assert all((pages / place).is_file() for place in loaded if place.startswith("local/"))
    assert (pages / "local/js/jquery.min.js").read_text() == "jquery.min.js"
    assert (pages / "local/fonts/glyphicons.woff").is_file()
    assert "integrity" not in page and 'onerror="fail()"' in page and 'href="https://three.example/"' in page


def test_the_dashboard_names_a_script_that_it_has_no_copy_of(dashboard, tmp_path):
    (tmp_path / "index.html").write_text('<script src="https://one.example/new.min.js"></script>')
    with pytest.raises(SystemExit, match=r"loads https://one.example/new.min.js"):
        dashboard.localize(tmp_path, dashboard.available([]))


def test_the_dashboard_leaves_out_what_was_not_run(dashboard, tmp_path):
    (tmp_path / "graphs/summary").mkdir(parents=True)
    (tmp_path / "graphs/summary/step.Step.time_step.json").write_text("[]")
    index = {"project": "schuss", "benchmarks": {"step.Step.time_step": {"unit": "s"}, "many.Call.time_step": {}}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    dashboard.leave_out_unmeasured(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text()) == {
        "project": "schuss",
        "benchmarks": {"step.Step.time_step": {"unit": "s"}},
    }
