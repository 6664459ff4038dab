"""Loads damaged checkpoints, chosen by coverage: ``python tests/fuzz/files.py [SECONDS]``. It needs atheris.

A file loads, or is refused with a reason and changes nothing. Arguments after SECONDS go to libFuzzer.
"""

import contextlib
import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings

import atheris
import numpy as np

with atheris.instrument_imports(include=["schuss"]):
    import schuss
    import schuss.checkpoint
    import schuss.schedules

from user import image

REFUSALS = (ValueError, TypeError, OSError)


GRADS = [{"w": np.ones((2, 3), np.float32), 1: [np.ones(2)]}, np.ones(3)]


def made():
    groups = [{"params": {"w": np.ones((2, 3), np.float32), 1: [np.ones(2)]}}, {"params": np.ones(3, np.float16)}]
    opt = schuss.Lookahead(schuss.AdamW(groups, lr=schuss.schedules.reduce_on_plateau(0.1), max_grad_norm=1.0))
    opt.step(GRADS)
    return opt


def parts(raw):
    """A file's header, and the JSON of an optimizer in it."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    return header, header["__metadata__"]["schuss"]


def file_of(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


class Fuzzer:
    """One input is a file, a header, or an optimizer's JSON in an otherwise valid file, as its first byte says."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "state.safetensors")
        self.opt = made()
        schuss.save(self.path, self.opt)
        with open(self.path, "rb") as file:
            self.valid = file.read()
        self.header, self.metadata = parts(self.valid)
        self.body = self.valid[8 + int.from_bytes(self.valid[:8], "little") :]

    def seeds(self):
        return [
            b"\0" + self.valid,
            b"\1" + json.dumps(self.header).encode(),
            b"\2" + self.metadata.encode(),
            b"\2" + self.metadata.replace("0.1", "0.25").encode(),
        ]

    def content(self, data):
        kind = data[0] % 3
        if kind == 0:
            return data[1:]
        if kind == 1:
            return file_of(data[1:], self.body)
        text = data[1:].decode("utf-8", "replace")
        return file_of(self.header | {"__metadata__": {"schuss": text}}, self.body)

    def everything(self):
        params = [group["params"] for group in self.opt.param_groups]
        return image(params), image(self.opt.state_dict()), repr(self.opt)

    def __call__(self, data):
        if not data:
            return
        with open(self.path, "wb") as file:
            file.write(self.content(data))
        before = self.everything()
        try:
            schuss.load(self.path, self.opt)
        except REFUSALS as error:
            assert str(error), "a refusal without a reason"
            assert self.everything() == before, "a refused file changed something"
        else:
            assert self.opt.step(GRADS)
            self.opt = made()


ODD = [None, True, 0, -1, 2**63, 10**400, 1.5, 1e-400, float("nan"), "", "x", [], [0.5, 0.5], {}, {"schedule": {}}]


def changed(value, rng):
    """A JSON value with one change somewhere in it."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        value = copy.copy(value)
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        kind = rng.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.2 and isinstance(value, dict):
            value[rng.choice([*value, "x", ""])] = value[key]
        elif kind < 0.2:
            value.insert(key, value[key])
        else:
            value[key] = changed(value[key], rng)
        return value
    if isinstance(value, (int, float)) and rng.random() < 0.5:
        return rng.choice([value + 1, value - 1, -value, value * 2, value / 2, str(value)])
    return rng.choice(ODD)


def mutated(data, max_size, seed):
    """Changes JSON as JSON where the input is JSON; bytes otherwise."""
    rng = random.Random(seed)
    if data and data[0] % 3 and rng.random() < 0.8:
        with contextlib.suppress(ValueError, RecursionError, OverflowError):
            made = data[:1] + json.dumps(changed(json.loads(data[1:]), rng)).encode()
            if len(made) <= max_size:
                return made
    return atheris.Mutate(data, max_size)


def fuzz(folder, *options):
    fuzzer = Fuzzer(folder)
    corpus = os.path.join(folder, "corpus")
    os.mkdir(corpus)
    for i, seed in enumerate(fuzzer.seeds()):
        with open(os.path.join(corpus, str(i)), "wb") as file:
            file.write(seed)
    atheris.Setup([sys.argv[0], *options, corpus], fuzzer, custom_mutator=mutated)
    atheris.Fuzz()


def main():
    """Fuzzes in a process of its own, since libFuzzer ends it."""
    if sys.argv[1:2] == ["--in"]:
        warnings.simplefilter("ignore")
        np.seterr(all="ignore")
        fuzz(*sys.argv[2:])
        return
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=8192", "-len_control=0"]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        command = [sys.executable, __file__, "--in", folder, *options, *sys.argv[2:]]
        status = subprocess.run(command).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
