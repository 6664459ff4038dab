"""Wrappers around an optimizer: slow weights, averages, SAM, gradient transforms; and offloading.

None of them knows an optimizer class by name.
"""

from schuss.wrappers.lookahead import Lookahead as Lookahead
