"""The benchmark of `make bench-cuda` runs to its last line, here on few elements, with PyTorch's part and without."""

import re
import runpy
import sys

import gpu
import pytest
from helpers import ROOT


@pytest.mark.parametrize("torch", [None, gpu.torch()], ids=["no torch", "torch"])
def test_bench_cuda(torch, monkeypatch, capsys):
    few = ["--elements", "20_000", "--arrays", "3", "--length", "100", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["cuda.py", *few])
    monkeypatch.setitem(sys.modules, "torch", torch)  # None: it cannot be imported
    runpy.run_path(str(ROOT / "benches" / "cuda.py"), run_name="__main__")
    wanted = [
        r"one array of 20,000 elements: step [\d,]+ us, copy at [\d,]+ GB/s",
        r"  share of the copy's bandwidth  \d+\.\d\d  \(wanted: 0\.90\)",
        r"  torch fused over ours          \d+\.\d\d  \(wanted: 1\.0\)",
        r"3 arrays of 100: step [\d,]+ us",
        r"  torch fused over ours          \d+\.\d\d  \(wanted: 2\.0\)",
    ]
    wanted = [line for line in wanted if torch or "torch" not in line]
    assert re.fullmatch("\n".join([*wanted, ""]), capsys.readouterr().out)
