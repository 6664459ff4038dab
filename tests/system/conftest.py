"""For several files here: an allocator that counts, and that fails when asked to; a number of threads."""

import platform
import shutil
import subprocess

import pytest
from helpers import ROOT

import schuss


@pytest.fixture(scope="session")
def counting(tmp_path_factory):
    """The path of the counting allocator."""
    if platform.libc_ver()[0] != "glibc" or not shutil.which("rustc"):
        pytest.skip("needs glibc, and rustc to build the counting allocator")
    library = tmp_path_factory.mktemp("counting") / "libcounting_malloc.so"
    source = ROOT / "tests" / "support" / "counting_malloc.rs"
    command = ["rustc", "--edition=2024", "--crate-type=cdylib", "-O", "-o", library, source]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def two_threads(threads):
    schuss.set_num_threads(2)
