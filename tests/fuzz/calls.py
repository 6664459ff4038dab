"""The calls that a hostile user makes. `MAKES` need no optimizer, `ACTS` take one that is held; both have weights."""

import contextlib
import copy
import inspect
import os
import pickle
import traceback

import hostile
import numpy as np
from user import ALLOWED, Fault, Held, image

import schuss

CLASSES = [*schuss.OPTIMIZERS.values(), schuss.LBFGS]
WRAPPERS = [schuss.Lookahead, schuss.EMA, schuss.SWA, schuss.Polyak, schuss.SAM, schuss.Transformed]
FUNCTIONS = {kind: getattr(schuss.functional, f"{kind.__name__.lower()}_", None) for kind in schuss.OPTIMIZERS.values()}
CHOICES = {
    "state_dtype": ["bfloat16", "int8", "float32"],
    "nonfinite": ["skip", "error", "propagate"],
    "layout": ["in_out", "out_in"],
    "pullback": ["none", "reset", "pullback"],
    "mode": ["triangular", "triangular2", "exp_range", "fan_in", "fan_out", "fan_avg"],
    "line_search_fn": ["strong_wolfe", None],
    "decay_form": ["coupled", "decoupled", "independent"],
}


def options(user, function, most=4):
    """Keyword arguments for a function: few, so that many are valid."""
    parameters = inspect.signature(function).parameters
    leave = ("params", "args", "kwargs", "optimizer", "p", "g", "states", "self")
    needed = [n for n, p in parameters.items() if p.default is p.empty and n not in leave]
    others = [n for n in parameters if n not in leave and n not in needed]
    chosen = user.rng.sample(others, min(len(others), user.rng.choice([0, 0, 1, 2, most])))
    return {name: option(user, name, parameters[name].default) for name in needed + chosen}


