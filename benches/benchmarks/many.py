"""Many arrays in one step: the same million elements as one array, as a thousand, as ten thousand; and small calls."""

from .common import LAYOUTS, Job, Timed, hot, interleave, measure_ratio


class Many(Timed):
    params = [list(LAYOUTS)]
    param_names = ["layout"]

    def time_step(self, layout):
        hot("AdamW", tuple(LAYOUTS[layout])).step()


class ManyToFlat:
    """Time over that of the flat array: 1.0 is as good as one array, lower is better."""

    params = [[layout for layout, shapes in LAYOUTS.items() if len(shapes) > 1]]
    param_names = ["layout"]
    unit = "times the flat step"

    def track_ratio_to_flat(self, layout):
        return measure_ratio(Job("AdamW", LAYOUTS[layout]).step, Job("AdamW", [sum(LAYOUTS[layout])]).step)


class Call:
    """What a call costs before any arithmetic: arrays of one element. Timed here, since asv's own loop adds 0.2 us."""

    params = [[1, 10, 100, 1000]]
    param_names = ["arrays of one element"]
    unit = "s"

    def track_step(self, count):
        return min(interleave({"step": Job("AdamW", [1] * count).step})["step"])
