"""Tables beside the scores: cost, training, data, overlap, examples, missing cells, and how everything was made."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from bench.reporting import notes
from bench.reporting.comparison import OVERLAP, Comparison, strip_folders
from bench.reporting.table import Entry, Table, measure, score, warned, word
from bench.result import Absence, Result


def cost(c: Comparison) -> Table:
    """Return what each encoder is and what encoding took, in its largest run."""
    common = c.tasks.index[c.tasks.common]
    rows = []
    for label, encoder in c.encoders.iterrows():
        mean = None if encoder["mean"] != encoder["mean"] else float(encoder["mean"])
        quality = word(None) if mean is None else Entry(score(mean), mean)
        described = [word(encoder.title)]
        described += [word(encoder.card.get(name)) for name in ("backbone", "dtype", "device")]
        warning = c.overlap_warning(label, common)
        rows.append((*described, warned(quality, warning), *_measures(c, label).values()))
    words = ("encoder", "backbone", "dtype", "device")
    measures = tuple(_measures(c, c.labels[0])) if c.labels else ()
    return Table(
        "cost",
        "Cost and quality",
        (*words, "mean of families", *measures),
        tuple(rows),
        words=frozenset(words),
        about="Cost of encoding in the encoder's largest run, beside its mean over families x 100. FLOPs per text "
        "are estimated as 2 x parameters without embedding tables x tokens per text. Peak MB is the most memory "
        "the process had held so far: where one run computed several encoders, those of earlier ones count too.",
        notes=notes.mixed(c.runs.result),
    )


def _measures(c: Comparison, label: str) -> dict[str, Entry]:
    encoder, largest = c.encoders.loc[label], largest_run(c, label)
    card = encoder.card
    tokens, seconds, texts = (
        largest.get(name) or None for name in ("tokens", "encode_seconds", "forward_texts")
    )
    per_text = tokens / texts if tokens and texts else None
    parameters, tables = card.get("parameters"), card.get("embedding_parameters")
    known = parameters and tables is not None and per_text
    padded = largest["padded_tokens"] / tokens if tokens and "padded_tokens" in largest else None
    dimension = max((r.cost.get("dimension") or 0 for r in c.of_encoder(label)), default=0)
    return {
        "parameters (M)": measure(parameters, scale=1e-6, digits=1),
        "dimension": measure(dimension or None),
        "training tokens": measure(encoder.tokens),
        "inference tokens": measure(encoder.training.get("inference_tokens")),
        "passes / text": measure(card.get("passes"), digits=1),
        "tokens / text": measure(per_text, digits=1),
        "GFLOP / text": measure(
            2 * (parameters - tables) * per_text if known else None, scale=1e-9, digits=2
        ),
        "tokens / s": measure(throughput(c, label)),
        "padded / real": measure(padded, digits=3),
        "encode s": measure(seconds, digits=1),
        "peak MB": measure(largest.get("peak_memory_mb")),
    }


def throughput(c: Comparison, label: str) -> float | None:
    """Return how many tokens per second an encoder read in its largest run; None where it was not measured."""
    largest = largest_run(c, label)
    tokens, seconds = largest.get("tokens"), largest.get("encode_seconds")
    return tokens / seconds if tokens and seconds else None


def largest_run(c: Comparison, label: str) -> Mapping[str, float]:
    """Return the cost of the result up to which an encoder had read most tokens."""
    costs = [r.cost for r in c.of_encoder(label)]
    return max(costs, key=lambda cost: (cost.get("tokens", 0), cost.get("encode_seconds", 0)))


def training(c: Comparison) -> Table:
    """Return the cards of trained encoders with both ends of their loss curves; no rows where none was trained."""
    trained = c.encoders[[bool(card) for card in c.encoders.training]]
    rows = [_training(encoder.title, encoder.training) for _, encoder in trained.iterrows()]
    return Table(
        "training",
        "Training",
        tuple(rows[0]) if rows else (),
        tuple(tuple(row.values()) for row in rows),
        words=frozenset(
            {"encoder", "method", "backbone", "device", "created", "data", "recipe", "command"}
        ),
        about="From the cards of the checkpoints. Seconds are those of the encoder's own training; what a recipe "
        "tunes or generates before it is in its card, stage by stage. Loss is the mean of the first and of the last "
        "tenth of its curve; losses of different methods measure different things.",
    )


def _training(title: str, card: Mapping[str, Any]) -> dict[str, Entry]:
    losses = [float(loss) for _, loss in card.get("loss") or ()]
    tenth = -(-len(losses) // 10)
    first, last = (
        (sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth) if tenth else (None, None)
    )
    seconds, tokens = card.get("seconds"), card.get("trained_tokens")
    data = "; ".join(_data_set(used) for used in card.get("data") or ())
    recipe = ", ".join(f"{name} {value}" for name, value in (card.get("recipe") or {}).items())
    return {
        "encoder": word(title),
        "method": word(card.get("method")),
        "backbone": word(card.get("backbone")),
        "budget": measure(card.get("budget")),
        "trained tokens": measure(tokens),
        "inference tokens": measure(card.get("inference_tokens")),
        "steps": measure(card.get("steps")),
        "seconds": measure(seconds),
        "tokens / s": measure(tokens / seconds if tokens and seconds else None),
        "loss at first": measure(first, digits=3),
        "loss at last": measure(last, digits=3),
        "seed": word(card.get("seed")),
        "device": word(card.get("device")),
        "created": word(card.get("created")),
        "data": word(data),
        "recipe": word(recipe),
        "command": word(card.get("command")),
    }


def _data_set(used: Mapping[str, Any]) -> str:
    rows = f"{used['rows']:,} rows" if used.get("rows") is not None else ""
    about = ", ".join(filter(None, (rows, str(used.get("licence") or ""))))
    return f"{used.get('id', '?')} ({about})"


def data(c: Comparison) -> Table:
    """Return how many texts each task read, how many twice, and how many an encoder truncated (the most over encoders)."""
    by_task = c.runs.groupby("title").result.agg(list)
    rows = []
    for title in c.tasks.index:
        found: list[Result] = by_task[title]
        texts = max((r.texts for r in found), key=lambda texts: texts.get("truncated_share", 0))
        sources = {_source(used) for r in found for used in r.provenance.get("data", ())}
        counts = [measure(texts.get(name)) for name in ("asked", "distinct")]
        shares = [
            measure(texts.get(name), scale=100, digits=1, unit=" %")
            for name in ("repeated_share", "truncated_share")
        ]
        rows.append((word(title), *counts, *shares, word("; ".join(sorted(sources)))))
    return Table(
        "data",
        "Data",
        ("task", "texts", "distinct", "duplicates", "truncated", "data"),
        tuple(rows),
        words=frozenset({"task", "data"}),
        about="Texts each task read; the share of duplicates, and the share truncated (the most over encoders).",
        notes=notes.mixed(c.runs.result),
    )


def _source(used: Mapping[str, Any]) -> str:
    return f"{'/'.join(filter(None, (used['id'], used.get('config'))))} ({used.get('source', '?')})"


def samples(c: Comparison) -> Table:
    """Return what tasks show of their examples, in words."""
    found = [
        (label, title, sample)
        for (label, title), results in c.cells.items()
        for sample in results[0].samples
    ]
    columns = list(dict.fromkeys(name for _, _, sample in found for name in sample))
    rows = [
        (
            word(c.encoders.at[label, "title"]),
            word(title),
            *(word(sample.get(name, "")) for name in columns),
        )
        for label, title, sample in found
    ]
    return Table(
        "samples",
        "Examples",
        ("encoder", "task", *columns),
        tuple(rows),
        words=frozenset({"encoder", "task", *columns}),
        about="What an encoder found in a few texts of a task, such as the words that answer why a review is good.",
    )


def missing(c: Comparison) -> Table:
    """Return every cell without a result and why, cells of encoders and tasks that never gave a result too."""
    reasons = {}
    for title in c.tasks.index:
        for label in c.scores.columns[c.scores.loc[title].isna()]:
            reasons[label, title] = c.absence(label, title)
    names = set(c.encoders["name"])
    known = set(c.tasks[["task", "readout", "limit"]].itertuples(index=False, name=None))
    for a in c.absences:
        if a.encoder not in names or (a.task, a.readout, a.limit or 0) not in known:
            reasons[a.encoder, _title(c, a)] = f"{a.status}: {a.reason}"
    rows = []
    for (encoder, title), told in sorted(reasons.items()):
        status, _, reason = told.partition(": ")
        rows.append((word(encoder), word(title), Entry(status), Entry(reason)))
    columns = ("encoder", "task", "status", "reason")
    about = "Why `bench run` left a cell without a result; a missing cell is missing, not zero."
    return Table(
        "missing", "Missing cells", columns, tuple(rows), words=frozenset(columns), about=about
    )


def _title(c: Comparison, absence: Absence) -> str:
    """Return how tables name a cell that has no result."""
    known = c.tasks[c.tasks.task == absence.task]
    limit = absence.limit or 0
    same = known[(known.readout == absence.readout) & (known.limit == limit)]
    if len(same):
        return str(same.index[-1])
    marks = [f"limit {limit}"] if limit else []
    marks += [absence.readout] if {*known.readout} - {absence.readout} else []
    return absence.task + (f" ({', '.join(marks)})" if marks else "")


def overlap(c: Comparison) -> Table:
    """Return the share of each task's test texts that overlap with the training data; no rows if never measured."""
    measured = c.overlap.dropna(how="all")
    rows = [
        (word(title), *(_share(share) for share in shares))
        for title, *shares in measured.itertuples(name=None)
    ]
    return Table(
        "overlap",
        "Overlap with training data",
        ("task", *c.encoders.title),
        tuple(rows),
        words=frozenset({"task"}),
        about="Share of test texts in which an 8-gram of words is also in the encoder's training data. A score over "
        f"{100 * OVERLAP:.0f} %, and every mean and mean rank with it, is marked and never counts as the best.",
    )


