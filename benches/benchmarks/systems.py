"""Optimizers that are more than one rule, and steps that do more than step; each in ratios of one run.

What is measured and how is written in the sections of the speed page.
"""

from sections import systems, tail

from .floor import FloorUnavailable
from .models import LAYOUTS

ROUNDS = 7
NAN = float("nan")


class Layerwise:
    """Time over that of a NumPy expression: 0.05 is 20 times as fast."""

    params = [["LARS", "LAMB"]]
    param_names = ["optimizer"]
    unit = "times NumPy"

    def track_ratio_to_numpy(self, name):
        return 1 / systems.layerwise(name, ROUNDS)["numpy"]


class Relatives:
    """Time over AdamW's, divided by their bytes' ratio: 1.1 at most."""

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


class Tail:
    """Unscale, clip, step and zero in one call, over torch's four and over our own four."""

    params = [["EfficientNet-B1", "GPT-2 small"]]
    param_names = ["model"]
    unit = "times torch fused"
    timeout = 120

    def track_ratio_to_torch(self, model):
        return 1 / tail.tail(LAYOUTS[model], ROUNDS).get("torch", NAN)
