"""A study of training budgets: methods over their trainings, at each budget, and what they cost.

Its rows are methods at a budget, not encoders: encoders that differ only in the seed of their
training are one row (``bench.reporting.trainings``). Means are over the tasks of these results.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import stats
from bench.checkpoints import training_seconds
from bench.errors import UsageError
from bench.reporting import context, notes, trainings, write
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.table import MISSING, Entry, Table, difference, measure, score, word
from bench.reporting.trainings import Method, by_place, place_of

WORDS = frozenset({"method", "encoder", "what is changed", "note", "backbone"})
"""Headings of text columns in the tables of a study."""

PFLOP = 1e-15
"""Scale of FLOPs in tables."""

_INTERVALS = (
    "Intervals of methods have a variance component for the trainings (their seeds), one for test "
    "examples and one for repeats, the first with a quantile of Student's t of its own; those of a "
    "method trained once lack the first."
)
_BUDGETS = (
    "Budgets are tokens that pass through the network being trained. The rest of a recipe, such as "
    "a generator, is in its FLOPs."
)


@dataclass(frozen=True)
class Number:
    """A mean over trainings, a difference or a rank, with what is known of it; NaN where unknown.

    Attributes:
        value: The number.
        low: Lower end of its 95 % interval.
        high: Its upper end.
        p: Corrected p-value of a difference.
        note: What the interval does not cover; "" for nothing.
    """

    value: float
    low: float
    high: float
    p: float = math.nan
    note: str = ""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The ends of the interval; None where it is not known."""
        return None if math.isnan(self.low) else (self.low, self.high)

    @property
    def significant(self) -> bool:
        """Whether it is a significant difference."""
        return self.p < 1 - stats.LEVEL


