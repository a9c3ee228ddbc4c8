"""From results to tables. Scores are shown x 100; a cell without a result is a dash, never a zero."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bench.result import Result
from bench.task import Score

if TYPE_CHECKING:
    import pandas as pd

MISSING = "—"


@dataclass(frozen=True)
class Column:
    """One task as it was run: results of other limits, read-outs or protocol versions are other columns.

    Attributes:
        family: The task's family.
        task: Its name.
        metric: Its main score.
        readout: Which vectors were read.
        limit: At most this many test examples.
        version: Version of its protocol.
    """

    family: str
    task: str
    metric: str
    readout: str
    limit: int
    version: int

    @classmethod
    def of(cls, result: Result) -> Self:
        """Return the column a result belongs to; a limit of 0 is none."""
        spec = result.spec
        return cls(result.family, spec.task, result.metric, spec.readout, spec.limit or 0, spec.task_version)


@dataclass(frozen=True)
class Cells:
    """All results by encoder and column, several seeds of one cell put together.

    Attributes:
        results: The results of each cell, by the encoder's label and the column.
    """

    results: Mapping[tuple[str, Column], Sequence[Result]]

    @classmethod
    def of(cls, results: Iterable[Result]) -> Self:
        """Sort results into cells; encoders of one name but another content get a label with their fingerprint."""
        found = sorted(results, key=lambda r: (r.spec.encoder, r.spec.fingerprint, r.spec.task, r.spec.key))
        prints: dict[str, set[str]] = {}
        for r in found:
            prints.setdefault(r.spec.encoder, set()).add(r.spec.fingerprint)
        cells: dict[tuple[str, Column], list[Result]] = {}
        for r in found:
            name = r.spec.encoder
            label = name if len(prints[name]) == 1 else f"{name} #{r.spec.fingerprint[:4]}"
            cells.setdefault((label, Column.of(r)), []).append(r)
        return cls(cells)

    @cached_property
    def columns(self) -> list[Column]:
        """The columns, by family and task."""
        return sorted({column for _, column in self.results}, key=lambda c: (c.family, c.task, c.readout, c.limit, c.version))

    @cached_property
    def families(self) -> list[str]:
        """The families, in order."""
        return sorted({column.family for column in self.columns})

    @cached_property
    def encoders(self) -> list[str]:
        """The encoders' labels, best mean over families first, those without one last."""
        labels = sorted({label for label, _ in self.results})
        return sorted(labels, key=lambda label: -(m if (m := self.overall(label)) is not None else -math.inf))

    @cached_property
    def common(self) -> frozenset[Column]:
        """The columns that more than half of the encoders have: only these count in means, so that all means are of the same tasks."""
        have = Counter(column for _, column in self.results)
        n = len({label for label, _ in self.results})
        return frozenset(column for column, count in have.items() if 2 * count > n)

    def score(self, label: str, column: Column) -> Score | None:
        """Return the main score of a cell over all its seeds and repeats, or None."""
        found = self.results.get((label, column))
        return Score(tuple(value for result in found for value in result.main.repeats)) if found else None

    def family(self, label: str, family: str) -> tuple[float, float] | None:
        """Return an encoder's mean over a family's common tasks and the spread of that mean over repeats; None if one is missing."""
        scores = [self.score(label, column) for column in self.columns if column.family == family and column in self.common]
        if not scores or any(score is None for score in scores):
            return None
        whole = [score for score in scores if score is not None]
        return float(np.mean([s.mean for s in whole])), math.sqrt(math.fsum((s.spread or 0.0) ** 2 for s in whole)) / len(whole)

    def have(self, label: str, family: str) -> tuple[int, int]:
        """Return how many of a family's common tasks an encoder has, and how many there are."""
        tasks = [column for column in self.columns if column.family == family and column in self.common]
        return sum((label, column) in self.results for column in tasks), len(tasks)

    def overall(self, label: str) -> float | None:
        """Return an encoder's mean over families, or None if it lacks one."""
        families = {column.family for column in self.common}
        means = [self.family(label, family) for family in sorted(families)]
        return float(np.mean([m[0] for m in means if m])) if means and all(means) else None

    def title(self, column: Column) -> str:
        """Return the column's name, with what sets it apart from others of the same task."""
        others = [c for c in self.columns if c.task == column.task]
        marks = [f"limit {column.limit}"] if column.limit else []
        marks += [column.readout] if len({c.readout for c in others}) > 1 else []
        marks += [f"protocol {column.version}"] if len({c.version for c in others}) > 1 else []
        return column.task + (f" ({', '.join(marks)})" if marks else "")

    def of_encoder(self, label: str) -> list[Result]:
        """Return every result of an encoder."""
        return [result for (name, _), found in self.results.items() if name == label for result in found]


