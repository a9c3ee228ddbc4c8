"""results.csv: one record a cell, missing ones too, with all a reader may group or filter by."""

from typing import Any

from bench.report.cells import Cells, Column


def records(cells: Cells) -> list[dict[str, Any]]:
    """Return one record a cell; scores as they are, not x 100."""
    return [_record(cells, label, column) for label in cells.encoders for column in cells.columns]


def csv(cells: Cells) -> str:
    """Return the records as CSV."""
    import pandas as pd

    return str(pd.DataFrame(records(cells), dtype=object).to_csv(index=False, lineterminator="\n"))


def _record(cells: Cells, label: str, column: Column) -> dict[str, Any]:
    score, found = cells.score(label, column), cells.results.get((label, column), ())
    first = found[0] if found else None
    known = (
        first or cells.of_encoder(label)[0]
    )  # a missing cell has its encoder's card all the same
    status, _, reason = ("done", "", "") if found else cells.absence(label, column).partition(": ")
    return {
        "encoder": label,
        "fingerprint": known.spec.fingerprint,
        **{
            name: known.card.get(name)
            for name in ("trained", "backbone", "parameters", "dtype", "device")
        },
        "training_tokens": cells.tokens(label),
        **{name: getattr(column, name) for name in ("family", "task", "readout")},
        "limit": column.limit or None,
        "protocol": column.version,
        "metric": column.metric,
        "score": score.mean if score else None,
        "spread": score.spread if score else None,
        "stderr": score.stderr if score else None,
        "repeats": len(score.repeats) if score else 0,
        "seeds": " ".join(str(r.spec.seed) for r in sorted(found, key=lambda r: r.spec.seed)),
        **{
            name: first.texts.get(name) if first else None
            for name in ("asked", "distinct", "repeated_share", "truncated_share", "overlap_share")
        },
        **{
            name: first.cost.get(name) if first else None
            for name in ("seconds", "encode_seconds", "tokens", "padded_tokens")
        },
        "commit": first.provenance.get("commit") if first else None,
        "key": first.spec.key if first else None,
        "status": status,
        "reason": reason,
    }
