"""The optimizers that are tested, one module per family: their equations in float64, and rows of the conformance table.

A new module is found by itself. It has one function per optimizer, named like its class in lower case, written from the
paper's equations and never from the kernels: `rule(s, p, g, t, *, lr, ...)` takes the state `s` (a dict, filled and
changed in place, names as in `state_dict()`), the parameter, the gradient and the step `t` counted from 1, and returns
the new parameter. The keyword defaults are the package's; `initial_lr`, `machine_eps` and `frozen` are no
options of the package, `reference.Reference` passes them. `ROWS` has the rows of each optimizer. A module may also
declare:

- `INT8`: the optimizers whose state can be int8;
- `JOINT`: those that look at all parameters at once, and get them as one vector;
- `REQUIRED`: options without a default, for rows that do not say them;
- `MOVING`: options for the rows that all optimizers share, if it hardly moves without;
- `STATEFUL`: options with which it keeps state, if its defaults do not;
- `SCOPES`: of states that are not one number an element;
- `SIGNS`: those that move by a sign, which rounded state may turn around.
"""

import importlib
import pkgutil

MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def declared(name):
    """What all modules declare under this name, as one dict."""
    return {key: value for module in MODULES for key, value in getattr(module, name, {}).items()}


def named(name):
    """The optimizers that a module names under this name."""
    return {optimizer for module in MODULES for optimizer in getattr(module, name, ())}


#: The equations of each optimizer.
EQUATIONS = {name: getattr(module, name.lower()) for module in MODULES for name in getattr(module, "ROWS", {})}
