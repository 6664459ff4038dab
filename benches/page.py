"""Formats the recorded figures for the documentation, the README and the terminal. Measures nothing."""

import json
import textwrap
from pathlib import Path

import charts
from sections import SECTIONS, others
from sections.table import Table, bounded, cell, short, speedup, time

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
README = HERE.parent / "README.md"
PICTURE = HERE.parent / "docs" / "_static" / "speed.svg"
BEGIN, END = "<!-- Written by `make speed` from benches/results.json. -->", "<!-- End of what `make speed` writes. -->"
COMMAND = "make speed"


def load():
    """Reads the recorded figures."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def tables(results):
    """All tables in the order of the page."""
    figures = results["figures"]
    return [table for name, module in SECTIONS.items() for table in module.tables(figures.get(name, {})) if table.rows]


def targets(results):
    """Targets and the measured figures."""
    rows = []
    for name, module in SECTIONS.items():
        for what, value, sign, bound in module.targets(results["figures"].get(name, {})):
            met = value >= bound if sign == ">=" else value <= bound
            figure = bounded(value, least=bound) if sign == ">=" else bounded(value, most=bound)
            rows.append([what, figure, f"{sign} {short(bound)}", "yes" if met else cell("no", lost=True)])
    return rows


def missed(results):
    """A table of the missed targets, with the number of all targets."""
    rows = targets(results)
    text = (
        f"Of the project's {len(rows)} targets, these were missed in this run. A figure within a few hundredths of its "
        "target may meet it in one run and miss it in the next."
    )
    lost = [row[:3] for row in rows if row[3] == "no"]
    return Table("Targets missed", text, ["what", "measured", "target"], lost)


def losses(results):
    """The cases in which another library is faster: {(library, where): [case, ...]}."""
    found = {}
    for table in tables(results):
        where = table.title.removeprefix("Other libraries, ")
        for row in table.rows:
            for one in row:
                if name := getattr(one, "rival", None):
                    unit = " elements" if table.head[0] == "elements" else ""
                    found.setdefault((name, where), []).append(f"{one} at {row[0]}{unit}")
    return found


def about(results):
    """Machine, versions and measurement conditions."""
    own = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items())
    dates = sorted({how["date"] for how in results["measured"].values()})
    commits = list(dict.fromkeys(how["commit"] for how in results["measured"].values()))
    shares = {piece: how.get("neighbours", 0) for piece, how in results["measured"].items()}
    minutes = round(sum(how.get("seconds", 0) for how in results["measured"].values()) / 60)
    busy = [f"{piece} {share:.0%}" for piece, share in shares.items() if share > 0.05]
    speeds = results["figures"].get("memory", {}).get("speed", {})
    # Records of older versions lack these.
    known = "".join(f", {words} {own[key]}" for key, words in {"model": "model", "l3": "L3"}.items() if key in own)
    rates = [f"{speed / 1e9:.0f} GB/s on {n}" for n, speed in speeds.items() if n != "missing"]
    return {
        "Machine": f"{own['cpu']}{known}, {own['cores']} cores, CPU level {own['cpu_level']}, {own['threads']} threads",
        **({"Memory, by threads": ", ".join(rates)} if rates else {}),
        "System": f"{own['system']}, Python {own['python']}",
        "Versions": versions,
        "Command": COMMAND,
        "Measured": f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, commit {', '.join(commits)}",
        "Time that it took": f"{minutes} minutes",
        "Other load on the machine": f"used cores during {', '.join(busy)}" if busy else "at most 5 % of its cores",
    }


def text(results):
    """The figures for the terminal."""
    parts = ["\n".join(f"{name}: {value}" for name, value in about(results).items())]
    parts += [f"## {table.title}\n\n{table.markdown()}" for table in [*tables(results), missed(results)] if table.rows]
    return "\n\n".join(parts) + "\n"


def picture(svg):
    """A chart inside a page of the documentation."""
    return [".. raw:: html", "", *(f"   {line}" for line in svg.splitlines()), ""]


def headline(results):
    """The chart and the sentence of the documentation's start page."""
    figures = results["figures"]["others"]
    return "\n".join([*picture(charts.libraries(figures)), charts.headline(results), ""])


def facts(results):
    """Figures for sentences elsewhere in the documentation, as substitutions such as ``|int8 16384|``."""
    state, products = (results["figures"].get(name, {}) for name in ("small_state", "products"))
    found = {f"{way} {n}": ratio for n, own in state.items() for way, ratio in own["ratio"].items()}
    steps = products.get("steps", {}).items()
    found |= {f"{how} {n}": own[how] for n, own in steps for how in ("plain", "shared")}
    return "".join(f".. |{name}| replace:: {short(value)}\n" for name, value in found.items())


def rst(results):
    """The documentation's page below its introduction."""
    figures = results["figures"]
    lines = [*picture(charts.libraries(figures["others"])), *picture(charts.floors(figures["floors"]))]
    lines += ["Where other libraries are faster", "--------------------------------", ""]
    lost = losses(results)
    lines += ["Their time divided by ours:", ""] if lost else ["Nowhere on this page.", ""]
    lines += [*(f"- {name}, {where}: {', '.join(cases)}" for (name, where), cases in lost.items()), ""]
    lines += ["Missed targets are listed at the end.", ""]
    lines += ["Machine and versions", "--------------------", "", ".. list-table::", "   :widths: 15 85", ""]
    for name, value in about(results).items():
        lines += [f"   * - {name}", f"     - {value}"]
    lines += [""]
    return "\n".join([*lines, *(table.rst() for table in [*tables(results), missed(results)])])


README_ROWS = [(16_384, "hot"), (131_072, "paused"), (131_072, "matmul"), (8_388_608, "hot")]
README_LIBRARIES = ["torch fused", "numba parallel", "DeepSpeed CPUAdam", "optax", "NumPy"]


def readme(results):
    """The README's picture, its table and the text below it."""
    data = results["figures"]["others"]
    names = [name for name in README_LIBRARIES if name in others.present(data)]
    rows = []
    for n, regime in README_ROWS:
        found = [data[name].get(regime, {}).get(str(n)) for name in names]
        if any(found):
            label = ", ".join([f"{n:,}", *([others.WORDS[regime]] if regime in others.WORDS else [])])
            cells = [speedup(each["ratio"], name) if each else "" for name, each in zip(names, found)]
            rows.append([label, time(others.ours(data, regime, n)), *cells])
    made = Table("", "", ["elements", "schuss", *names], rows)
    own = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items() if name != "schuss")
    lost = sum(map(len, losses(results).values()))
    note = (
        "Our time, then theirs divided by ours; above 1, schuss is faster. Another library is faster in "
        f"{lost} of the cases that the documentation's page on speed lists, with the figures of all optimizers and the "
        f"missed targets. `{COMMAND}` on {own['cores']} cores of an {own['cpu']} ({own['cpu_level']}), "
        f"{own['system']}, Python {own['python']}, {versions}. Only ratios carry over to another machine."
    )
    shown = f"![The speed of AdamW compared with other libraries]({PICTURE.relative_to(README.parent).as_posix()})"
    return "\n\n".join([shown, made.markdown(), textwrap.fill(note, 120, break_on_hyphens=False)])


def rewrite_readme(results):
    """Replaces what is between the README's markers, and the picture."""
    PICTURE.write_text(charts.libraries(results["figures"]["others"]), encoding="utf-8")
    own = README.read_text(encoding="utf-8")
    before, rest = own.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{readme(results)}\n{END}{after}", encoding="utf-8")


def readme_block():
    """The text between the README's markers."""
    return README.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip("\n")
