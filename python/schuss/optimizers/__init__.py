"""The optimizer classes, one file a family, and the registry of them all: an import here registers a class."""

# The order of the imports is the order of the registry.
from schuss._optimizer import Optimizer
from schuss.optimizers.sgd import SGD as SGD
from schuss.optimizers.adagrad import Adagrad as Adagrad
from schuss.optimizers.rmsprop import RMSprop as RMSprop
from schuss.optimizers.adam import Adam as Adam, AdamW as AdamW

#: Every optimizer class of the package, by name.
OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
}
