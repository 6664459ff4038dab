"""The optimizer classes, one file per family, and their registry: an import here registers a class."""

from typing import TYPE_CHECKING

# The order of the imports is the order of the registry.
from schuss._core.optimizer import Optimizer
from schuss.wrappers import Lookahead as Lookahead
from schuss.optimizers.sgd import SGD as SGD
from schuss.optimizers.quasi_hyperbolic import QHM as QHM, QHAdam as QHAdam
from schuss.optimizers.adagrad import Adagrad as Adagrad
from schuss.optimizers.adadelta import Adadelta as Adadelta
from schuss.optimizers.rmsprop import RMSprop as RMSprop
from schuss.optimizers.nag import NAG as NAG
from schuss.optimizers.aggmo import AggMo as AggMo
from schuss.optimizers.asgd import ASGD as ASGD
from schuss.optimizers.rprop import Rprop as Rprop
from schuss.optimizers.adam import Adam as Adam, AdamW as AdamW
from schuss.optimizers.adamax import Adamax as Adamax
from schuss.optimizers.adabelief import AdaBelief as AdaBelief
from schuss.optimizers.yogi import Yogi as Yogi
from schuss.optimizers.nadam import NAdam as NAdam
from schuss.optimizers.laprop import LaProp as LaProp
from schuss.optimizers.grams import Grams as Grams
from schuss.optimizers.adan import Adan as Adan
from schuss.optimizers.adabound import AdaBound as AdaBound
from schuss.optimizers.adopt import ADOPT as ADOPT
from schuss.optimizers.ademamix import AdEMAMix as AdEMAMix
from schuss.optimizers.radam import RAdam as RAdam
from schuss.optimizers.ranger import Ranger as Ranger
from schuss.optimizers.lars import LARS as LARS
from schuss.optimizers.lamb import LAMB as LAMB
from schuss.optimizers.lion import Lion as Lion
from schuss.optimizers.signum import Signum as Signum, SignSGD as SignSGD, Tiger as Tiger
from schuss.optimizers.novograd import NovoGrad as NovoGrad
from schuss.optimizers.adafactor import Adafactor as Adafactor, AdafactorHF as AdafactorHF
from schuss.optimizers.came import CAME as CAME
from schuss.optimizers.sm3 import SM3 as SM3
from schuss.optimizers.prodigy import Prodigy as Prodigy
from schuss.optimizers.d_adaptation import DAdaptAdam as DAdaptAdam, DAdaptSGD as DAdaptSGD
from schuss.optimizers.dog import DoG as DoG
from schuss.optimizers.madgrad import MADGRAD as MADGRAD
from schuss.optimizers.padam import PAdam as PAdam
from schuss.optimizers.adam_atan2 import AdamAtan2 as AdamAtan2
from schuss.optimizers.ftrl import FTRL as FTRL
from schuss.optimizers.schedule_free import (
    ScheduleFreeSGD as ScheduleFreeSGD,
    ScheduleFreeAdamW as ScheduleFreeAdamW,
    ScheduleFreeRAdam as ScheduleFreeRAdam,
)
from schuss.optimizers.sophia import SophiaG as SophiaG, SophiaH as SophiaH
from schuss.optimizers.stable_adamw import StableAdamW as StableAdamW
from schuss.optimizers.mars import MARS as MARS
from schuss.optimizers.adai import Adai as Adai
from schuss.optimizers.adamp import AdamP as AdamP, SGDP as SGDP
from schuss.optimizers.fromage import Fromage as Fromage
from schuss.optimizers.adam_mini import AdamMini as AdamMini
from schuss.optimizers.muon import Muon as Muon
from schuss.optimizers.soap import SOAP as SOAP
from schuss.optimizers.shampoo import Shampoo as Shampoo
from schuss.optimizers.newton import Newton as Newton

#: Every optimizer class of the package, by name, except wrappers, and LBFGS, which the package imports on first use.
OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind not in (Optimizer, Lookahead)
}

# Leaves out the module names. Type checkers understand only literal lists; without one they export all names.
if not TYPE_CHECKING:
    __all__ = ["OPTIMIZERS", "Lookahead", *OPTIMIZERS]
