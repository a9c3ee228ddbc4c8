"""Tables beside the scores: cost, training, data, overlap, examples, missing cells, provenance."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from bench.data.catalog import set_name
from bench.encoder import multiplied_weights
from bench.reporting.comparison import MEAN, OVERLAP, Comparison
from bench.reporting.names import marked, strip_folders
from bench.reporting.table import Entry, Table, measure, score, share, warned, word
from bench.store.result import Absence, Result


def cost(c: Comparison) -> Table:
    """Return what each encoder is and the cost of encoding, in its largest run."""
    described = ("backbone", "dtype")
    rows = []
    for label, encoder in c.encoders.iterrows():
        known = not pd.isna(encoder["mean"])
        text = score(encoder["mean"], digits=c.digits)
        mean = Entry(text, encoder["mean"]) if known else word(None)
        warning = c.overlap_warning(str(label), c.common)
        row = {"encoder": word(encoder.title)}
        row |= {name: word(encoder.card.get(name)) for name in described}
        row["device"] = word(largest_run(c, str(label)).card.get("device"))
        rows.append(row | {MEAN: warned(mean, warning)} | _measures(c, str(label)))
    about = (
        "Cost of encoding in the encoder's largest run, beside its mean over families x 100. FLOPs "
        "per text are estimated as 2 x parameters without embedding tables (of experts, those that "
        "a token is sent to) x tokens per text; those of a training are of everything that it "
        "runs. Seconds, and with them tokens per second, include loading the weights. Peak MB is "
        "the peak memory of the process, which may have computed other encoders before; that of a "
        "GPU is not in it."
    )
    words = ("encoder", *described, "device")
    return Table.of_rows("cost", "Cost and quality", rows, words=words, about=about)


def _measures(c: Comparison, label: str) -> dict[str, Entry]:
    encoder, largest = c.encoders.loc[label], largest_run(c, label).cost
    card = encoder.card
    tokens, seconds = largest.get("tokens") or None, largest.get("encode_seconds") or None
    texts, padded = largest.get("forward_texts") or None, largest.get("padded_tokens")
    per_text, multiplied = _ratio(tokens, texts), multiplied_weights(card)
    flops = 2 * multiplied * per_text if multiplied and per_text else None
    dimension = max((r.cost.get("dimension") or 0 for r in c.of_encoder(label)), default=0)
    return {
        "parameters (M)": measure(card.get("parameters"), scale=1e-6, digits=1),
        "dimension": measure(dimension or None),
        "training tokens": measure(encoder.tokens),
        "inference tokens": measure(encoder.training.get("inference_tokens")),
        **_training_flops(c, encoder.training),
        "passes / text": measure(card.get("passes"), digits=1),
        "tokens / text": measure(per_text, digits=1),
        "GFLOP / text": measure(flops, scale=1e-9, digits=2),
        "tokens / s": measure(throughput(c, label)),
        "padded / real": measure(_ratio(padded, tokens), digits=3),
        "encode s": measure(seconds, digits=1),
        "peak MB": measure(largest.get("peak_memory_mb")),
    }


def _training_flops(c: Comparison, training: Mapping[str, Any]) -> dict[str, Entry]:
    """Return the column of FLOPs of trainings, if the card of any encoder has them."""
    if not any(card.get("flops") for card in c.encoders.training):
        return {}
    return {"training PFLOP": measure(training.get("flops"), scale=1e-15, digits=3)}


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def throughput(c: Comparison, label: str) -> float | None:
    """Return the tokens per second of an encoder's largest run; None where not measured."""
    largest = largest_run(c, label).cost
    return _ratio(largest.get("tokens") or None, largest.get("encode_seconds"))


def largest_run(c: Comparison, label: str) -> Result:
    """Return the result up to which an encoder had read most tokens: its cost and device."""

    def size(result: Result) -> tuple[float, float]:
        return result.cost.get("tokens") or 0, result.cost.get("encode_seconds") or 0

    return max(c.of_encoder(label), key=size)


def training(c: Comparison) -> Table:
    """Return the cards of trained encoders with both ends of their loss curves."""
    trained = c.encoders[[bool(card) for card in c.encoders.training]]
    rows = [_training(encoder.title, encoder.training) for _, encoder in trained.iterrows()]
    words = ("encoder", "method", "backbone", "device", "created", "data", "recipe", "command")
    about = (
        "From the cards of the checkpoints. Seconds are those of the encoder's own training; what "
        "a recipe trains or generates before is in its card, by stage. Loss is the mean of the "
        "first and of the last tenth of its curve; losses of different methods are not comparable."
    )
    return Table.of_rows("training", "Training", rows, words=words, about=about)


