"""The tables of a study."""

import math
from dataclasses import replace
from itertools import chain

import pandas as pd

from bench.reporting import context, notes, trainings
from bench.reporting.study.answer import differing
from bench.reporting.study.grid import PFLOP, Study, changes, spent
from bench.reporting.table import Entry, Table, difference, measure, missing, score, word
from bench.reporting.trainings import Method

WORDS = frozenset({"method", "encoder", "task", "what is changed", "note", "backbone"})
"""Headings of text columns in the tables of a study."""

_INTERVALS = (
    "Intervals of methods have a variance component for the trainings (their seeds), one for test "
    "examples, one for repeats and, where there are several, one for wordings of the instruction, "
    "the first with a quantile of Student's t of its own; those of a method trained once lack it."
)
_BUDGETS = (
    "Budgets are tokens that pass through the network being trained. The rest of a recipe, such as "
    "a generator, is in its FLOPs."
)


def tables(study: Study) -> tuple[Table, ...]:
    """Return the tables that have rows, the answer first."""
    made = [
        summary(study),
        families(study),
        wordings(study),
        tried(study),
        cost(study),
        each_training(study),
        context.missing(study.c),
        _notes(study),
        context.made(study.c),
    ]
    return tuple(table for table in made if table.rows)


def summary(study: Study) -> Table:
    """Return a row per method and budget: mean, difference from the backbone, rank, and cost."""
    rows = [*study.ordered, *study.beside]
    columns = [
        ("method", [word(study.names[m]) for m in rows]),
        ("budget", [measure(m.budget) for m in rows]),
        ("trainings", [measure(len(m.seeds)) if m.seeds else word("") for m in rows]),
        (study.mean, [_level(study, m, study.mean) for m in rows]),
    ]
    if study.baseline is not None:
        name = study.baseline.name
        columns += [
            (f"minus {name}", [_gain(study, m, study.mean) for m in rows]),
            ("for other families too", [_gain(study, m, study.mean, "resampled") for m in rows]),
        ]
    columns += [("rank", [_rank(study, m) for m in rows])]
    about = (
        "Over the trainings of each method at each budget, x 100, with 95 % intervals; *: "
        "significantly different from the untrained backbone (p < 0.05, Holm-corrected over the "
        "methods and budgets). The interval for other families too takes the families as a sample "
        "of all that there could be. Ranks are among everything at this budget; all are within "
        "their intervals with 95 % probability."
    )
    return Table.of_columns("study", "The methods", columns, words=WORDS, about=about)


def _level(study: Study, method: Method, over: str) -> Entry:
    found = study.level(method, over)
    if math.isnan(found.value):
        return missing()
    return Entry(score(found.value), found.value, found.ends, note=found.note)


def _gain(study: Study, method: Method, over: str, tasks: trainings.Tasks = "fixed") -> Entry:
    if method == study.baseline:
        return word("")
    gain = study.gain(method, over, tasks)
    if gain is None or math.isnan(gain.value):
        return missing()
    p = "" if math.isnan(gain.p) else f"p = {gain.p:.2g}, corrected"
    note = "; ".join(filter(None, (p, gain.note)))
    text = difference(gain.value, gain.ends, significant=gain.significant)
    return Entry(text, gain.value, gain.ends, note=note)


def _rank(study: Study, method: Method) -> Entry:
    if not method.seeds:
        return word("")
    rank, among = study.rank(method)
    return Entry(f"{rank.value:.0f} [{rank.low:.0f}, {rank.high:.0f}] of {among}", rank.value)


def families(study: Study) -> Table:
    """Return the difference from the backbone by family, or the scores without a backbone."""
    rows = [m for m in [*study.ordered, *study.beside] if m != study.baseline]
    show = _level if study.baseline is None else _gain
    columns = [
        ("method", [word(study.names[m]) for m in rows]),
        ("budget", [measure(m.budget) for m in rows]),
    ]

    def column(family: str) -> tuple[str, list[Entry]]:
        return family, [show(study, m, family) for m in rows]

    columns.extend(map(column, study.c.by_family))
    about = "Mean of each family over trainings x 100, with 95 % intervals"
    if study.baseline is not None:
        base = ", ".join(
            f"{family} {score(study.level(study.baseline, family).value)}"
            for family in study.c.by_family
        )
        about += f", minus {study.baseline.name} ({base}); *: significant"
    shown = columns if len(study.c.by_family) > 1 else []
    return Table.of_columns("families", "By family", shown, words=WORDS, about=f"{about}.")


def wordings(study: Study) -> Table:
    """Return what the wording of an instruction moves, a row per task and method."""
    found = study.wordings
    each = [100 * means for means in found.means]
    trained = [pd.Series(means).std() for means in found.trainings]  # unknown for one
    columns = [
        ("task", list(map(word, found.task))),
        ("method", [word(study.names[m]) for m in found.method]),
        ("budget", [measure(m.budget) for m in found.method]),
        ("its own", [measure(means[0], digits=1) for means in each]),
        ("mean", [measure(means.mean(), digits=1) for means in each]),
        ("lowest", [measure(means.min(), digits=1) for means in each]),
        ("highest", [measure(means.max(), digits=1) for means in each]),
        ("std over wordings", [measure(means.std(ddof=1), digits=1) for means in each]),
        ("std over trainings", [measure(std, scale=100, digits=1) for std in trained]),
    ]
    about = (
        "Scores x 100 under several wordings of a task's instruction, each the mean over trainings:"
        " under the task's own, and over all. Methods that ignore instructions are left out."
    )
    title = "What another wording moves"
    shown = columns if len(found) else []
    return Table.of_columns("wordings", title, shown, words=WORDS, about=about)


