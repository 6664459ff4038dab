"""Checkpoints of earlier versions load, and training continues bit for bit as in those versions."""

import pytest
from old_checkpoints import FOLDER, MAKERS, STEPS, continued, loaded

BITS = {name: bits for bits, name in map(str.split, (FOLDER / "bits.txt").read_text().splitlines())}


def test_every_file_exists():
    assert set(BITS) == set(MAKERS) == {path.stem for path in FOLDER.glob("*.safetensors")}


@pytest.mark.parametrize("name", BITS)
def test_an_old_checkpoint_resumes_bit_for_bit(name):
    opt = loaded(name)
    assert opt.step_count == STEPS
    assert opt.skipped_steps == (name == "adam")
    assert continued(name) == BITS[name]
