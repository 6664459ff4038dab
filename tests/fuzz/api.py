"""Calls the package as a hostile user does, at random, and checks that a failed call changes nothing.

As a program: ``python tests/fuzz/api.py --calls 20000 --seed 0``, or ``--seconds 60``. Each seed runs in a process of
its own, so that a crash is found like any other fault; what is printed repeats it. Knows the public interface only.
"""

import argparse
import copy
import inspect
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import hostile
import numpy as np

import schuss

# What a user may get: anything else is a fault of the package.
ALLOWED = (TypeError, ValueError, RuntimeError, KeyError, AttributeError, OSError, OverflowError, MemoryError,
           FloatingPointError, hostile.Hostile)  # fmt: skip
CALLS_OF_A_PROCESS = 2_000


def image(thing):
    """The bytes of every array in a structure, and a text of everything else."""
    if isinstance(thing, np.ndarray):
        held = thing.tolist() if thing.dtype == object else thing.tobytes()
        return (thing.shape, thing.dtype.str, held)
    if isinstance(thing, dict):
        return [(repr(key), image(value)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [image(value) for value in thing]
    return "same" if isinstance(thing, (hostile.Raising, memoryview)) or type(thing) is object else repr(thing)


class Fault(Exception):
    """Something that must not happen; the text says what."""


class User:
    """A program that holds some optimizers, makes random calls, and checks each."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.held = []
        self.calls = self.refused = 0
        self.folder = Path(tempfile.mkdtemp(prefix="schuss-fuzz-"))

    def options(self, kind):
        """Keyword arguments for a constructor: few, so that many are valid."""
        names = [name for name in inspect.signature(kind).parameters if name not in ("params", "args", "kwargs")]
        chosen = self.rng.sample(names, min(len(names), self.rng.choice([0, 0, 1, 2, 4])))
        return {name: self.option(kind, name) for name in chosen}

    def option(self, kind, name):
        default = inspect.signature(kind).parameters[name].default
        if self.rng.random() < 0.7 and default is not inspect.Parameter.empty:
            choices = [default, not default] if isinstance(default, bool) else [default]
            choices += ["bfloat16", "int8", "float32"] if name == "state_dtype" else []
            choices += ["skip", "error", "propagate"] if name == "nonfinite" else []
            choices += [1.0, 0.1] if default is None or isinstance(default, float) else []
            return self.rng.choice(choices)
        return hostile.number(self.rng)

    def make(self):
        kind = schuss.OPTIMIZERS[self.rng.choice(list(schuss.OPTIMIZERS))]
        params = hostile.structure(self.rng)
        if self.rng.random() < 0.2:
            params = [{"params": params, "lr": hostile.number(self.rng)}, {"params": hostile.structure(self.rng)}]
        options = self.options(kind)
        before = image(params)
        try:
            opt = self.call(lambda: kind(params, **options))
        except ALLOWED:
            opt = None
        if image(params) != before:
            raise Fault(f"making {kind.__name__} changed its parameters")
        if opt is not None:
            self.held = [*self.held[-3:], (opt, params)]

    def call(self, action):
        self.calls += 1
        try:
            return action()
        except ALLOWED as error:
            self.refused += 1
            if not str(error) and not isinstance(error, hostile.Hostile):
                raise Fault(f"{type(error).__name__} without a message") from error
            raise
        except BaseException as error:
            raise Fault(f"{type(error).__name__}: {error}") from error

    def act(self):
        """One call on an optimizer that is held, which does all or nothing."""
        opt, params = self.rng.choice(self.held)
        name = self.rng.choice(
            ["step"] * 8
            + ["rows"] * 2
            + ["closure", "no_grads", "set", "add", "load", "file", "copy", "pickle", "tools"]
        )
        state = opt.state_dict()
        before = image(params), image(state)
        try:
            done = getattr(self, name)(opt, params, copy.deepcopy(state) if name == "load" else state)
        except ALLOWED:
            after = image(params), image(opt.state_dict())
            if after != before:
                raise Fault(f"{name} of {type(opt).__name__} failed and changed something") from None
            return
        if done is False and image(params) != before[0]:
            raise Fault(f"{name} of {type(opt).__name__} was skipped and changed a parameter")

    def step(self, opt, params, _state):
        grads = hostile.like(self.rng, params)
        options = {}
        if self.rng.random() < 0.2:
            options["grad_scale"] = hostile.number(self.rng)
        if self.rng.random() < 0.1:
            options["zero_grads"] = self.rng.choice([True, False, 1, None, np.ones(2)])
        before = image(grads)
        own = hostile.arrays(params)
        apart = not any(np.may_share_memory(p, g) for p in own for g in hostile.arrays(grads))
        try:
            return self.call(lambda: opt.step(grads, **options))
        finally:
            if options.get("zero_grads") is not True and apart and image(grads) != before:
                raise Fault(f"step of {type(opt).__name__} changed a gradient")

    def rows(self, opt, params, _state):
        grads = hostile.of_rows(self.rng, hostile.like(self.rng, params))
        return self.call(lambda: opt.step_rows(grads))

    def closure(self, opt, params, _state):
        behaviour = self.rng.choice(["raise", "gradients", "step again", "nothing", "load"])

        def closure():
            if behaviour == "raise":
                raise hostile.Hostile
            if behaviour == "step again":
                opt.step(hostile.like(self.rng, params))
            if behaviour == "load":
                opt.load_state_dict(opt.state_dict())
            return None if behaviour == "nothing" else hostile.like(self.rng, params)

        return self.call(lambda: opt.step(closure))

    def no_grads(self, opt, _params, _state):
        if self.rng.random() < 0.5:
            return self.call(lambda: opt.step())
        self.call(lambda: opt.grads)
        return self.call(opt.zero_grad)

    def set(self, opt, _params, _state):
        group = self.rng.choice(opt.param_groups)
        names = [*group.keys(), "max_grad_norm", "nonfinite", "lrate"]
        name, value = self.rng.choice(names), hostile.number(self.rng)
        if name in ("max_grad_norm", "nonfinite"):
            return self.call(lambda: setattr(opt, name, value))
        return self.call(lambda: group.__setitem__(name, value))

    def add(self, opt, params, _state):
        new = self.rng.choice([hostile.structure(self.rng), params])
        self.call(lambda: opt.add_param_group({"params": new, "lr": hostile.number(self.rng)}))
        self.held = [entry for entry in self.held if entry[0] is not opt]  # its gradients have another structure now

    def load(self, opt, _params, state):
        """Loads its own state with one entry changed, or that of another optimizer."""
        if self.rng.random() < 0.3:
            state = self.rng.choice(self.held)[0].state_dict()
        at = state
        while isinstance(at, (dict, list)) and at:
            key = self.rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], (dict, list)) or self.rng.random() < 0.2:
                kind = self.rng.random()
                if kind < 0.3 and isinstance(at, dict):
                    del at[key]
                else:
                    at[key] = hostile.number(self.rng) if kind < 0.7 else hostile.leaf(self.rng)
                break
            at = at[key]
        return self.call(lambda: opt.load_state_dict(state))

    def file(self, opt, _params, _state):
        path = self.folder / "state.safetensors"
        self.call(lambda: schuss.save(path, opt))
        if self.rng.random() < 0.5:
            raw = bytearray(path.read_bytes())
            for _ in range(self.rng.randrange(1, 4)):
                raw[self.rng.randrange(min(len(raw), 4000))] = self.rng.randrange(256)
            path.write_bytes(raw[: self.rng.choice([len(raw), self.rng.randrange(len(raw))])])
        self.call(lambda: schuss.load(path, opt))

    def copy(self, opt, _params, state):
        before = image(state)
        twin = self.call(lambda: copy.deepcopy(opt))
        if image(twin.state_dict()) != before:
            raise Fault(f"a copy of {type(opt).__name__} has another state")

    def pickle(self, opt, _params, state):
        before = image(state)
        twin = self.call(lambda: pickle.loads(pickle.dumps(opt)))
        if image(twin.state_dict()) != before:
            raise Fault(f"a pickled {type(opt).__name__} has another state")

    def tools(self, _opt, params, _state):
        grads = hostile.like(self.rng, params)
        before = image(grads)
        tool = self.rng.choice(
            [schuss.clip_grad_norm_, schuss.clip_grad_value_, schuss.centralize_, schuss.global_norm]
        )
        arguments = () if tool in (schuss.centralize_, schuss.global_norm) else (hostile.number(self.rng),)
        try:
            self.call(lambda: tool(grads, *arguments))
        except ALLOWED:
            if image(grads) != before:
                raise Fault(f"{tool.__name__} failed and changed a gradient") from None
            raise

    def play(self, calls):
        while self.calls < calls:
            if not self.held or self.rng.random() < 0.15:
                self.make()
            else:
                self.act()


def run(seed, calls):
    """Makes calls in this process."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    user = User(seed)
    try:
        user.play(calls)
    finally:
        for path in user.folder.iterdir():
            path.unlink()
        user.folder.rmdir()
    print(f"seed {seed}: {user.calls} calls, {user.refused} refused")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--calls", type=int, default=20_000, help="calls in all")
    parser.add_argument("--seconds", type=float, help="run this long instead")
    parser.add_argument("--here", action="store_true", help="make the calls in this process, of one seed")
    given = parser.parse_args()
    if given.here:
        run(given.seed, given.calls)
        return
    seed, end = given.seed, None if given.seconds is None else time.monotonic() + given.seconds
    faults = 0
    while time.monotonic() < end if end else (seed - given.seed) * CALLS_OF_A_PROCESS < given.calls:
        calls = (
            CALLS_OF_A_PROCESS
            if end
            else min(CALLS_OF_A_PROCESS, given.calls - (seed - given.seed) * CALLS_OF_A_PROCESS)
        )
        command = [sys.executable, __file__, "--here", "--seed", str(seed), "--calls", str(calls)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            faults += 1
            print(f"FAULT, exit status {done.returncode}: {' '.join(command)}\n{done.stderr}", flush=True)
        seed += 1
    print(f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
