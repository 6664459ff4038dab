"""Optimizers and steps that do more than one rule, as ratios to a reference in the same run.

The sections of the speed page measure them.
"""

from sections import systems, tail

from .floor import FloorUnavailable
from .models import LAYOUTS
from .timing import SUITE

version = SUITE
ROUNDS = 7
NAN = float("nan")


class Layerwise:
    """Our time divided by that of a NumPy expression; 0.05 is 20 times as fast."""

    params = [["LARS", "LAMB"]]
    param_names = ["optimizer"]
    unit = "times NumPy"

    def track_ratio_to_numpy(self, name):
        return 1 / systems.layerwise(name, ROUNDS)["numpy"]


class Relatives:
    """Time divided by AdamW's, divided by the ratio of their bytes; the target is at most 1.1."""

    params = [["RAdam", "Ranger"]]
    param_names = ["optimizer"]
    unit = "times AdamW and the bytes"
    timeout = 120

    def track_ratio_to_adamw(self, name):
        own = systems.relative(name, ROUNDS)
        return own["ratio"] / own["bytes"]


class Synchronization:
    params = [[8_388_608, 33_554_432]]
    param_names = ["elements"]
    unit = "times the floor"

    def track_ratio_to_floor(self, n):
        try:
            return 1 / systems.synchronization(n, ROUNDS)["floor"]
        except FloorUnavailable:
            return NAN


class Newton:
    unit = "times SciPy"

    def track_ratio_to_scipy(self):
        return systems.newton(ROUNDS).get("ratio", NAN)


class Muon:
    """Our time divided by that of torch's Muon."""

    unit = "times torch"
    timeout = 120

    def track_ratio_to_torch(self):
        return 1 / systems.muon(ROUNDS).get("torch", NAN)


class Preconditioned:
    """Our time divided by that of the matrix products of the step alone."""

    params = [["SOAP", "Shampoo"]]
    param_names = ["optimizer"]
    unit = "times the products"
    timeout = 120

    def track_ratio_to_products(self, name):
        return systems.preconditioned(name, ROUNDS)["products"]


class Tail:
    """Unscaling, clipping, step and zeroing in one call: our time divided by that of torch's four calls."""

    params = [["EfficientNet-B1", "GPT-2 small"]]
    param_names = ["model"]
    unit = "times torch fused"
    timeout = 120

    def track_ratio_to_torch(self, model):
        return 1 / tail.tail(LAYOUTS[model], ROUNDS).get("torch", NAN)
