"""The grid as tables. Scores are shown x 100; a cell without a result is a dash, never a zero."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.report.cells import Cells, Column, named
from bench.result import Result

if TYPE_CHECKING:
    import pandas as pd

MISSING = "—"


def number(value: float | None, spread: float | None = None, digits: int = 1) -> str:
    """Return a score x 100 with its spread, or a dash; a single measurement has no spread."""
    if value is None:
        return MISSING
    return f"{100 * value:z.{digits}f}" + ("" if spread is None else f" ± {100 * spread:.{digits}f}")


def overview(cells: Cells) -> "pd.DataFrame":
    """Return the family means, encoder by family, and the mean over families; the best of each column is bold."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "encoder": [named(cells, label) for label in cells.encoders],
            "backbone": [cells.of_encoder(label)[0].card.get("backbone") or MISSING for label in cells.encoders],
        }
    )
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
        counts = [len(s.repeats) for s in scores if s]
        repeats = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
        rows.append([column.family, cells.title(column), column.metric, repeats, *shown])
    return pd.DataFrame(rows, columns=["family", "task", "metric", "repeats", *(named(cells, label) for label in cells.encoders)])


def bold(texts: Sequence[str], values: Sequence[float | None]) -> list[str]:
    """Return the texts with those of the highest value, as far as they can be told apart when printed, in bold."""
    printed = [None if value is None else float(number(value)) for value in values]
    best = max((v for v in printed if v is not None), default=None)
    return [f"**{t}**" if v is not None and v == best and len(texts) > 1 else t for t, v in zip(texts, printed, strict=True)]


def records(cells: Cells) -> list[dict[str, Any]]:
    """Return one record a cell, missing ones too, with all a reader may group or filter by; scores as they are, not x 100."""
    return [_record(cells, label, column) for label in cells.encoders for column in cells.columns]


def _record(cells: Cells, label: str, column: Column) -> dict[str, Any]:
    score, found = cells.score(label, column), cells.results.get((label, column), ())
    first = found[0] if found else None
    known = first or cells.of_encoder(label)[0]  # a missing cell has its encoder's card all the same
    return {
        "encoder": label,
        "fingerprint": known.spec.fingerprint,
        **{name: known.card.get(name) for name in ("trained", "backbone", "parameters", "dtype", "device")},
        **{name: getattr(column, name) for name in ("family", "task", "readout")},
        "limit": column.limit or None,
        "protocol": column.version,
        "metric": column.metric,
        "score": score.mean if score else None,
        "spread": score.spread if score else None,
        "repeats": len(score.repeats) if score else 0,
        "seeds": " ".join(str(r.spec.seed) for r in sorted(found, key=lambda r: r.spec.seed)),
        **{name: first.texts.get(name) if first else None for name in ("asked", "distinct", "repeated_share", "truncated_share")},
        **{name: first.cost.get(name) if first else None for name in ("seconds", "encode_seconds", "tokens", "padded_tokens")},
        "commit": first.provenance.get("commit") if first else None,
        "status": "done" if found else "missing",
    }


def cost(cells: Cells) -> "pd.DataFrame":
    """Return what each encoder is and what encoding took, from its largest run."""
    import pandas as pd

    rows = []
    for label in cells.encoders:
        result = max(cells.of_encoder(label), key=lambda r: (r.cost.get("tokens", 0), r.cost.get("encode_seconds", 0)))
        card, spent = result.card, result.cost
        tokens, seconds = spent.get("tokens") or None, spent.get("encode_seconds")  # 0: an encoder that counts none
        rows.append({
            "encoder": named(cells, label),
            **{name: card.get(name) or MISSING for name in ("backbone", "dtype", "device")},
            "parameters (M)": _shown(card.get("parameters"), scale=1e-6, digits=1),
            "tokens": _shown(tokens),
            "padded / real": _shown(spent["padded_tokens"] / tokens if tokens else None, digits=3),
            "tokens / s": _shown(tokens / seconds if tokens and seconds else None),
            "encode s": _shown(seconds, digits=1),
            "peak MB": _shown(spent.get("peak_memory_mb")),
        })  # fmt: skip
    return pd.DataFrame(rows)


def data(cells: Cells) -> "pd.DataFrame":
    """Return how many texts each task read, how many of them twice, and how many an encoder had to cut (the most over encoders)."""
    import pandas as pd

    by_column: dict[Column, list[Result]] = {column: [] for column in cells.columns}
    for (_, column), results in cells.results.items():
        by_column[column].extend(results)
    rows = []
    for column, found in by_column.items():
        texts = max(found, key=lambda r: r.texts.get("truncated_share", 0)).texts
        sets = [d for r in found for d in r.provenance.get("data", [])]
        sources = sorted({f"{'/'.join(filter(None, (d['id'], d.get('config'))))} ({d.get('source', '?')})" for d in sets})
        counts = [_shown(texts.get(name)) for name in ("asked", "distinct")]
        shares = [_shown(texts.get(name), scale=100, digits=1, unit=" %") for name in ("repeated_share", "truncated_share")]
        rows.append([cells.title(column), *counts, *shares, "; ".join(sources) or MISSING])
    return pd.DataFrame(rows, columns=["task", "texts", "distinct", "seen before", "cut", "data"])


def _shown(value: float | None, *, scale: float = 1, digits: int = 0, unit: str = "") -> str:
    """Return a count or measure as text; what is not known, or was not there to be measured, is a dash."""
    return f"{scale * value:,.{digits}f}{unit}" if value is not None else MISSING


def text(cells: Cells, form: str) -> str:
    """Return the table of every task as Markdown, or one record a cell as CSV or JSON."""
    if form == "md":
        return markdown(by_task(cells))
    if form == "json":
        return json.dumps(records(cells), indent=1, ensure_ascii=False) + "\n"
    import pandas as pd

    return str(pd.DataFrame(records(cells), dtype=object).to_csv(index=False, lineterminator="\n"))


def markdown(frame: "pd.DataFrame") -> str:
    """Return a table as Markdown; columns of numbers are aligned to the right."""
    words = {"encoder", "family", "task", "metric", "backbone", "dtype", "device", "data"}
    sides = ["left" if column in words else "right" for column in frame.columns]
    safe = frame.rename(columns=_escaped).map(_escaped)
    return str(safe.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")  # a bar would begin another cell
