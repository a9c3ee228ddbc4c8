"""Cost beside quality: what an encoder is, what encoding took, and what training took."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import notes
from bench.report.cells import Cells, named
from bench.report.pairs import Pairs
from bench.report.table import Entry, Table, measure, score, warned, word

ABOUT = (
    "Of encoding, in the encoder's largest run, beside its mean over families x 100. FLOPs a text are estimated as 2 x parameters "
    "without embedding tables x token positions a text; what is not known is a dash. Peak MB is the most memory the process had held so "
    "far: where one run computed several encoders, those of earlier ones count too, so compare it between runs of one encoder only."
)


def table(pairs: Pairs) -> Table:
    """Return what each encoder is and what encoding took, from its largest run."""
    cells = pairs.cells
    rows = []
    for label in cells.encoders:
        card, mean = cells.card(label), cells.overall(label)
        rows.append((
            word(named(cells, label)),
            *(word(card.get(name)) for name in ("backbone", "dtype", "device")),
            warned(Entry(score(mean), mean), cells.overlapping(label, cells.common)) if mean is not None else word(None),
            *_measures(card, cells, label),
        ))  # fmt: skip
    return Table(
        "cost",
        "Cost beside quality",
        ("encoder", "backbone", "dtype", "device", "mean of families", *_MEASURES),
        tuple(rows),
        words=frozenset({"encoder", "backbone", "dtype", "device"}),
        about=ABOUT,
        notes=notes.mixed(r for label in cells.encoders for r in cells.of_encoder(label)),
    )


_MEASURES = (
    "parameters (M)", "dimension", "training tokens", "inference tokens", "passes / text", "tokens / text", "GFLOP / text",
    "tokens / s", "padded / real", "encode s", "peak MB",
)  # fmt: skip


def _measures(card: Mapping[str, Any], cells: Cells, label: str) -> list[Entry]:
    spent = _largest_run(cells, label)
    tokens, seconds, texts = (
        spent.get(name) or None for name in ("tokens", "encode_seconds", "forward_texts")
    )  # 0: not counted
    a_text = tokens / texts if tokens and texts else None
    whole, tables = card.get("parameters"), card.get("embedding_parameters")
    flops = 2 * (whole - tables) * a_text if whole and tables is not None and a_text else None
    return [
        measure(whole, scale=1e-6, digits=1),
        measure(
            max((r.cost.get("dimension") or 0 for r in cells.of_encoder(label)), default=0) or None
        ),
        measure(cells.tokens(label)),
        measure(cells.training(label).get("inference_tokens")),
        measure(card.get("passes"), digits=1),
        measure(a_text, digits=1),
        measure(flops, scale=1e-9, digits=2),
        measure(throughput(cells, label)),
        measure(
            spent["padded_tokens"] / tokens if tokens and "padded_tokens" in spent else None,
            digits=3,
        ),
        measure(seconds, digits=1),
        measure(spent.get("peak_memory_mb")),
    ]


def throughput(cells: Cells, label: str) -> float | None:
    """Return how many tokens a second an encoder took in, in its largest run; None where it was not measured."""
    spent = _largest_run(cells, label)
    tokens, seconds = spent.get("tokens"), spent.get("encode_seconds")
    return tokens / seconds if tokens and seconds else None


def _largest_run(cells: Cells, label: str) -> Mapping[str, float]:
    return max(
        (r.cost for r in cells.of_encoder(label)),
        key=lambda c: (c.get("tokens", 0), c.get("encode_seconds", 0)),
    )


def training(cells: Cells) -> Table:
    """Return the cards of trained encoders with the two ends of their loss curves; no rows where none was trained."""
    rows = []
    for label in cells.encoders:
        card = cells.training(label)
        if not card:
            continue
        losses = [float(loss) for _, loss in card.get("loss") or ()]
        seconds, tokens = card.get("seconds"), card.get("trained_tokens")
        rows.append((
            word(named(cells, label)),
            *(word(card.get(name)) for name in ("method", "backbone")),
            *(measure(card.get(name)) for name in ("budget", "trained_tokens", "inference_tokens", "steps", "seconds")),
            measure(tokens / seconds if tokens and seconds else None),
            *(measure(value, digits=3) for value in _ends(losses)),
            *(word(card.get(name)) for name in ("seed", "device", "created")),
            word("; ".join(_set(used) for used in card.get("data") or ())),
            word(", ".join(f"{name} {value}" for name, value in (card.get("recipe") or {}).items())),
            word(card.get("command")),
        ))  # fmt: skip
    return Table(
        "training",
        "Training",
        (
            "encoder", "method", "backbone", "budget", "trained tokens", "inference tokens", "steps", "seconds", "tokens / s",
            "loss at first", "loss at last", "seed", "device", "created", "data", "recipe", "command",
        ),
        tuple(rows),
        words=frozenset({"encoder", "method", "backbone", "device", "created", "data", "recipe", "command"}),
        about="From the cards of the checkpoints. Seconds are those of the encoder's own training; what a recipe tunes or writes before "
        "it is in its card, stage by stage. Loss is the mean of the first and of the last tenth of its curve; losses of "
        "different methods measure different things.",
    )  # fmt: skip


def _ends(losses: Sequence[float]) -> tuple[float | None, float | None]:
    n = -(-len(losses) // 10)
    return (sum(losses[:n]) / n, sum(losses[-n:]) / n) if n else (None, None)


def _set(used: Mapping[str, Any]) -> str:
    about = [
        f"{used['rows']:,} rows" if used.get("rows") is not None else "",
        str(used.get("licence") or ""),
    ]
    return f"{used.get('id', '?')} ({', '.join(filter(None, about))})"
