"""The README's Python code blocks run in order, and its speed table shows the recorded figures."""

import re
import sys

from helpers import ROOT

README = ROOT / "README.md"


def test_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["opt"].step_count == 1
    assert (tmp_path / "opt.safetensors").exists()


def test_the_speed_table_shows_the_recorded_figures():
    """The speed page can be generated from the record too, even if a new section has not been measured yet."""
    sys.path.insert(0, str(ROOT / "benches"))
    import page

    results = page.load()
    assert page.readme_block() == page.readme(results)
    assert set(results["figures"]) == set(page.SECTIONS)
    assert page.rst(results).count(".. list-table::") >= len(results["figures"])
