"""Wrappers around an optimizer: slow weights, offloading. No wrapper knows an optimizer class by name."""

from schuss.wrappers.lookahead import Lookahead as Lookahead
