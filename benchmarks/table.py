"""The result as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Row

_BEGIN, _END = "<!-- the run begins -->", "<!-- the run ends -->"
_MET = {True: "yes", False: "**no**", None: ""}


def markdown(
    command: str,
    rows: Sequence[Row],
    versions: Mapping[str, Mapping[str, str]],
    facts: Mapping[str, str],
    repetitions: int,
) -> str:
    """Return the table, and what it was measured with and on."""
    lines = [
        f"`{command}`, {repetitions} rounds.",
        "",
        "| work | ours | peer | its figure | ratio | of single rounds | budget | met |",
        "|---|--:|---|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        cells = (
            row.work,
            row.ours,
            row.peer,
            row.theirs,
            row.ratio,
            row.spread,
            row.budget,
            _MET[row.met],
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Measured on: " + _listed(facts, ": ") + "."]
    lines += ["", "Versions: " + _listed(versions["ours"], " ") + "."]
    lines += ["", "In the environment of imgstore: " + _listed(versions["imgstore"], " ") + "."]
    return "\n".join(lines)


def _listed(mapping: Mapping[str, str], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in mapping.items())


def insert(page: Path, text: str) -> None:
    """Replace what is between the markers of a page."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
