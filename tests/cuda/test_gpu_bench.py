"""The benchmark of `make bench-cuda` runs to its last line, here on few elements."""

import re
import runpy

from helpers import ROOT


def test_bench_cuda(monkeypatch, capsys):
    few = ["--elements", "20_000", "--arrays", "3", "--length", "100", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["cuda.py", *few])
    runpy.run_path(str(ROOT / "benches" / "cuda.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"one array of 20,000 elements: step [\d,]+ us, copy at [\d,]+ GB/s", lines[0])
    assert re.fullmatch(r"  share of the copy's bandwidth  \d+\.\d\d  \(wanted: 0\.90\)", lines[1])
    assert any(re.fullmatch(r"3 arrays of 100: step [\d,]+ us", line) for line in lines)