def named(cells: Cells, label: str) -> str:
    """Return the encoder's label, marked when its method was never trained."""
    return label if cells.of_encoder(label)[0].card.get("trained", True) else f"{label} (untrained)"


def number(value: float | None, spread: float | None = None, digits: int = 1) -> str:
    """Return a score x 100 with its spread, or a dash."""
    if value is None:
        return MISSING
    return f"{100 * value:.{digits}f}" + (f" ± {100 * spread:.{digits}f}" if spread else "")


def overview(cells: Cells) -> "pd.DataFrame":
    """Return the family means, encoder by family, and the mean over families; the best of each column is bold."""
    import pandas as pd

    frame = pd.DataFrame({"encoder": [named(cells, label) for label in cells.encoders]})
    for family in cells.families:
        means = [cells.family(label, family) for label in cells.encoders]
        if any(column.family == family for column in cells.common):
            shown = [
                number(*mean) if mean else "{} of {} tasks".format(*cells.have(label, family))
                for label, mean in zip(cells.encoders, means, strict=True)
            ]
            frame[family] = bold(shown, [mean[0] if mean else None for mean in means])
    overall = [cells.overall(label) for label in cells.encoders]
    frame["mean of families"] = bold([number(mean) for mean in overall], overall)
    return frame


def by_task(cells: Cells) -> "pd.DataFrame":
    """Return every task with its spread, task by encoder; the best of each row is bold."""
    import pandas as pd

    rows = []
    for column in cells.columns:
        scores = [cells.score(label, column) for label in cells.encoders]
        shown = bold([number(s.mean, s.spread) if s else MISSING for s in scores], [s.mean if s else None for s in scores])
        rows.append([column.family, cells.title(column), column.metric, *shown])
    return pd.DataFrame(rows, columns=["family", "task", "metric", *(named(cells, label) for label in cells.encoders)])


def bold(texts: Sequence[str], values: Sequence[float | None]) -> list[str]:
    """Return the texts with those of the highest value, as far as they can be told apart when printed, in bold."""
    best = max((round(v, 3) for v in values if v is not None), default=None)
    return [f"**{t}**" if v is not None and round(v, 3) == best and len(texts) > 1 else t for t, v in zip(texts, values, strict=True)]


def long(cells: Cells) -> "pd.DataFrame":
    """Return one row a cell with everything a reader of the CSV may group or filter by; numbers as they are, not x 100."""
    import pandas as pd

    rows = []
    for label in cells.encoders:
        for column in cells.columns:
            score = cells.score(label, column)
            found = cells.results.get((label, column), ())
            first = found[0] if found else None
            card: Mapping[str, Any] = first.card if first else cells.of_encoder(label)[0].card
            rows.append(
                {
                    "encoder": label,
                    **{name: card.get(name) for name in ("trained", "backbone", "dtype")},
                    **{name: getattr(column, name) for name in ("family", "task", "readout")},
                    "limit": column.limit or None,
                    "protocol": column.version,
                    "metric": column.metric,
                    "score": score.mean if score else None,
                    "spread": score.spread if score else None,
                    "repeats": len(score.repeats) if score else 0,
                    "seeds": " ".join(str(r.spec.seed) for r in found),
                    **{name: first.texts.get(name) if first else None for name in ("distinct", "repeated_share", "truncated_share")},
                    "status": "done" if found else "missing",
                }
            )
    return pd.DataFrame(rows)


def cost(cells: Cells) -> "pd.DataFrame":
    """Return what each encoder is and what encoding took, from its largest run."""
    import pandas as pd

    rows = []
    for label in cells.encoders:
        result = max(cells.of_encoder(label), key=lambda r: (r.cost.get("tokens", 0), r.cost.get("encode_seconds", 0)))
        card, spent = result.card, result.cost
        tokens, seconds = spent.get("tokens", 0), spent.get("encode_seconds", 0)
        rows.append([
            named(cells, label), card.get("backbone") or MISSING, card.get("dtype") or MISSING, card.get("device") or MISSING,
            f"{card['parameters'] / 1e6:.1f}" if card.get("parameters") else MISSING,
            f"{tokens:,}" if tokens else MISSING,
            f"{spent['padded_tokens'] / tokens:.3f}" if tokens else MISSING,
            f"{tokens / seconds:,.0f}" if tokens and seconds else MISSING,
            f"{seconds:.1f}",
            f"{spent.get('peak_memory_mb', 0):,.0f}",
        ])  # fmt: skip
    names = ["encoder", "backbone", "dtype", "device", "parameters (M)", "tokens", "padded / real", "tokens / s", "encode s", "peak MB"]
    return pd.DataFrame(rows, columns=names)


