"""For the tests of this folder. Examples of hypothesis have no time limit, which a busy machine would exceed."""

import hypothesis
import pytest

hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture
def path(tmp_path):
    """Where a checkpoint is saved."""
    return tmp_path / "opt.safetensors"
