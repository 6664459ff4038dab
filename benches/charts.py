"""Draws the recorded figures as SVG, for the README and the documentation. Measures nothing, needs nothing installed.

The pictures follow the reader's light or dark mode: colours are CSS variables.
"""

import math
from xml.sax.saxutils import escape

from sections import others
from sections.table import short, time

# Okabe and Ito's palette, and lighter tones of it for a dark page: name of the variable -> (light, dark).
COLOURS = {
    "surface": ("#FFFFFF", "#0D1117"),
    "ink": ("#222222", "#E6E6E6"),
    "faint": ("#DDDDDD", "#3A3F46"),
    "torch": ("#0072B2", "#56B4E9"),
    "numba": ("#D55E00", "#FF8C42"),
    "deepspeed": ("#009E73", "#2BC79A"),
    "optax": ("#B0588F", "#E39AC3"),
    "numpy": ("#707070", "#B0B0B0"),
}
LIBRARIES = {
    "torch fused": ("torch", "torch fused"),
    "numba parallel": ("numba", "numba parallel"),
    "DeepSpeed CPUAdam": ("deepspeed", "DeepSpeed CPUAdam"),
    "optax": ("optax", "optax"),
    "NumPy": ("numpy", "NumPy"),
}
REGIMES = {"hot": "back to back", **others.WORDS}


def variables(mode):
    """The colours of light (0) or dark (1) mode as CSS declarations."""
    return "".join(f"--{name}:{pair[mode]};" for name, pair in COLOURS.items())


STYLE = (
    f".chart{{{variables(0)}font:13px system-ui,sans-serif}}"
    f"@media(prefers-color-scheme:dark){{.chart{{{variables(1)}}}}}"
    # The mode that a reader of the documentation chooses.
    f"html[data-theme=light] .chart{{{variables(0)}}}html[data-theme=dark] .chart{{{variables(1)}}}"
    "html[data-theme] .chart .surface{fill:none}"
    ".chart text{fill:var(--ink)}.chart .grid{stroke:var(--faint)}.chart .one{stroke:var(--ink);stroke-width:1.5}"
    ".chart .surface{fill:var(--surface)}.chart .title{font-weight:600}"
)


