"""Training in two processes: DDP, ZeroRedundancyOptimizer and FSDP, with torch's AdamW and with ours."""

import subprocess
import sys

import pytest
import torch
from helpers import ROOT


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(ROOT / "tests" / "support" / "torch_ranks.py")]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    return torch.load(folder / "results.pt")


@pytest.mark.parametrize("way", ["ddp", "zero", "fsdp", "fsdp2", "stepping"])
def test_like_torch(results, way):
    own, theirs = results[way]["schuss"], results[way]["torch"]
    assert len(own) == len(theirs) >= 4
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_sharding_the_states_changes_no_bit(results):
    for one, other in zip(results["ddp"]["schuss"], results["zero"]["schuss"], strict=True):
        assert torch.equal(one, other)


def test_what_needs_all_gradients_is_refused(results):
    found = results["refused"]
    assert found["ddp"] == (
        "stepping() would update parameter 'module.0.weight' before its gradient is averaged over the 2 processes of "
        "torch.distributed; use step(), or shard the model with fully_shard"
    )
    assert found["fsdp"].startswith("stepping() would update param_groups[0]['params'][0] before its gradient is")
    clipped = (
        "max_grad_norm is about the gradients of all parameters, but param_groups[0]['params'][0] is sharded, and "
        "each process sees only its part; leave it out, and clip with torch.nn.utils.clip_grad_norm_"
    )
    assert found["clipped"] == found["later"] == clipped
    assert found["measured"].startswith("track_grad_norm is about the gradients of all parameters, but parameter '0.")
    assert found["skipped"].startswith("nonfinite is about") and found["skipped"].endswith("its part; leave it out")
    assert found["none"] is None
