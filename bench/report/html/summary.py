"""What a reader should know first: what was compared, on which machine, when, what is best, and what is missing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.cells import Cells, named
from bench.report.notes import machine
from bench.report.table import Entry, Table

_OVERVIEW = "families"


@dataclass(frozen=True)
class Leader:
    """The best of one family.

    Attributes:
        family: The family, or what the mean is over.
        encoders: The best encoder, or several that are equally good when printed.
        entry: Its number.
        tied: Encoders that are tied with it.
    """

    family: str
    encoders: tuple[str, ...]
    entry: Entry
    tied: tuple[str, ...]

    @property
    def interval(self) -> str:
        """The 95 % interval x 100, or nothing."""
        return " to ".join(f"{100 * end:z.1f}" for end in self.entry.interval or ())


@dataclass(frozen=True)
class Summary:
    """The first part of the page.

    Attributes:
        encoders: Number of encoders.
        tasks: Number of tasks.
        families: Number of families.
        have: Number of cells with a result.
        whole: Number of cells.
        days: When the results were made.
        machines: Where, a line each.
        devices: What the networks computed on.
        commits: The code, a commit each.
        leaders: The best of each family.
        missing: Why cells have no result: reason, number of cells, and their encoders by task.
    """

    encoders: int
    tasks: int
    families: int
    have: int
    whole: int
    days: str
    machines: tuple[str, ...]
    devices: tuple[str, ...]
    commits: tuple[str, ...]
    leaders: tuple[Leader, ...]
    missing: tuple[tuple[str, int, tuple[str, ...]], ...]


def summary(cells: Cells, tables: Sequence[Table]) -> Summary:
    """Return the summary of the results; the best are those that the table of family means marks."""
    sources = [r.provenance for results in cells.results.values() for r in results]
    days = sorted({s["time"][:10] for s in sources if s.get("time")})
    return Summary(
        encoders=len(cells.encoders),
        tasks=len(cells.columns),
        families=len(cells.families),
        have=len(cells.results),
        whole=len(cells.encoders) * len(cells.columns),
        days=" to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
        machines=tuple(sorted({machine(s.get("machine") or {}) for s in sources} - {""})),
        devices=tuple(
            sorted(
                {
                    str(cells.card(label)["device"])
                    for label in cells.encoders
                    if cells.card(label).get("device")
                }
            )
        ),
        commits=tuple(sorted({s["commit"] for s in sources if s.get("commit")})),
        leaders=tuple(_leaders(next((table for table in tables if table.name == _OVERVIEW), None))),
        missing=tuple(_missing(cells)),
    )


def _leaders(table: Table | None) -> list[Leader]:
    if table is None:
        return []
    found = []
    for i, heading in enumerate(table.columns):
        entries = [(row[0].text, row[i]) for row in table.rows]
        best = [(name, entry) for name, entry in entries if entry.mark == "best"]
        if best and heading not in table.words and heading != "mean rank":
            tied = tuple(name for name, entry in entries if entry.mark == "tie")
            found.append(Leader(heading, tuple(name for name, _ in best), best[0][1], tied))
    return found


def _missing(cells: Cells) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return the reasons for which cells have no result, those of most cells first."""
    found: dict[str, dict[str, list[str]]] = {}
    for column in cells.columns:
        for label in cells.encoders:
            if (label, column) not in cells.results:
                reason = cells.absence(label, column)
                for name, word in ((cells.name(label), "the encoder"), (column.task, "the task")):
                    reason = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, reason)
                found.setdefault(reason, {}).setdefault(cells.title(column), []).append(
                    named(cells, label)
                )
    each = [
        (
            reason,
            sum(map(len, tasks.values())),
            tuple(f"{task}: {', '.join(labels)}" for task, labels in tasks.items()),
        )
        for reason, tasks in found.items()
    ]
    return sorted(each, key=lambda part: (-part[1], part[0]))
