"""The README's code blocks run, and its picture and table show the recorded figures."""

import sys

import numpy as np
import readme
from helpers import ROOT


def test_each_block_runs_by_itself_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for block in readme.blocks():
        names.append({})
        exec(compile(block, str(readme.README), "exec"), names[-1])
        assert list(tmp_path.iterdir()) == []
    first, groups, resumed = names
    np.testing.assert_allclose([*first["params"]["w"], *first["params"]["b"]], [1, -2, 0.5, 3], atol=0.01)
    assert groups["opt"].step_count == 1 and not groups["opt"].grads[0][0].any()
    assert resumed["resumed"].step_count == 1 and resumed["params"]["w"].tolist() != [1.0] * 3


def test_the_speed_table_shows_the_recorded_figures():
    """The speed page can be generated from the record too, even if a new section has not been measured yet."""
    sys.path.insert(0, str(ROOT / "benches"))
    import page

    results = page.load()
    assert page.readme_block() == page.readme(results)
    assert page.PICTURE.read_text(encoding="utf-8") == page.charts.libraries(results["figures"]["others"])
    assert set(results["figures"]) <= set(page.SECTIONS)
    assert page.rst(results).count(".. list-table::") >= len(results["figures"])


def test_charts_take_what_is_not_measured_yet_and_what_is():
    sys.path.insert(0, str(ROOT / "benches"))
    import charts
    import page

    results = page.load()
    others = results["figures"]["others"]
    for own in others.values():
        own.pop("matmul", None)
    without = charts.libraries(others)
    assert "after a matrix product" not in without
    others["torch fused"]["matmul"] = {"16384": {"schuss": 1.0, "library": 30.0, "ratio": 30.0}}
    for name in others.keys() - {"torch fused"}:
        others[name]["matmul"] = dict(others[name]["paused"])
    assert "after a matrix product" in charts.libraries(others)
    assert "after a matrix product" in page.readme(results)
    assert ">Adagrad<" in charts.floors(results["figures"]["floors"])
    assert charts.floors({}) == ""