def cost(study: Study) -> Table:
    """Return what a training of each method takes at each budget, the mean over trainings."""
    rows = study.ordered
    cards = chain(*map(study.cards, rows))
    devices = sorted({str(card.get("device") or "unknown") for card in cards})
    columns = [
        ("method", [word(study.names[m]) for m in rows]),
        ("budget", [measure(m.budget) for m in rows]),
        ("trained tokens", [measure(study.cost(m, "trained_tokens")) for m in rows]),
        ("inference tokens", [measure(study.cost(m, "inference_tokens")) for m in rows]),
        ("PFLOP", [measure(study.cost(m, "flops"), scale=PFLOP, digits=3) for m in rows]),
        ("seconds", [measure(study.cost(m, "seconds")) for m in rows]),
    ]
    about = (
        "Of one training with all of its stages, the mean over those whose cards have it. FLOPs "
        "are of everything that it runs, generators and teachers included, estimated from weights "
        f"and tokens (adapters/_training/cost.py). Seconds on {' and '.join(devices)}, which may "
        "have had other work."
    )
    return Table.of_columns("cost", "What a training costs", columns, words=WORDS, about=about)


def each_training(study: Study) -> Table:
    """Return every single training with its scores."""
    every = list(study.labels())
    labels = [label for _, label in every]
    cards = list(chain(*map(study.cards, study.methods)))
    means = study.c.family_means.T.reindex(labels)
    columns = [
        ("encoder", [word(label) for label in labels]),
        ("method", [word(study.names[m]) for m, _ in every]),
        ("budget", [measure(card["budget"]) for card in cards]),
        ("seed", [measure(card["seed"]) for card in cards]),
        *((family, list(map(_score, means[family]))) for family in means),
        ("trained tokens", [measure(card.get("trained_tokens")) for card in cards]),
        ("PFLOP", [measure(card.get("flops"), scale=PFLOP, digits=3) for card in cards]),
        ("seconds", [measure(spent(card, "seconds")) for card in cards]),
    ]
    about = "Mean of each family x 100."
    return Table.of_columns("trainings", "Every training", columns, words=WORDS, about=about)


def _score(value: float) -> Entry:
    return Entry(score(value), float(value))


def tried(study: Study) -> Table:
    """Return the settings that were tried, each with its score on the tasks for development."""
    name, title = "tried", "Settings that were tried"
    if study.tried is None:
        return Table(name, title, (), ())
    other = Study(study.tried)
    chosen = {(m.name, _recipe(study, m)) for m in study.methods}
    rows = sorted(
        other.methods, key=lambda m: (m.name, m.budget, -other.level(m, other.mean).value)
    )
    marks = [(m.name, _recipe(other, m)) in chosen for m in rows]
    tasks = ", ".join(other.c.common)
    columns = [
        ("method", [word(m.name) for m in rows]),
        ("what is changed", [Entry(changes(m, rows) or "nothing") for m in rows]),
        ("budget", [measure(m.budget) for m in rows]),
        ("trainings", [measure(len(m.seeds)) for m in rows]),
        (
            "development",
            [_best_marked(other, m, mark) for m, mark in zip(rows, marks, strict=True)],
        ),
        ("used here", [Entry("yes" if mark else "") for mark in marks]),
    ]
    about = f"{other.mean.capitalize()} x 100 on {tasks}. Bold: the settings that this study uses."
    return Table.of_columns(name, title, columns, words=WORDS | {"used here"}, about=about)


def _recipe(study: Study, method: Method) -> str:
    recipe = study.cards(method)[0]["recipe"]
    return str(sorted((name, value) for name, value in recipe.items()))


def _best_marked(study: Study, method: Method, mark: bool) -> Entry:
    entry = _level(study, method, study.mean)
    return replace(entry, mark="best" if mark else "")


def _notes(study: Study) -> Table:
    """Return the notes of the report, the rules of a study first."""
    usual = notes.notes(study.c)
    skipped = ("95 % intervals:", "Significant:")
    rest = [row for row in usual.rows if not row[0].text.startswith(skipped)]
    own = [_INTERVALS, _BUDGETS]
    shown = {m.name for m in study.beside if not study.has_mean(m)}
    for what, names in (("Without a mean", shown), ("Left out", {*study.lacking} - shown)):
        if names:
            listed = ", ".join(sorted(names))
            own.append(f"{what}, since they lack a task that most have: {listed}.")
    for name, words in differing(study).items():
        own.append(f"Settings that differ between the budgets of {name}: {words}.")
    rows = (*((word(line),) for line in own), *rest)
    return Table("notes", "Notes", ("note",), rows, words=frozenset({"note"}))
