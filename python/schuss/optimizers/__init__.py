"""The optimizer classes, one file a family, and the registry of them all."""

from schuss._optimizer import Optimizer
from schuss.optimizers.adagrad import Adagrad
from schuss.optimizers.adam import Adam, AdamW
from schuss.optimizers.rmsprop import RMSprop
from schuss.optimizers.sgd import SGD

#: Every optimizer class of the package, by name.
OPTIMIZERS: dict[str, type[Optimizer]] = {kind.__name__: kind for kind in (SGD, Adagrad, RMSprop, Adam, AdamW)}

__all__ = ["OPTIMIZERS", "SGD", "Adagrad", "Adam", "AdamW", "RMSprop"]