@dataclass(frozen=True)
class Study:
    """A grid of trainings, and the settings that were tried before it.

    Attributes:
        c: Results of the trained encoders, of the untrained backbone, and of references.
        tried: Results of trainings with other settings, on tasks for development; None without.
    """

    c: Comparison
    tried: Comparison | None = None

    @cached_property
    def mean(self) -> str:
        """What the headline is: the mean of families, or the only family there is."""
        families = list(self.c.by_family)
        return families[0] if len(families) == 1 else MEAN

    @cached_property
    def families(self) -> list[str]:
        """The mean and, where there are several, the families behind it."""
        return list(dict.fromkeys([self.mean, *self.c.by_family]))

    @cached_property
    def methods(self) -> list[Method]:
        """Methods with a training card and a score: the smallest budget first, the best of each."""
        scored = [m for m in trainings.methods(self.c) if m.seeds and self._has_mean(m)]
        return sorted(scored, key=lambda m: m.budget or 0)

    @cached_property
    def beside(self) -> list[Method]:
        """Encoders without a training: the backbone and references, the best first."""
        without = [m for m in trainings.methods(self.c) if not m.seeds]
        return [m for m in without if self._has_mean(m)]

    @cached_property
    def lacking(self) -> list[str]:
        """Encoders that lack a task that counts, and so are not shown."""
        return list(self.c.encoders.index[self.c.encoders["mean"].isna()])

    def _has_mean(self, method: Method) -> bool:
        return bool(self.c.encoders["mean"][list(method.encoders)].notna().all())

    @cached_property
    def baseline(self) -> Method | None:
        """The untrained backbone."""
        return next((m for m in self.beside if self.c.baseline in m.encoders), None)

    @cached_property
    def budgets(self) -> list[int]:
        """Training tokens, rising."""
        return sorted({method.budget for method in self.methods if method.budget})

    def at(self, budget: int) -> list[Method]:
        """Return the methods at a budget, the best mean first."""
        own = [method for method in self.methods if method.budget == budget]
        return sorted(own, key=lambda m: -self.level(m, self.mean).value)

    @cached_property
    def ordered(self) -> list[Method]:
        """The methods, the largest budget first, the best mean of each first."""
        return list(chain(*map(self.at, reversed(self.budgets))))

    @cached_property
    def curves(self) -> dict[str, list[Method]]:
        """The methods by their name, with one entry per budget: a learning curve each.

        Where several settings of one method were trained at one budget, the name has those that
        most others do not have. Settings may differ between budgets, such as how much a generator
        writes.
        """
        frame = pd.DataFrame([m.key for m in self.methods], columns=trainings.KEY)
        per_budget = frame.groupby(["method", "backbone", "budget"]).settings.nunique()
        several = per_budget.groupby("method").max() > 1
        backbones = frame.groupby("method").backbone.nunique() > 1
        found: dict[str, list[Method]] = {}
        for method in self.methods:
            parts = [method.name]
            parts += [_changes(method, self.methods)] * bool(several[method.name])
            parts += [f"on {method.backbone}"] * bool(backbones[method.name])
            found.setdefault(" ".join(filter(None, parts)), []).append(method)
        last = {name: -self.level(own[-1], self.mean).value for name, own in found.items()}
        return {name: found[name] for name in sorted(found, key=last.__getitem__)}

    @cached_property
    def names(self) -> dict[Method, str]:
        """The name of the curve that each method is on."""
        return {method: name for name, own in self.curves.items() for method in own}

    # ---- numbers

    @cached_property
    def _levels(self) -> pd.DataFrame:
        frame = trainings.by_method(self.c, tasks="fixed")
        return _indexed(frame)

    @cached_property
    def _gains(self) -> dict[trainings.Tasks, pd.DataFrame]:
        if self.baseline is None:
            return {}
        name = self.baseline.name
        kinds: tuple[trainings.Tasks, ...] = ("fixed", "resampled")
        return {
            tasks: _indexed(trainings.differences(self.c, name, tasks=tasks)) for tasks in kinds
        }

    @cached_property
    def _ranks(self) -> pd.DataFrame:
        return by_place(trainings.ranks(self.c, task=self.mean, tasks="fixed"))

    @cached_property
    def _pairs(self) -> dict[tuple[Any, ...], float]:
        """Corrected p-values by budget, backbone and the names and settings of two methods."""
        pairs = trainings.differences(self.c, tasks="fixed")
        found = {}
        for row in pairs[pairs.task == self.mean].itertuples():
            two = (row.method, row.settings), (row.reference, row.reference_settings)
            found[row.budget, row.backbone, frozenset(two)] = row.p
        return found

    def level(self, method: Method, over: str) -> Number:
        """Return the mean of a family, or of all, over the trainings of a method."""
        row = self._levels.loc[(*place_of(method), over)]
        return Number(row["mean"], row.low, row.high, note=row.note)

    def gain(self, method: Method, over: str, tasks: trainings.Tasks = "fixed") -> Number | None:
        """Return the difference from the backbone; None for itself and where there is none."""
        found = self._gains.get(tasks)
        place = (*place_of(method), over)
        if found is None or place not in found.index:
            return None
        row = found.loc[place]
        return Number(row.difference, row.low, row.high, row.p, row.note)

    def rank(self, method: Method) -> tuple[Number, int]:
        """Return the rank at the method's budget, and how many are ranked."""
        row = self._ranks.loc[place_of(method)]
        return Number(row["rank"], row.low, row.high), int(row.methods)

    def same(self, budget: int) -> list[Method]:
        """Return the best method at a budget, and those not significantly different from it."""
        best, *others = self.at(budget)
        found = [best]
        for other in others:
            two = frozenset({(best.name, best.settings), (other.name, other.settings)})
            p = self._pairs.get((budget, best.backbone, two))
            if p is not None and not p < 1 - stats.LEVEL:
                found.append(other)
        return found

    # ---- cost

    def cards(self, method: Method) -> list[Mapping[str, Any]]:
        """Return the cards of a method's trainings."""
        return [self.c.encoders.at[label, "training"] for label in method.encoders]

    def cost(self, method: Method, what: str) -> float | None:
        """Return a number of the cards, the mean over trainings; None where one is unknown.

        Args:
            method: The method.
            what: "trained_tokens", "inference_tokens", "flops", or "seconds" of all stages.
        """
        each = [_spent(card, what) for card in self.cards(method)]
        return None if None in each else float(np.mean([x for x in each if x is not None]))