def _training(title: str, card: Mapping[str, Any]) -> dict[str, Entry]:
    losses = [float(loss) for _, loss in card.get("loss") or ()]
    tenth = -(-len(losses) // 10)
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
        "tokens / s": measure(_ratio(tokens or None, seconds)),
        "loss at first": measure(_mean(losses[:tenth]), digits=3),
        "loss at last": measure(_mean(losses[-tenth:]), digits=3),
        "seed": word(card.get("seed")),
        "device": word(card.get("device")),
        "created": word(card.get("created")),
        "data": word(data),
        "recipe": word(recipe),
        "command": word(card.get("command")),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _data_set(used: Mapping[str, Any]) -> str:
    rows = f"{used['rows']:,} rows" if used.get("rows") is not None else ""
    about = ", ".join(filter(None, (rows, str(used.get("licence") or ""))))
    return f"{strip_folders(str(used.get('id', '?')))} ({about})"


def data(c: Comparison) -> Table:
    """Return how many texts each task reads, and the shares of duplicates and truncated texts."""
    by_task = c.runs.groupby("title").result.agg(list)
    rows = []
    for title in c.tasks.index:
        found: list[Result] = by_task[title]
        texts = max((r.texts for r in found), key=lambda texts: texts.get("truncated_share", 0))
        used = chain(*(r.provenance.get("data", ()) for r in found))
        sources = sorted(set(map(_source, used)))
        row = {
            "task": word(title),
            "texts": measure(texts.get("asked")),
            "distinct": measure(texts.get("distinct")),
            "duplicates": share(texts.get("repeated_share")),
            "truncated": share(texts.get("truncated_share")),
            "data": word("; ".join(sources)),
        }
        rows.append(row)
    about = "Texts of each task, the share of duplicates, and the largest share truncated."
    return Table.of_rows("data", "Data", rows, words=("task", "data"), about=about)


def _source(used: Mapping[str, Any]) -> str:
    name = set_name(strip_folders(used["id"]), used.get("config"))
    return f"{name} ({used.get('source', '?')})"


def samples(c: Comparison) -> Table:
    """Return the examples that tasks show, in words."""
    found = []
    for (label, title), results in c.cells.items():
        head = {"encoder": c.encoders.at[label, "title"], "task": title}
        found += [head | dict(sample) for sample in results[0].samples]
    columns = list(dict.fromkeys(chain(*found)))
    texts = pd.DataFrame(found, columns=columns, dtype=object).fillna("")
    rows = texts.map(word).to_dict("records")
    about = (
        "An encoder's answers on a few texts of a task, such as the words that answer why a "
        "review is good."
    )
    return Table.of_rows("samples", "Examples", rows, words=columns, about=about)


def missing(c: Comparison) -> Table:
    """Return every cell without a result and why, also of encoders and tasks without any result.

    A cell that lacks some seeds has a row for each of those that were tried.
    """
    reasons = {}
    for title in c.tasks.index:
        for label in c.scores.columns[c.scores.loc[title].isna()]:
            reasons[label, title] = c.absence(label, title)
    names = set(c.encoders["name"])
    known = set(c.tasks[["task", "readout", "limit"]].itertuples(index=False, name=None))
    cell = ["name", "task", "readout", "limit"]
    done = set(c.runs[cell].itertuples(index=False, name=None))
    seeds = set(c.runs[[*cell, "seed"]].itertuples(index=False, name=None))
    for a in c.absences:
        tried = (a.encoder, a.task, a.readout, a.limit or 0)
        if a.encoder not in names or tried[1:] not in known:
            reasons[a.encoder, _title(c, a)] = f"{a.status}: {a.reason}"
        elif tried in done and (*tried, a.seed) not in seeds:
            reasons[a.encoder, f"{_title(c, a)}, seed {a.seed}"] = f"{a.status}: {a.reason}"
    rows = []
    for (encoder, title), why in sorted(reasons.items()):
        status, _, reason = why.partition(": ")
        row = {"encoder": word(encoder), "task": word(title)}
        rows.append(row | {"status": Entry(status), "reason": Entry(reason)})
    words = ("encoder", "task", "status", "reason")
    about = "Why cells have no result; a missing cell is missing, not zero."
    return Table.of_rows("missing", "Missing cells", rows, words=words, about=about)


def _title(c: Comparison, absence: Absence) -> str:
    """Return how tables name a cell that has no result."""
    known = c.tasks[c.tasks.task == absence.task]
    limit = absence.limit or 0
    same = known[(known.readout == absence.readout) & (known.limit == limit)]
    if len(same):
        return str(same.index[-1])
    readout = absence.readout if {*known.readout} - {absence.readout} else ""
    return marked(absence.task, f"limit {limit}" if limit else "", readout)


def overlap(c: Comparison) -> Table:
    """Return the share of each task's test texts that overlap with the training data."""
    over = f"over {100 * OVERLAP:.0f} %"
    rows = []
    for title, shares in c.overlap.dropna(how="all").iterrows():
        row = {"task": word(title)}
        for name, value in zip(c.encoders.title, shares, strict=True):
            row[name] = warned(share(value), over if value > OVERLAP else "")
        rows.append(row)
    about = (
        "Share of test texts in which an 8-gram of words is also in the encoder's training data. A "
        f"score {over}, and every mean and mean rank with it, is marked and never counts as best."
    )
    name = "Overlap with training data"
    return Table.of_rows("overlap", name, rows, words={"task"}, about=about)


def made(c: Comparison) -> Table:
    """Return how the results were made: commands, code, versions, machines and days."""
    sources = [result.provenance for result in c.runs.result]
    facts = {
        "command": _distinct(map(command_of, sources)),
        "commit": _distinct(s.get("commit") for s in sources),
        "machine": _distinct(_listed(s.get("machine")) for s in sources),
        "versions": _distinct(_listed(s.get("versions")) for s in sources),
        "run": _distinct([days(c)]),
    }
    rows = []
    for what, values in facts.items():
        rows += [{"what": word(what), "value": word(value)} for value in values]
    return Table.of_rows("made", "Provenance", rows, words=("what", "value"))


def days(c: Comparison) -> str:
    """Return the first and the last day of the results; "" where none is known."""
    known = _distinct((result.provenance.get("time") or "")[:10] for result in c.runs.result)
    return " to ".join(dict.fromkeys([*known[:1], *known[-1:]]))


def _listed(found: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted((found or {}).items()))


def command_of(provenance: Mapping[str, Any]) -> str:
    """Return the command that made a result, without folders; "" where it is not known."""
    command = provenance.get("command") or ""
    try:
        parts = shlex.split(command)
    except ValueError:  # it is no line that a shell takes
        parts = command.split()
    return shlex.join(strip_folders(part) for part in parts)


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})
