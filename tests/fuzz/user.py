"""A program that holds some optimizers, makes random calls, and checks after each that it did all or nothing.

It knows no particular call: those are in calls.py.
"""

import gc
import random
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hostile
import numpy as np

# What a user may get: anything else is a fault of the package.
ALLOWED = (TypeError, ValueError, RuntimeError, KeyError, AttributeError, OSError, OverflowError, MemoryError,
           FloatingPointError, hostile.Hostile)  # fmt: skip


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


@dataclass(eq=False)
class Held:
    """An optimizer, or a wrapper around one, with the parameters that it was given."""

    opt: Any
    params: Any
    #: Its gradient buffers, once they were asked for; a wrapper has the list of what it wraps.
    grads: list = field(default_factory=list)

    @property
    def name(self):
        return type(self.opt).__name__

    def image(self):
        """All that a failed call must not change."""
        return image(self.params), image(self.state()), image(self.grads)

    def state(self):
        """Its state; one that cannot be read now counts by the reason."""
        try:
            return self.opt.state_dict()
        except ALLOWED as error:
            return repr(error)

    def own(self):
        """The arrays that a step may change."""
        return hostile.arrays([self.params, self.state(), self.grads])


class User:
    """The program; `makes` and `acts` are its calls with their weights."""

    def __init__(self, seed, makes, acts):
        self.rng = random.Random(seed)
        self.makes, self.acts = makes, acts
        self.held: list[Held] = []
        self.calls = self.refused = 0
        self.folder = Path(tempfile.mkdtemp(prefix="schuss-fuzz-"))
        #: Whether code of the user, called by the package, has changed something itself.
        self.meddled = False
        #: What the present call was given, with its image, and whether the call must keep it even if it succeeds.
        self.given: list[tuple[Any, Any, bool]] = []

    def hold(self, held):
        self.held = [*self.held[-3:], held]

    def drop(self, *params):
        """Forgets the optimizers over these parameters, which are no longer what they were."""
        dropped = {id(array) for one in params for array in hostile.arrays(one)}
        self.held = [one for one in self.held if dropped.isdisjoint(map(id, hostile.arrays(one.params)))]

    def call(self, action, *also_allowed):
        """Makes a call. An error that no user should see is a fault."""
        self.calls += 1
        try:
            return action()
        except (*ALLOWED, *also_allowed) as error:
            self.refused += 1
            if not str(error) and not isinstance(error, hostile.Hostile):
                raise Fault(f"{type(error).__name__} without a message") from error
            raise
        except Fault:
            raise
        except BaseException as error:
            raise Fault(f"{type(error).__name__}: {error}") from error

    def pick(self, table):
        return self.rng.choices(list(table), table.values())[0]

    def give(self, thing, own=(), kept=True):
        """Notes an argument, to be compared after the call, and returns it.

        Left out are those of `own`, and arrays that share memory with them: code of the user may change those.
        """
        arrays = hostile.arrays(thing)
        apart = [array for array in arrays if not any(one is array or np.may_share_memory(one, array) for one in own)]
        noted = thing if len(apart) == len(arrays) else apart
        self.given.append((noted, image(noted), kept))
        return thing

    def act(self, action, *on):
        """One call, on an optimizer or on none, which does all or nothing; returns whether it was not refused."""
        before = {one: one.image() for one in dict.fromkeys([*self.held, *on])}
        self.meddled, self.given = False, []
        what = " of ".join([action.__name__, *(one.name for one in on)])
        try:
            done = action(self, *on)
        except ALLOWED:
            changed = ["an argument" for thing, was, _ in self.given if image(thing) != was]
            if not self.meddled:
                changed += [one.name for one, was in before.items() if one.image() != was]
            if changed:
                raise Fault(f"{what} failed and changed {', '.join(changed)}") from None
            return False
        for thing, was, kept in self.given:
            if kept and image(thing) != was:
                raise Fault(f"{what} changed an argument")
        if done is False and not self.meddled and image(on[0].params) != before[on[0]][0]:
            raise Fault(f"{what} was skipped and changed a parameter")
        return True

    def act_on(self, held=None):
        return self.act(self.pick(self.acts), held or self.rng.choice(self.held))

    def nested(self, held=None):
        """A call from inside another; unless it is refused, what the outer call has changed is not compared."""
        meddled, given = self.meddled, self.given
        done = self.act_on(held)
        self.meddled, self.given = self.meddled or meddled or done, given

    def callback(self, held, result):
        """A function for the package to call, which does something hostile and then returns `result()`."""
        rng = self.rng
        behaviour = rng.choice(
            ["raise", "nothing", "mutate", "resize", "act", "act on it", "thread", "collect"] + ["result"] * 6
        )
        limit = rng.choice([0, 0, 1])  # sometimes only at the second call

        def called(*_):
            nonlocal limit
            limit -= 1
            if limit >= 0:
                return result()
            if behaviour == "raise":
                raise hostile.Hostile
            if behaviour == "nothing":
                return None
            if behaviour in ("mutate", "resize") and held is not None:
                self.meddled = True
                getattr(hostile, behaviour)(rng, held.params)
                if behaviour == "resize":
                    self.drop(held.params)
            if behaviour.startswith("act") and self.held:
                self.nested(held if behaviour == "act on it" else None)
            if behaviour == "thread" and self.held:
                self.in_a_thread(self.nested)
            if behaviour == "collect":
                gc.collect()
            return result()

        return called

    def in_a_thread(self, action):
        errors = []

        def run():
            try:
                action()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    def play(self, calls):
        while self.calls < calls:
            if not self.held or self.rng.random() < 0.15:
                self.act(self.pick(self.makes))
            else:
                self.act_on()
            if self.rng.random() < 0.02:
                gc.collect()