def data(cells: Cells) -> "pd.DataFrame":
    """Return how many texts each task read, how many of them twice, and how many an encoder had to cut (the most over encoders)."""
    import pandas as pd

    rows = []
    for column in cells.columns:
        found = [result for (_, c), results in cells.results.items() if c == column for result in results]
        most = max(found, key=lambda r: r.texts.get("truncated_share", 0))
        sets = [d for r in found for d in r.provenance.get("data", [])]
        sources = sorted({f"{'/'.join(filter(None, (d['id'], d.get('config'))))} ({d.get('source', '?')})" for d in sets})
        counts = [f"{most.texts.get(name, 0):,.0f}" for name in ("asked", "distinct")]
        shares = [f"{100 * most.texts.get(name, 0):.1f} %" for name in ("repeated_share", "truncated_share")]
        rows.append([cells.title(column), *counts, *shares, "; ".join(sources) or MISSING])
    return pd.DataFrame(rows, columns=["task", "texts", "distinct", "seen before", "cut", "data"])


def notes(cells: Cells) -> list[str]:
    """Return what a reader has to know about the tables: what is missing, mixed, or left out of means."""
    results = [result for found in cells.results.values() for result in found]
    whole = len(cells.encoders) * len(cells.columns)
    found = []
    if missing := whole - len(cells.results):
        found.append(f"{MISSING}: no result, {missing} of {whole} cells; `bench run` says of each why it was skipped or failed.")
    if rare := [cells.title(column) for column in cells.columns if column not in cells.common]:
        found.append(f"Left out of means, since at most half of the encoders have them: {', '.join(rare)}.")
    found.append("± is the sample standard deviation over repeats (seeds, splits, draws); a family's is that of its mean.")
    if any(not result.card.get("trained", True) for result in results):
        found.append("untrained: the method's format and read-out on a backbone that never saw its recipe.")
    for what, values in (
        ("code versions", {str(r.provenance.get("commit") or "unknown") for r in results}),
        ("seed sets", {" ".join(sorted({str(r.spec.seed) for r in found_})) for found_ in cells.results.values()}),
        ("number types", {str(r.card.get("dtype")) for r in results if r.card.get("weights")}),
    ):
        if len(values) > 1:
            found.append(f"Cells of different {what} are mixed: {', '.join(sorted(values))}.")
    if any(column.limit for column in cells.columns):
        found.append("Tasks with a limit read a fixed draw of that many test examples; do not compare them with full ones.")
    return found


def made(cells: Cells) -> list[str]:
    """Return how the results were made: commands, versions, machine and time."""
    sources = [result.provenance for found in cells.results.values() for result in found]
    lines = [f"`{command}`" for command in sorted({s["command"] for s in sources if s.get("command")})]
    machines = sorted({json.dumps(s.get("machine", {}), sort_keys=True) for s in sources})
    lines += [", ".join(f"{k} {v}" for k, v in json.loads(machine).items()) for machine in machines if machine != "{}"]
    versions = sorted({json.dumps(s.get("versions", {}), sort_keys=True) for s in sources})
    lines += [", ".join(f"{k} {v}" for k, v in json.loads(version).items()) for version in versions if version != "{}"]
    days = sorted({s["time"][:10] for s in sources if s.get("time")})
    return lines + ([f"run {' to '.join(dict.fromkeys((days[0], days[-1])))}"] if days else [])


def text(cells: Cells, form: str) -> str:
    """Return the table of every task as Markdown, or one row a cell as CSV or JSON."""
    if form == "md":
        return markdown(by_task(cells))
    frame = long(cells)
    return str(frame.to_csv(index=False) if form == "csv" else frame.to_json(orient="records", indent=1) + "\n")


def markdown(frame: "pd.DataFrame") -> str:
    """Return a table as Markdown; columns of numbers are aligned to the right."""
    words = {"encoder", "family", "task", "metric", "backbone", "dtype", "device", "data"}
    sides = ["left" if column in words else "right" for column in frame.columns]
    return str(frame.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"


def page(cells: Cells) -> str:
    """Return results.md."""
    parts = [
        "# Results\n\nMain scores x 100.\n",
        "## Family means\n\n" + markdown(overview(cells)),
        "![family means](families.png)\n",
        "## Every task\n\n" + markdown(by_task(cells)),
        "![every task](heatmap.png)\n",
        "".join(f"- {note}\n" for note in notes(cells)),
        "## Cost\n\nOf encoding, in the encoder's largest run.\n\n" + markdown(cost(cells)),
        "## Data\n\n" + markdown(data(cells)),
        "## How this was made\n\n" + "".join(f"- {line}\n" for line in made(cells)),
    ]
    return "\n".join(parts)


def grouped(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the families in the order of sorted columns, with the number of columns of each."""
    return [(family, len(list(group))) for family, group in groupby(columns, key=lambda c: c.family)]
