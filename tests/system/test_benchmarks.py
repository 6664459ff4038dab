"""What the benchmarks read from the rules: passes and their memory traffic; the dashboard's pages. Measures nothing."""

import hashlib
import importlib
import inspect
import itertools
import json
import pkgutil
import re
from pathlib import Path

import numpy as np
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


def suite():
    """The suite's modules."""
    package = importlib.import_module("benchmarks")
    return [importlib.import_module(f"benchmarks.{module.name}") for module in pkgutil.iter_modules(package.__path__)]


def kinds():
    return {kind for module in suite() for kind in vars(module).values() if isinstance(kind, type)}


def test_every_module_of_the_suite_can_be_imported(jobs):
    assert {"step", "many", "ratios"} <= {module.__name__.partition(".")[2] for module in suite()}


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
    cases |= {"PAdam": [(1, 2)], "FTRL": [(1, 2)], "AdamAtan2": [(1, 1)]}
    made = {case: jobs.Job(case, [jobs.shape(case, 1024)]) for case in jobs.CASES}
    assert {case: made[case].divider() for case in cases} == cases
    for case, job in made.items():
        if not case.startswith(("NAG", "Lookahead", "Ranger")):  # they do more than one rule's step
            assert len(job.divider()) == len(job.passes()), case


def test_a_timed_call_makes_nothing(jobs, monkeypatch):
    """What is timed is a step, and not the job's construction."""
    timing = importlib.import_module("benchmarks.timing")
    assert inspect.isabstract(timing.Timed)  # or asv would run it
    timed = {kind for kind in kinds() if issubclass(kind, timing.Timed) and hasattr(kind, "params")}
    assert {kind.__name__ for kind in timed} >= {"Step", "StepOptions", "Many", "Call", "FloorTimes"}
    for kind in timed - {importlib.import_module("benchmarks.ratios").FloorTimes}:  # its loop is compiled first
        step = kind().prepared(*[values[0] for values in kind.params])
        with monkeypatch.context() as patch:
            patch.setattr(jobs.Job, "__init__", None)
            step()


def test_asv_times_no_single_short_calls(jobs):
    """It does so, in some versions, where a benchmark has a setup: short calls are then those of the clock, too."""
    for kind in kinds():
        if hasattr(kind, "setup") and any(name.startswith("time_") for name in dir(kind)):
            assert kind.number == 1, f"{kind} should be Timed"


def test_the_suite_has_a_version(jobs):
    """asv's own version of a benchmark is of its code alone: it does not see that a helper measures something else."""
    named, version = re.compile("(time|timeraw|track|mem|peakmem)_"), importlib.import_module("benchmarks.timing").SUITE
    for module in suite():
        own = [one for one in vars(module).values() if isinstance(one, type) and not inspect.isabstract(one)]
        if any(named.match(name) for one in [module, *own] for name in dir(one)):
            assert module.version == version, module
    files = sorted((BENCHES / "benchmarks").glob("*.py"))
    files += [BENCHES / "sections" / f"{name}.py" for name in ("products", "systems", "tail")]
    files += [BENCHES / "sharded.py", BENCHES / "floor/src/lib.rs"]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert (version, hashlib.sha256(text.encode()).hexdigest()[:16]) == ("2", "19a61dc43a2d1e73"), (
        "the suite has changed: if what is measured has, raise SUITE in timing.py; then put version and hash here"
    )


def test_jobs_can_be_stepped_for_long(jobs):
    """Parameters stay moderate: a measurement takes ten times as many steps, and float16 ends at 65,504."""
    for dtype, case in itertools.product(jobs.DTYPES, jobs.CASES):
        job = jobs.Job(case, [jobs.shape(case, 64)], dtype)
        for _ in range(5_000):
            job.step()
        assert np.abs(job.params.astype(np.float64)).max() < 2_000, (case, dtype)


def test_each_timed_clipping_clips(jobs):
    job = jobs.Job("AdamW", [16] * 100)
    step = importlib.import_module("benchmarks.many").clipping(job)
    for _ in range(100):
        before = job.grads[0].copy()
        step()
        assert (job.grads[0] != before).all()


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


def test_an_older_record_of_this_machine_is_known(monkeypatch):
    """It lacks what was added later; a new machine or version is another one."""
    if not BENCHES.exists():
        pytest.skip("an installed package has no benchmarks")
    monkeypatch.syspath_prepend(BENCHES)
    speed = importlib.import_module("speed")
    now = {"cpu": "one", "model": "6-207-2", "versions": {"numpy": "2", "rustc": "1.89.0"}}
    assert speed.same(now, now) and speed.same({"cpu": "one", "versions": {"numpy": "2"}}, now)
    for other in [{}, {**now, "cpu": "two"}, {**now, "model": "6-207-3"}, {"cpu": "one", "versions": {"numpy": "1"}}]:
        assert not speed.same(other, now)


def test_the_page_lists_the_cases_of_all_tables_in_which_another_library_is_faster(monkeypatch):
    if not BENCHES.exists():
        pytest.skip("an installed package has no benchmarks")
    monkeypatch.syspath_prepend(BENCHES)
    page = importlib.import_module("page")
    own = {"schuss": 1e-6, "library": 1e-6, "ratio": 0.9}
    figures = {"others": {"numba": {"hot": {"1024": own}}}, "systems": {"Newton": {"seconds": 1.0, "ratio": 1.25}}}
    found = page.losses({"figures": figures})
    assert found == {
        ("numba", "back to back"): ["0.90 at 1,024 elements"],
        ("SciPy", "Systems"): ["0.80 at Newton, 2,000 unknowns"],
    }


def test_a_comparison_says_what_it_leaves_out(monkeypatch, capsys):
    if not BENCHES.exists():
        pytest.skip("an installed package has no benchmarks")
    monkeypatch.syspath_prepend(BENCHES)
    compare = importlib.import_module("compare")

    class Side:
        def __init__(self, names):
            self.names = names

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, question):
            if question == "fails":
                raise compare.Failed("ValueError: no")
            return 1.0

    monkeypatch.setattr(compare, "Side", Side)
    assert compare.compare([["both", "fails", "old"], ["both", "fails", "new"]], ".", 1.05, 1) == []
    printed = capsys.readouterr().out
    assert "only in base: old" in printed and "only in head: new" in printed
    assert "not compared: fails: ValueError: no" in printed
    assert compare.compare([["old"], ["new"]], ".", 1.05, 1) is None


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
    (tmp_path / "graphs/summary/step.Step.track_step.json").write_text("[]")
    index = {"project": "schuss", "benchmarks": {"step.Step.track_step": {"unit": "s"}, "many.Call.track_step": {}}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    dashboard.leave_out_unmeasured(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text()) == {
        "project": "schuss",
        "benchmarks": {"step.Step.track_step": {"unit": "s"}},
    }
