"""The optimizers that are tested, one module per family: their equations in float64, and rows of the conformance table.

New modules are found automatically. A module has one function per optimizer, named like its class in lower case and
written from the paper's equations, never from the kernels: `rule(s, p, g, t, *, lr, ...)` takes the state `s` (a dict
that it fills and changes, with the names of `state_dict()`), the parameter, the gradient and the step `t`, counted from
1, and returns the new parameter. The keyword defaults are the package's. `initial_lr`, `machine_eps` and `frozen` are
not options of the package; `reference.Reference` passes them. `ROWS` has the rows of each optimizer. A module may also
declare:

- `INT8`: the optimizers whose state can be int8;
- `JOINT`: the optimizers that need all parameters at once, and get them as one vector;
- `REQUIRED`: options without a default, for rows that do not set them;
- `GIVEN`: other options for rows that do not set them;
- `MOVING`: options for the shared rows of an optimizer that hardly moves without them;
- `STATEFUL`: options with which an optimizer has state, if it has none by default;
- `SCOPES`: the scopes of states with other than one value per element, or a function that returns their shape;
- `SIGNS`: the optimizers whose update is a sign, which rounding of the state may flip.
"""

import importlib
import pkgutil

MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def declared(name):
    """The dicts that all modules declare under this name, merged."""
    return {key: value for module in MODULES for key, value in getattr(module, name, {}).items()}


def named(name):
    """The optimizers that all modules list under this name."""
    return {optimizer for module in MODULES for optimizer in getattr(module, name, ())}


#: The equations of each optimizer.
EQUATIONS = {name: getattr(module, name.lower()) for module in MODULES for name in getattr(module, "ROWS", {})}