def _changes(method: Method, every: Sequence[Method]) -> str:
    """Return the settings of a method that most others of its name and budget do not have."""
    place = (method.name, method.budget)
    alike = [m.settings.split(", ") for m in every if (m.name, m.budget) == place]
    counts = Counter(setting for settings in alike for setting in settings)
    own = method.settings.split(", ")
    return ", ".join(setting for setting in own if 2 * counts[setting] <= len(alike))


def _spent(card: Mapping[str, Any], what: str) -> float | None:
    return (training_seconds(card) or None) if what == "seconds" else card.get(what)


def _indexed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows of families and means by method and family."""
    return by_place(frame[frame.over != "task"]).set_index("task", append=True)


# ---- the answer in words


def answer(study: Study) -> list[str]:
    """Return what the study says, a few sentences from its numbers."""
    most = study.budgets[-1]
    lines = [*_gained(study, most), _best(study, most), _grown(study), _costs(study, most)]
    return [line for line in [*lines, _trained(study), _unlike(study)] if line]


def _gained(study: Study, budget: int) -> Iterable[str]:
    own = study.at(budget)
    gains = {m: gain for m in own if (gain := study.gain(m, study.mean)) is not None}
    if not gains or study.baseline is None:
        return
    above = [m for m, gain in gains.items() if gain.significant and gain.value > 0]
    below = [m for m, gain in gains.items() if gain.significant and gain.value < 0]
    rest = [m for m, gain in gains.items() if not gain.significant]
    of = f"the {study.mean}" if study.mean == MEAN else study.mean
    base = score(study.level(study.baseline, study.mean).value)
    head = (
        f"After {budget:,} training tokens, {len(above) or 'none'} of "
        f"{_count(len(own), 'method')} score significantly above the untrained backbone in {of} "
        f"x 100 ({study.baseline.name}, {base})"
    )
    yield head + (f": {_listed(study, gains, above)}." if above else ".")
    if below:
        yield f"Significantly below it: {_listed(study, gains, below)}."
    if rest:
        yield f"Not significantly different from it: {_listed(study, gains, rest)}."


def _listed(study: Study, gains: Mapping[Method, Number], shown: Sequence[Method]) -> str:
    return ", ".join(f"{study.names[m]} {difference(gains[m].value, gains[m].ends)}" for m in shown)


def _best(study: Study, budget: int) -> str:
    best, *others = study.same(budget)
    head = f"{study.names[best]} has the highest mean"
    if len(study.at(budget)) == 1:
        return ""
    if not others:
        return f"{head}, significantly above every other method."
    names = ", ".join(study.names[m] for m in others)
    return f"{head}; not significantly below it: {names}."


def _grown(study: Study) -> str:
    ends = {study.budgets[0], study.budgets[-1]}
    long = {n: own for n, own in study.curves.items() if {m.budget for m in own} >= ends}
    if not long or len(ends) == 1:
        return ""
    parts = []
    for name, own in long.items():
        first, last = (study.level(m, study.mean).value for m in (own[0], own[-1]))
        parts.append(f"{name} {difference(last - first)}")
    least, most = f"{study.budgets[0]:,}", f"{study.budgets[-1]:,}"
    return f"From {least} to {most} tokens the mean changes by {', '.join(parts)}."


def _costs(study: Study, budget: int) -> str:
    spent = {m: flops for m in study.at(budget) if (flops := study.cost(m, "flops"))}
    if len(spent) < 2:
        return ""
    least, most = min(spent, key=spent.__getitem__), max(spent, key=spent.__getitem__)
    if spent[most] < 1.05 * spent[least]:
        return f"At {budget:,} tokens every training takes about {PFLOP * spent[most]:,.2g} PFLOP."
    return (
        f"At {budget:,} tokens a training takes from {PFLOP * spent[least]:,.2g} PFLOP "
        f"({study.names[least]}) to {PFLOP * spent[most]:,.2g} ({study.names[most]}), with "
        "generators, teachers and everything else that it runs."
    )


def _unlike(study: Study) -> str:
    names = ", ".join(_differing(study))
    return f"Settings differ between the budgets of {names}; see the notes." if names else ""


def _differing(study: Study) -> dict[str, str]:
    """Return the settings that a learning curve changes between its budgets, by its name."""
    told = {}
    for name, own in study.curves.items():
        each = {m.budget: set(filter(None, m.settings.split(", "))) for m in own}
        common = set.intersection(*each.values())
        rest = {budget: sorted(found - common) for budget, found in each.items()}
        words = [f"{', '.join(found)} at {budget:,}" for budget, found in rest.items() if found]
        if words:
            told[name] = "; ".join(words)
    return told


def _trained(study: Study) -> str:
    counts = {m: len(m.seeds) for m in study.methods}
    once = list(dict.fromkeys(study.names[m] for m, n in counts.items() if n == 1))
    least, most = min(counts.values()), max(counts.values())
    if most == 1:
        return "Each was trained once: intervals do not cover the luck of a training."
    line = f"Intervals cover test examples, repeats, and {least} to {most} trainings"
    if least == most:
        line = f"Intervals cover test examples, repeats, and the {most} trainings of each method"
    if once:
        line = f"Intervals cover test examples, repeats, and up to {most} trainings"
        line += f"; trained once, so without the luck of a training: {', '.join(once)}"
    return f"{line}."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


# ---- tables


def tables(study: Study) -> tuple[Table, ...]:
    """Return the tables that have rows, the answer first."""
    made = [
        summary(study),
        families(study),
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
        ("method", [word(study.names.get(m, m.name)) for m in rows]),
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
        return Entry(MISSING, mark="missing")
    return Entry(score(found.value), found.value, found.ends, note=found.note)


def _gain(study: Study, method: Method, over: str, tasks: trainings.Tasks = "fixed") -> Entry:
    if method == study.baseline:
        return word("")
    gain = study.gain(method, over, tasks)
    if gain is None or math.isnan(gain.value):
        return Entry(MISSING, mark="missing")
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
    rows = study.ordered if study.baseline else [*study.ordered, *study.beside]
    show = _level if study.baseline is None else _gain
    columns = [
        ("method", [word(study.names.get(m, m.name)) for m in rows]),
        ("budget", [measure(m.budget) for m in rows]),
        *((family, [show(study, m, family) for m in rows]) for family in study.c.by_family),
    ]
    about = "Mean of each family over trainings x 100, with 95 % intervals"
    if study.baseline is not None:
        base = ", ".join(
            f"{family} {score(study.level(study.baseline, family).value)}"
            for family in study.c.by_family
        )
        about += f", minus {study.baseline.name} ({base}); *: significant"
    shown = columns if len(study.c.by_family) > 1 else []
    return Table.of_columns("families", "By family", shown, words=WORDS, about=f"{about}.")


def cost(study: Study) -> Table:
    """Return what a training of each method takes at each budget, the mean over trainings."""
    rows = study.ordered
    devices = sorted(
        {str(card.get("device") or "unknown") for m in rows for card in study.cards(m)}
    )
    columns = [
        ("method", [word(study.names[m]) for m in rows]),
        ("budget", [measure(m.budget) for m in rows]),
        ("trained tokens", [measure(study.cost(m, "trained_tokens")) for m in rows]),
        ("inference tokens", [measure(study.cost(m, "inference_tokens")) for m in rows]),
        ("PFLOP", [measure(study.cost(m, "flops"), scale=PFLOP, digits=3) for m in rows]),
        ("seconds", [measure(study.cost(m, "seconds")) for m in rows]),
    ]
    about = (
        "Of one training with all of its stages, the mean over trainings. FLOPs are of everything "
        "that it runs, generators and teachers included, estimated from weights and tokens "
        f"(adapters/_training/cost.py). Seconds on {' and '.join(devices)}, which may have had "
        "other work."
    )
    return Table.of_columns("cost", "What a training costs", columns, words=WORDS, about=about)


def each_training(study: Study) -> Table:
    """Return every single training with its scores."""
    labels = [label for m in study.methods for label in m.encoders]
    cards = [study.c.encoders.at[label, "training"] for label in labels]
    names = [study.names[m] for m in study.methods for _ in m.encoders]
    means = study.c.family_means.T.reindex(labels)
    columns = [
        ("encoder", [word(label) for label in labels]),
        ("method", [word(name) for name in names]),
        ("budget", [measure(card["budget"]) for card in cards]),
        ("seed", [measure(card["seed"]) for card in cards]),
        *((family, [Entry(score(v), float(v)) for v in means[family]]) for family in means),
        ("trained tokens", [measure(card.get("trained_tokens")) for card in cards]),
        ("PFLOP", [measure(card.get("flops"), scale=PFLOP, digits=3) for card in cards]),
        ("seconds", [measure(_spent(card, "seconds")) for card in cards]),
    ]
    about = "Mean of each family x 100."
    return Table.of_columns("trainings", "Every training", columns, words=WORDS, about=about)


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
        ("what is changed", [Entry(_changes(m, rows) or "nothing") for m in rows]),
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
    return Entry(entry.text, entry.value, entry.interval, "best" if mark else "", entry.note)


def _notes(study: Study) -> Table:
    """Return the notes of the report, the rules of a study first."""
    usual = notes.notes(study.c)
    skipped = ("95 % intervals:", "Significant:")
    rest = [row for row in usual.rows if not row[0].text.startswith(skipped)]
    own = [_INTERVALS, _BUDGETS]
    if lacking := study.lacking:
        own.append(f"Left out, since they lack a task that most have: {', '.join(lacking)}.")
    for name, changes in _differing(study).items():
        own.append(f"Settings that differ between the budgets of {name}: {changes}.")
    rows = (*((word(line),) for line in own), *rest)
    return Table("notes", "Notes", ("note",), rows, words=frozenset({"note"}))


def build(study: Study, out: Path) -> list[Path]:
    """Write the study, and return the paths.

    Args:
        study: What to write.
        out: Folder for ``index.html``, ``study.md``, a CSV file per table, and the figures.

    Raises:
        UsageError: There is no training among the results.
        ResultError: The folder cannot be written.
    """
    from bench.reporting import figures, formats, html
    from bench.reporting.figures import study as drawn

    if not study.methods:
        raise UsageError(
            "expected results of trained encoders on every task that most have, got none: run "
            "`bench run --model trained:FOLDER,backbone-mean` on the --out of `bench train`"
        )
    write(out, {})  # fails before the work, not after it
    made, drawings = tables(study), drawn.draw(study)
    shown = [each for each in drawings if each.figure is not None]
    pictures = {
        table.name: [f"{each.name}.png" for each in figures.beside(table.name, made, shown)]
        for table in made
    }
    title, words = "A study of training budgets", answer(study)
    methods = [*study.curves, *(m.name for m in study.beside)]
    files: dict[str, bytes | str] = {
        "index.html": html.page(
            study.c, made, drawings, title=title, answer=words, methods=methods
        ),
        "study.md": formats.results_md(made, pictures, title=title, opening=words),
    }
    files |= {f"{table.name}.csv": formats.csv(table) for table in made}
    for each in shown:
        files |= {f"{each.name}.{kind}": each.rendered(kind) for kind in figures.KINDS}
    return write(out, files)
