"""The README's Python blocks; as a program, runs them with the installed package in an empty folder."""

import os
import re
import tempfile
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def blocks():
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for block in blocks():
            exec(compile(block, str(README), "exec"), {})
        os.chdir(README.parent)
