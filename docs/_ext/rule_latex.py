"""Equations of rules in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import sympy as sp
from rule_tree import NORMS, Line, Select, names
from sympy.printing.latex import LatexPrinter

from schuss import _schuss

LETTERS = r"""lr \eta  eps \epsilon  eps1 \epsilon_1  eps2 \epsilon_2  momentum \mu  weight_decay \lambda  l2 \lambda
    gradient_factor \gamma  decay \delta  ratio r  vmax v_{\max}  d_max d_{\max}  old_d d_{\mathrm{old}}
    trust_coefficient \tau  initial_lr \eta_0  rho_inf \rho_\infty  beta2_decay \kappa  lambd \lambda
    momentum_decay \psi  mu_product \pi  smax s_{\max}  final_lr \eta_F  eta \tilde{\eta}  eta1 \eta^-  eta2 \eta^+
    step_size1 \Delta_{\min}  step_size2 \Delta_{\max}  size \Delta  prev g_{\mathrm{prev}}"""
SYMBOLS = dict(zip(LETTERS.split()[::2], LETTERS.split()[1::2], strict=True))
MEAN = r"\operatorname{mean}"
REDUCTIONS = {"sum": r"\sum", "norm": r"\sum", "max": r"\max", "mean": MEAN, "rms": MEAN}
#: Names of scalars, which come before arrays in a product.
SCALARS = {"t", "lr"} | {name for rule in _schuss.rules().values() for name in rule["hypers"] if len(name) > 1}


def tex(name: str) -> str:
    """A name in LaTeX: a letter, a letter with an index, a norm, or an upright word."""
    if name in SYMBOLS:
        return SYMBOLS[name]
    if name.startswith(NORMS):
        kind, _, of = name.partition("_")
        return rf"\lVert {tex(of)} \rVert" if kind == "norm" else rf"\operatorname{{rms}}({tex(of)})"
    if re.fullmatch(r"([a-z]|alpha|beta|gamma|lambda|mu|nu|rho|sigma)\d?", name):
        return sp.latex(sp.Symbol(name))
    return r"\mathrm{" + name.replace("_", r"\_") + "}"


class _Printer(LatexPrinter):  # type: ignore[misc]
    """Orders terms: in a sum the assigned name first and negative terms last, in a product scalars before arrays."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def _print_Symbol(self, value: Any) -> str:
        return tex(value.name)

    def _print_Rational(self, value: Any) -> str:
        number = f"{float(value):g}"
        return rf"10^{{{int(number[2:])}}}" if number.startswith("1e") else number

    def _print_Add(self, value: Any, order: Any = None) -> str:
        def key(term: Any) -> tuple[Any, ...]:
            used = names(term)
            place = str(term) != self.target, self.target not in used, not term.is_number, used <= SCALARS
            return term.could_extract_minus_sign(), *place, term.sort_key()

        first, *others = sorted(value.args, key=key)
        text = self._print(first)
        for term in others:
            minus = term.could_extract_minus_sign()
            text += (" - " if minus else " + ") + self._print(-term if minus else term)
        return text

    def _print_Mul(self, value: Any) -> str:
        if value.could_extract_minus_sign():
            return f"-{self._print(-value)}"
        above, below = sp.fraction(value)
        if below != 1:
            return rf"\frac{{{self._print(above)}}}{{{self._print(below)}}}"

        def key(factor: Any) -> tuple[Any, ...]:
            place = not factor.is_number, not names(factor) <= SCALARS, factor.is_Add
            return *place, any(len(name) == 1 for name in names(factor)), not factor.is_Symbol, factor.sort_key()

        factors = sorted(sp.Mul.make_args(value), key=key)
        parts = [rf"\left({self._print(f)}\right)" if f.is_Add else self._print(f) for f in factors]
        return (r" \, " if any(part.startswith(r"\mathrm") for part in parts) else " ").join(parts)

    def _print_Select(self, value: Any, exp: Any = None) -> str:
        rows = []
        while isinstance(value, Select):
            test, yes, value = value.args
            rows.append(rf"{self._print(yes)} & \text{{if }} {self._print(test)}")
        rows.append(rf"{self._print(value)} & \text{{otherwise}}")
        return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"

    def _joined(self, value: Any) -> str:
        return rf" \text{{ {type(value).__name__.lower()} }} ".join(map(self._print, value.args))

    _print_And = _print_Or = _joined


def latex(line: Line, align: str = "") -> str:
    """One equation, with `align` before its sign."""
    value = _Printer(line.name).doprint(line.value)
    if line.reduction is not None:
        operation, scope = line.reduction
        value = rf"{REDUCTIONS[operation]}_{{\text{{{scope}}}}} {value}"
        value = rf"\sqrt{{\textstyle {value}}}" if line.name.startswith(NORMS) else value
    return f"{tex(line.name)} {align}" + (r"\leftarrow " if line.assigns else "= ") + value


def display(lines: Iterable[Line]) -> str:
    """Several equations, aligned at their signs."""
    return "\\begin{aligned}\n" + " \\\\\n".join(latex(line, align="&") for line in lines) + "\n\\end{aligned}"
