"""The README's Python code runs, block after block, as a reader would type it."""

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


def test_the_speed_table_is_what_was_recorded():
    """The speed page can also be generated from the record, which may lack a new section."""
    sys.path.insert(0, str(ROOT / "benches"))
    import page

    results = page.load()
    assert page.readme_block() == page.readme(results)
    assert set(results["figures"]) == set(page.SECTIONS)
    assert page.rst(results).count(".. list-table::") >= len(results["figures"])
