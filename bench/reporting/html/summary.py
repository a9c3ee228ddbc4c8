"""What a reader should know first: what was compared, where and when, what is best, and what is missing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.reporting.comparison import Comparison
from bench.reporting.notes import machine
from bench.reporting.table import Entry, Table


@dataclass(frozen=True)
class Leader:
    """The best of one family.

    Attributes:
        family: The family, or what the mean is over.
        encoders: The best encoder, or several that are equal as printed.
        entry: Its number.
        tied: Encoders that are not significantly different from it.
    """

    family: str
    encoders: tuple[str, ...]
    entry: Entry
    tied: tuple[str, ...]

    @property
    def interval(self) -> str:
        """The 95 % interval x 100, or nothing."""
        return " to ".join(f"{100 * end:z.1f}" for end in self.entry.interval or ())


def summary(c: Comparison, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the first part of the page; the best are those that the table of family means marks."""
    sources = [result.provenance for result in c.runs.result]
    days = sorted({s["time"][:10] for s in sources if s.get("time")})
    devices = {str(card["device"]) for card in c.encoders.card if card.get("device")}
    overview = [table for table in tables if table.name == "families"]
    return {
        "encoders": len(c.labels),
        "tasks": len(c.tasks),
        "families": c.tasks.family.nunique(),
        "have": len(c.cells),
        "whole": c.scores.size,
        "days": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
        "machines": sorted({machine(s.get("machine") or {}) for s in sources} - {""}),
        "devices": sorted(devices),
        "commits": sorted({s["commit"] for s in sources if s.get("commit")}),
        "leaders": _leaders(overview[0]) if overview else [],
        "missing": _missing(c),
    }


def _leaders(table: Table) -> list[Leader]:
    found = []
    for i, heading in enumerate(table.columns):
        marked = [(row[0].text, row[i]) for row in table.rows]
        best = [(name, entry) for name, entry in marked if entry.mark == "best"]
        if best and heading not in table.words and heading != "mean rank":
            tied = tuple(name for name, entry in marked if entry.mark == "tie")
            found.append(Leader(heading, tuple(name for name, _ in best), best[0][1], tied))
    return found


def _missing(c: Comparison) -> list[tuple[str, int, list[str]]]:
    """Return why cells have no result (reason, number of cells, encoders by task), most frequent reasons first."""
    found: dict[str, dict[str, list[str]]] = {}
    for title in c.tasks.index:
        for label in c.scores.columns[c.scores.loc[title].isna()]:
            reason = c.absence(label, title)
            names = (
                (c.encoders.at[label, "name"], "the encoder"),
                (c.tasks.at[title, "task"], "the task"),
            )
            for name, word in names:
                reason = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, reason)
            by_task = found.setdefault(reason, {})
            by_task.setdefault(title, []).append(c.encoders.at[label, "title"])
    rows = []
    for reason, by_task in found.items():
        where = [f"{title}: {', '.join(encoders)}" for title, encoders in by_task.items()]
        rows.append((reason, sum(map(len, by_task.values())), where))
    return sorted(rows, key=lambda row: (-row[1], row[0]))
