"""Formats the recorded figures for the documentation's page, the README's table and the terminal. Measures nothing."""

import json
import textwrap
from pathlib import Path

from sections import SECTIONS, others
from sections.table import Table, bounded, cell, short, speedup, time

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
README = HERE.parent / "README.md"
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
    """The cases in which another library is faster, one line per library."""
    found = []
    for table in others.tables(results["figures"].get("others", {})):
        for column, name in enumerate(table.head):
            lost = [f"{row[column]} at {row[0]}" for row in table.rows if getattr(row[column], "lost", False)]
            if lost:
                found.append(f"{name}, {table.title.rpartition(', ')[2]}: {', '.join(lost)} elements")
    return found


def about(results):
    """Machine, versions and measurement conditions."""
    own = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items())
    dates = sorted({how["date"] for how in results["measured"].values()})
    commits = list(dict.fromkeys(how["commit"] for how in results["measured"].values()))
    shares = {piece: how.get("neighbours", 0) for piece, how in results["measured"].items()}
    busy = [f"{piece} {share:.0%}" for piece, share in shares.items() if share > 0.05]
    return {
        "Machine": f"{own['cpu']}, {own['cores']} cores, CPU level {own['cpu_level']}, {own['threads']} threads",
        "System": f"{own['system']}, Python {own['python']}",
        "Versions": versions,
        "Command": COMMAND,
        "Measured": f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, commit {', '.join(commits)}",
        "Other load on the machine": f"used cores during {', '.join(busy)}" if busy else "at most 5 % of its cores",
    }


def text(results):
    """The figures for the terminal."""
    parts = ["\n".join(f"{name}: {value}" for name, value in about(results).items())]
    parts += [f"## {table.title}\n\n{table.markdown()}" for table in [*tables(results), missed(results)] if table.rows]
    return "\n\n".join(parts) + "\n"


def rst(results):
    """The documentation's page below its introduction."""
    lines = [".. list-table::", "   :widths: 15 85", ""]
    for name, value in about(results).items():
        lines += [f"   * - {name}", f"     - {value}"]
    lines += ["", "Where other libraries are faster", "--------------------------------", ""]
    lost = losses(results)
    lines += ["Their time divided by ours:", ""] if lost else ["Nowhere on this page.", ""]
    lines += [*(f"- {line}" for line in lost), ""]
    lines += ["Missed targets are listed at the end.", ""]
    return "\n".join([*lines, *(table.rst() for table in [*tables(results), missed(results)])])


README_SIZES = [(1_024, "hot"), (16_384, "hot"), (131_072, "hot"), (1_048_576, "hot")]
README_SIZES += [(131_072, "paused"), (1_048_576, "paused"), (8_388_608, "hot"), (33_554_432, "hot")]
README_LIBRARIES = ["torch fused", "numba parallel", "DeepSpeed CPUAdam", "optax", "NumPy"]


def readme(results):
    """The README's table and the text below it."""
    figures = results["figures"]
    data, floors, many = (figures.get(name, {}) for name in ("others", "floors", "many"))
    names = [name for name in README_LIBRARIES if name in others.present(data)]
    rows = []
    for n, regime in README_SIZES:
        found = [data[name][regime].get(str(n)) for name in names]
        own = floors.get(str(n), {}).get("AdamW")
        label = f"{n:,}" + (", after 1 ms of other work" if regime == "paused" else "")
        cells = [speedup(each["ratio"]) if each else "" for each in found]
        rows.append([label, time(others.ours(data, regime, n)), *cells, short(own["ratio"]) if own else ""])
    head = ["elements", "schuss", *("torch `fused=True`" if name == "torch fused" else name for name in names)]
    made = Table("", "", [*head, "memory-traffic floor"], rows)
    own = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items() if name != "schuss")
    words = []
    for name, each in many.items():
        words.append(f"{name}: {short(each['flat'])}")
    sentence = (
        "Time for a list of arrays, divided by the time for one array with as many elements: " + "; ".join(words) + "."
        if words
        else ""
    )
    note = (
        "Bold: the other library is faster. The floor is a loop with the same loads and stores; values above 1 come "
        f"from data still cached from the previous step. `{COMMAND}` on {own['cores']} cores of an {own['cpu']} "
        f"({own['cpu_level']}), {own['system']}, Python {own['python']}, {versions}. Ratios are medians over "
        "interleaved rounds; only they carry over to another machine. The documentation's page on speed has the "
        "figures of all optimizers, and the missed targets."
    )
    paragraphs = [textwrap.fill(paragraph, 120, break_on_hyphens=False) for paragraph in (sentence, note) if paragraph]
    return "\n\n".join([made.markdown(), *paragraphs])


def rewrite_readme(results):
    """Replaces the table between the README's markers."""
    own = README.read_text(encoding="utf-8")
    before, rest = own.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{readme(results)}\n{END}{after}", encoding="utf-8")


def readme_block():
    """The text between the README's markers."""
    return README.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip("\n")