def _svg(width, height, title, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" role="img">'
    surface = f'<rect class="surface" width="{width}" height="{height}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", surface, *parts, "</svg>\n"])


def _text(x, y, words, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def _line(x1, y1, x2, y2, kind):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _spread(wanted, gap, lowest):
    """Heights for labels near the wanted ones, `gap` apart and none below `lowest`."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = dict.fromkeys(order, 0.0)
    for before, i in zip([None, *order], order):
        places[i] = wanted[i] if before is None else max(wanted[i], places[before] + gap)
    ceiling = lowest
    for i in reversed(order):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return [places[i] for i in range(len(wanted))]


def _count(n):
    return f"{n >> 20} M" if n >= 1 << 20 else f"{n >> 10} k"


def libraries(figures, regimes=tuple(REGIMES)):
    """AdamW: the time of other libraries divided by ours, over the number of elements, a panel for each regime."""
    names = [name for name in others.present(figures) if name in LIBRARIES]
    shown = [regime for regime in regimes if any(figures[name].get(regime) for name in names)]
    top, panel, wide, left, gap = 56, 250, 300, 46, 24
    ratios = [own["ratio"] for name in names for regime in shown for own in figures[name].get(regime, {}).values()]
    marks = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    marks = marks[: 1 + next(k for k, mark in enumerate(marks) if mark >= max(ratios))]
    low, high = math.log(marks[0]), math.log(marks[-1])

    def height(ratio):
        return top + panel * (1 - (math.log(ratio) - low) / (high - low))

    parts = [
        _text(12, 22, "AdamW, float32: time of other libraries divided by the time of schuss", more=' class="title"')
    ]
    for k, regime in enumerate(shown):
        sizes = sorted({int(n) for name in names for n in figures[name].get(regime, {})})
        x0 = left + k * (wide + gap)
        parts.append(_text(x0, top - 10, REGIMES[regime]))
        for ratio in marks:
            y = height(ratio)
            parts.append(_line(x0, y, x0 + wide, y, "one" if ratio == 1 else "grid"))
            parts += [_text(x0 - 6, y + 4, f"{ratio:g}", "end")] if k == 0 else []

        def place(n, x0=x0, sizes=sizes):
            return x0 + 10 + (wide - 20) * math.log(n / sizes[0]) / math.log(sizes[-1] / sizes[0])

        written = -math.inf
        for n in sizes:
            if place(n) >= written + 42:
                written = place(n)
                parts.append(_text(written, top + panel + 18, _count(n), "middle"))
        for name in names:
            points = [(place(int(n)), height(own["ratio"])) for n, own in figures[name].get(regime, {}).items()]
            colour, joined = f"var(--{LIBRARIES[name][0]})", " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>' for x, y in points]
    right = left + len(shown) * (wide + gap)
    ends = [height(list(figures[name][shown[-1]].values())[-1]["ratio"]) for name in names]
    for name, y in zip(names, _spread(ends, 17, top + panel)):
        colour, label = LIBRARIES[name]
        parts.append(_text(right - 14, y + 4, label, more=f' style="fill:var(--{colour})" font-weight="600"'))
    parts.append(
        _text(left, top + panel + 40, "elements; above the line at 1, schuss is faster, below it the other library is")
    )
    return _svg(right + 158, top + panel + 56, "The speed of AdamW compared with other libraries", parts)


def floors(figures):
    """Optimizers: the floor of memory traffic divided by their time, a dot for each size."""
    sizes = [n for n, own in figures.items() if own and "missing" not in own]
    if not sizes:
        return ""
    cases = sorted(figures[sizes[-1]], key=lambda case: -figures[sizes[-1]][case]["ratio"])
    top, row, left, wide = 62, 21, 250, 520
    ratios = [figures[n][case]["ratio"] for n in sizes for case in figures[n]]
    low, high = min(0.7, *ratios) - 0.03, max(1.2, *ratios) + 0.03
    bottom = top + row * len(cases)

    def place(ratio):
        return left + wide * (ratio - low) / (high - low)

    words = f"{len(cases)} optimizers and variants: how much of the speed of memory they reach"
    parts = [_text(12, 22, words, more=' class="title"')]
    shades = [0.35, 0.65, 1][-len(sizes) :]
    for k, (n, shade) in enumerate(zip(sizes, shades)):
        at = left + k * 150
        parts.append(f'<circle cx="{at}" cy="40" r="5" fill="var(--torch)" fill-opacity="{shade}"/>')
        parts.append(_text(at + 10, 44, f"{_count(int(n))} elements"))
    for ratio in (tenth / 10 for tenth in range(math.ceil(low * 10), math.floor(high * 10) + 1)):
        kind = "one" if ratio == 1 else "grid"
        parts.append(_line(place(ratio), top, place(ratio), bottom, kind))
        parts.append(_text(place(ratio), bottom + 18, f"{ratio:g}", "middle"))
    for k, case in enumerate(cases):
        y = top + row * (k + 0.5)
        parts.append(_text(left - 12, y + 4, case, "end"))
        for n, shade in zip(sizes, shades):
            x = place(figures[n][case]["ratio"])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="var(--torch)" fill-opacity="{shade}"/>')
    parts.append(
        _text(left, bottom + 40, "1: the time of the step's loads and stores alone; more: data was still cached")
    )
    return _svg(left + wide + 30, bottom + 56, "Steps compared with the floor of memory traffic", parts)


def headline(results):
    """One sentence with a number, for the start page."""
    figures, own = results["figures"], results["machine"]
    n, regime = 131_072, "paused"
    names = [name for name in others.present(figures["others"]) if name in LIBRARIES]
    found = {name: figures["others"][name][regime][str(n)]["ratio"] for name in names}
    words = [f"{LIBRARIES[name][1]} {short(ratio)}" for name, ratio in found.items()]
    return (
        f"A step of AdamW over {n:,} float32 parameters takes {time(others.ours(figures['others'], regime, n))} "
        f"{REGIMES[regime]}, on {own['cores']} cores of an {own['cpu']}. Other libraries take so many times as long: "
        f"{', '.join(words)}."
    )