def option(user, name, default):
    rng = user.rng
    if name == "transforms":
        return [transform(user) for _ in range(rng.randrange(4))] if rng.random() < 0.95 else hostile.number(rng)
    if name == "schedules":
        return [hostile.number(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.08:
        return schedule(user)
    if rng.random() < 0.7:
        choices = [] if default is inspect.Parameter.empty else [default]
        choices += [not default] if isinstance(default, bool) else CHOICES.get(name, [])
        choices += [1.0, 0.1, 2] if default in (None, inspect.Parameter.empty) or type(default) in (int, float) else []
        if choices:
            return rng.choice(choices)
    return hostile.number(rng)


def schedule(user):
    """A function for a hyperparameter: the user's own, which may do anything, or one of the package."""
    rng = user.rng
    if rng.random() < 0.5:
        return hostile.Schedule(user.callback(None, lambda: hostile.number(rng) if rng.random() < 0.2 else 0.1))
    kind = getattr(schuss.schedules, rng.choice([n for n in schuss.schedules.__all__ if n != "Schedule"]))
    return user.call(lambda: kind(**options(user, kind)))


def transform(user):
    kinds = [n for n in schuss.transforms.__all__ if n not in ("Transform", "layer_lrs")]
    kind = getattr(schuss.transforms, user.rng.choice(kinds))
    return user.call(lambda: kind(**options(user, kind)))


# Calls that need no optimizer.


def make(user):
    rng, kind = user.rng, user.rng.choice(CLASSES)
    params = hostile.structure(rng)
    if rng.random() < 0.2:
        params = [{"params": params, "lr": hostile.number(rng)}, {"params": hostile.structure(rng)}]
    given = options(user, kind)
    user.give(params)
    made = Held(user.call(lambda: kind(params, **given)), params)
    if sum(array.nbytes for array in made.own()) < 2**22:  # a larger one, such as of Shampoo, takes seconds for a step
        user.hold(made)


def other(user):
    """Functions that make groups, arrays, schedules."""
    rng = user.rng
    params = user.give(hostile.structure(rng))
    name = rng.choice(["pack", "split_groups", "layer_lrs", "init", "schedule", "threads"])
    if name == "pack":
        user.call(lambda: schuss.pack(params))
    elif name == "split_groups":
        given = {"weight_decay": hostile.number(rng)}
        user.call(lambda: schuss.split_groups(params, **given))
    elif name == "layer_lrs":
        factors = rng.choice([{"w": 0.5}, {"*": 0.1}, {"": 1.0}, {"w": hostile.number(rng)}, hostile.number(rng)])
        lr = schedule(user)
        user.call(lambda: schuss.transforms.layer_lrs(params, factors, lr))
    elif name == "init":
        kind = getattr(schuss.init, rng.choice(schuss.init.__all__))
        given = options(user, kind)
        shape = rng.choice([(3, 4), (5,), (2, 3, 4), (0, 3), 7, hostile.number(rng)])
        user.call(lambda: kind(**given | ({"shape": shape} if "shape" in given else {})))
    elif name == "schedule":
        made = schedule(user)
        user.call(lambda: made(rng.choice([0, 1, 5, 10**9])))
    else:
        user.call(lambda: schuss.set_num_threads(rng.choice([1, 2, 3, 1, 2, 3, hostile.number(rng)])))
        if schuss.get_num_threads() > 3:
            schuss.set_num_threads(2)


def function(user):
    """A rule as a function, over its own arrays."""
    rng = user.rng
    kind = rng.choice([kind for kind, function in FUNCTIONS.items() if function])
    p = hostile.leaf(rng)
    try:
        states = list(kind(p).state_dict()["state"][0].values())
        given = options(user, FUNCTIONS[kind])
    except ALLOWED:
        states, given = [], {"step": 1}
    if rng.random() < 0.1 and states:
        states[rng.randrange(len(states))] = rng.choice([hostile.leaf(rng), p, None])
    arrays = user.give([p, hostile.like(rng, p), *states], kept=False)
    user.call(lambda: FUNCTIONS[kind](*arrays, **{"step": rng.randrange(1, 9)} | given))


def tool(user):
    """The functions over gradients."""
    rng = user.rng
    tool = rng.choice([schuss.clip_grad_norm_, schuss.clip_grad_value_, schuss.centralize_, schuss.global_norm])
    arguments = (hostile.number(rng),) if tool in (schuss.clip_grad_norm_, schuss.clip_grad_value_) else ()
    grads = user.give(hostile.structure(rng), kept=tool is schuss.global_norm)
    user.call(lambda: tool(grads, *arguments))


def fork(user):
    """Goes on in a child for a few calls; a fault there is one here."""
    if not user.held or not hasattr(os, "fork") or user.rng.random() < 0.8:
        return
    child = os.fork()
    if not child:
        try:
            user.play(user.calls + 5)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    user.calls += 1
    if status:
        raise Fault(f"a forked process ended with status {status}")


# Calls of an optimizer.


def stepped(opt):
    """The optimizer in all wrappers."""
    while type(opt) in WRAPPERS:
        opt = opt.optimizer
    return opt


def gradients(user, held, zero_grads=False, **_):
    """Gradients for a step with these options; now and then arrays that are the optimizer's own, or overlap them."""
    rng, own = user.rng, held.own()
    grads = hostile.like(rng, held.params)
    if rng.random() < 0.03:
        grads = held.grads[0] if held.grads and rng.random() < 0.3 else hostile.overlapping(rng, grads, own)
    return user.give(grads, own, kept=zero_grads is not True)


def step_options(user):
    """Options of a step: few, so that many are valid."""
    rng, given = user.rng, {}
    if rng.random() < 0.2:
        given["grad_scale"] = hostile.number(rng)
    if rng.random() < 0.15:
        given["zero_grads"] = rng.choice([True, True, True, False, 1, None, np.ones(2)])
    if rng.random() < 0.1:
        given["partial"] = rng.choice([True, True, False, None])
    return given


def step(user, held):
    rng, opt, inner = user.rng, held.opt, stepped(held.opt)
    takes_closure = isinstance(opt, (schuss.SAM, schuss.LBFGS)) or isinstance(inner, (schuss.NAG, schuss.LBFGS))
    if rng.random() < (0.9 if takes_closure else 0.03):
        return closure(user, held)
    given = step_options(user)
    grads = gradients(user, held, **given)
    more = [user.give(hostile.hessian(rng, held.params))] if isinstance(inner, schuss.Newton) else []
    return user.call(lambda: opt.step(grads, *more, **given))


def closure(user, held):
    rng = user.rng
    with_loss = isinstance(stepped(held.opt), schuss.LBFGS) or rng.random() < 0.03
    given = {} if with_loss else step_options(user)

    def result():
        grads = gradients(user, held, **given)
        return (rng.choice([1.0, 0.5, np.float32(2), hostile.number(rng)]), grads) if with_loss else grads

    function = user.callback(held, result)
    return user.call(lambda: held.opt.step(function, **given))


def rows(user, held):
    grads = user.give(hostile.of_rows(user.rng, hostile.like(user.rng, held.params)), held.own())
    given = {"grad_scale": hostile.number(user.rng)} if user.rng.random() < 0.1 else {}
    return user.call(lambda: held.opt.step_rows(grads, **given))


def by_array(user, held):
    """A block with one update, which is all or nothing like a step."""
    rng = user.rng
    params = [*hostile.arrays(held.params), np.ones(2)]
    grads = [*hostile.arrays(gradients(user, held)), None, 1.0]
    i = rng.randrange(len(params))
    gradient = grads[i] if rng.random() < 0.6 and i < len(grads) else rng.choice(grads)
    given = {"grad_scale": hostile.number(rng)} if rng.random() < 0.1 else {}

    def block():
        with held.opt.stepping() as update:
            update(params[i], gradient, **given)

    return user.call(block)


def own_gradients(user, held):
    """A step with its own gradients; or these are set to zero, or filled."""
    rng, kind, given = user.rng, user.rng.random(), step_options(user)
    if kind < 0.4:
        return user.call(lambda: held.opt.step(**given))
    if kind < 0.5:
        return user.call(held.opt.zero_grad)
    held.grads[:] = [user.call(lambda: held.opt.grads)]
    for array in hostile.arrays(held.grads):
        array[...] = hostile.values(rng, array.shape, array.dtype)


def set(user, held):
    rng, opt = user.rng, held.opt
    group = rng.choice(opt.param_groups)
    properties = [name for name in dir(type(opt)) if isinstance(getattr(type(opt), name), property) and name[0] != "_"]
    names = [*group.keys(), "lrate", *properties]
    name = rng.choice(names)
    value = schedule(user) if rng.random() < 0.1 else option(user, name, inspect.Parameter.empty)
    if name in properties:
        return user.call(lambda: setattr(opt, name, value))
    return user.call(lambda: group.__setitem__(name, value))


def add(user, held):
    new = user.give(user.rng.choice([hostile.structure(user.rng), held.params]), held.own())
    user.call(lambda: held.opt.add_param_group({"params": new, "lr": hostile.number(user.rng)}))
    user.held = [one for one in user.held if one.opt is not held.opt]  # its gradients have another structure now


def load(user, held):
    """Loads its own state with one entry changed, or that of another optimizer."""
    rng = user.rng
    state = copy.deepcopy((rng.choice(user.held) if rng.random() < 0.3 else held).opt.state_dict())
    at = state
    while isinstance(at, (dict, list)) and at:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not isinstance(at[key], (dict, list)) or rng.random() < 0.2:
            kind = rng.random()
            if kind < 0.3 and isinstance(at, dict):
                del at[key]
            else:
                at[key] = hostile.number(rng) if kind < 0.7 else hostile.leaf(rng)
            break
        at = at[key]
    user.give(state)
    given = {"strict": False} if rng.random() < 0.2 else {}
    user.call(lambda: held.opt.load_state_dict(state, **given))


def file(user, held):
    rng, path = user.rng, user.folder / "state.safetensors"
    given = {"include_params": False} if rng.random() < 0.2 else {}
    user.call(lambda: schuss.save(path, held.opt, **given))
    if rng.random() < 0.5:
        raw = bytearray(path.read_bytes())
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(min(len(raw), 4000))] = rng.randrange(256)
        path.write_bytes(raw[: rng.choice([len(raw), rng.randrange(len(raw))])])
    given |= {"strict": False} if rng.random() < 0.2 else {}
    user.call(lambda: schuss.load(path, held.opt, **given))


def twin(user, held):
    """A copy, or one through pickle, has the same state."""
    before = held.image()[1]
    make = user.rng.choice([copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
    try:
        made = user.call(lambda: make(held.opt), pickle.PicklingError)
    except pickle.PicklingError:
        return
    if not user.meddled and Held(made, None).image()[1] != before:
        raise Fault(f"a copy of {held.name} has another state")


def wrap(user, held):
    rng = user.rng
    kind = rng.choice(WRAPPERS)
    given = options(user, kind)
    made = user.call(lambda: kind(held.opt, **given))
    user.hold(Held(made, held.params, held.grads))


def look(user, held):
    """Everything that can be read."""
    before = held.image()
    opt = held.opt
    for name in [n for n in dir(type(opt)) if n[0] != "_" and isinstance(getattr(type(opt), n), property)]:
        if name != "grads":
            with contextlib.suppress(*ALLOWED):
                user.call(lambda name=name: getattr(opt, name))
    user.call(lambda: (repr(opt), opt.metrics(), repr(opt.param_groups)))
    if not user.meddled and held.image() != before:
        raise Fault(f"reading {held.name} changed it")


def other_values(user, held):
    """Inside `swap` and `evaluate` the parameters are others; afterwards they are what they were."""
    names = [name for name in ("swap", "evaluate") if hasattr(held.opt, name)]
    if not names:
        return
    name = user.rng.choice(names)
    before = image(held.params)
    with user.call(getattr(held.opt, name)):
        with contextlib.suppress(*ALLOWED):
            user.nested(user.rng.choice([held, None]))
        meddled = user.meddled
        if user.rng.random() < 0.3:
            raise hostile.Hostile
    if not meddled and image(held.params) != before:
        raise Fault(f"{name} of {held.name} changed the parameters")


def method(user, held):
    """The methods that only some classes have."""
    opt = held.opt
    names = ("sync", "update", "eval", "train", "update_hessian", "first_step")
    names = [name for name in names if hasattr(opt, name)]
    if not names:
        return
    name = user.rng.choice(names)
    if name == "update_hessian":
        estimate = gradients(user, held)
        user.call(lambda: opt.update_hessian(estimate))
    elif name == "first_step":
        given = step_options(user)
        first, second = gradients(user, held), gradients(user, held, **given)
        user.call(lambda: opt.first_step(first))
        with contextlib.suppress(*ALLOWED):
            user.nested(user.rng.choice([held, None]))
        user.call(lambda: opt.second_step(second, **given))
    else:
        user.call(getattr(opt, name))


MAKES = {make: 10, function: 3, other: 1, tool: 2, fork: 1}
ACTS = {
    step: 16,
    rows: 4,
    by_array: 4,
    own_gradients: 2,
    set: 2,
    add: 1,
    load: 2,
    file: 2,
    twin: 2,
    wrap: 3,
    look: 1,
    other_values: 2,
    method: 3,
}