def _share(share: float) -> Entry:
    warning = f"over {100 * OVERLAP:.0f} %" if share > OVERLAP else ""
    return warned(measure(share, scale=100, digits=1, unit=" %"), warning)


def made(c: Comparison) -> Table:
    """Return how the results were made: commands, code, versions, machines and days; no folder of anyone's disk."""
    sources = [result.provenance for result in c.runs.result]
    lines = [("command", command) for command in _distinct(map(command_of, sources))]
    lines += [("commit", commit) for commit in _distinct(s.get("commit") for s in sources)]
    for name in ("machine", "versions"):
        kinds = _distinct(json.dumps(s.get(name) or {}, sort_keys=True) for s in sources)
        for kind in kinds:
            if words := ", ".join(f"{k} {v}" for k, v in json.loads(kind).items()):
                lines.append((name, words))
    if days := _distinct((s.get("time") or "")[:10] for s in sources):
        lines.append(("run", " to ".join(dict.fromkeys((days[0], days[-1])))))
    rows = tuple((word(what), word(value)) for what, value in lines)
    columns = ("what", "value")
    return Table("made", "How this was made", columns, rows, words=frozenset(columns))


def command_of(provenance: Mapping[str, Any]) -> str:
    """Return the command that made a result, without folders; "" where it is not known."""
    command = provenance.get("command") or ""
    try:
        parts = shlex.split(command)
    except ValueError:  # it is no line that a shell takes
        parts = command.split()
    return shlex.join(strip_folders(part) for part in parts)


def _distinct(values: Any) -> Sequence[str]:  # noqa: ANN401 - an iterable of strings and None
    return sorted({value for value in values if value})
