"""What a study says, in words."""

from collections.abc import Iterable, Mapping, Sequence

from bench.reporting.comparison import MEAN
from bench.reporting.study.grid import PFLOP, Number, Study
from bench.reporting.table import difference, score
from bench.reporting.trainings import Method


def answer(study: Study) -> list[str]:
    """Return what the study says, a few sentences from its numbers."""
    most = study.budgets[-1]
    lines = [*_gained(study, most), _best(study, most), _grown(study), _costs(study, most)]
    lines += [_trained(study), _worded(study), _taught(study), _unlike(study)]
    return [line for line in lines if line]


def _gained(study: Study, budget: int) -> Iterable[str]:
    own = study.at(budget)
    gains = {m: gain for m in own if (gain := study.gain(m, study.mean)) is not None}
    if not gains or study.baseline is None:
        return
    above = [m for m, gain in gains.items() if gain.significant and gain.value > 0]
    below = [m for m, gain in gains.items() if gain.significant and gain.value < 0]
    rest = [m for m, gain in gains.items() if not gain.significant]
    alone = [m for m in rest if gains[m].low > 0 or gains[m].high < 0]
    same = [m for m in rest if m not in alone]
    of = f"the {study.mean}" if study.mean == MEAN else study.mean
    base = score(study.level(study.baseline, study.mean).value)
    head = (
        f"After {budget:,} training tokens, {len(above) or 'none'} of "
        f"{_count(len(gains), 'method')} score significantly above the untrained backbone in {of} "
        f"x 100 ({study.baseline.name}, {base})"
    )
    yield head + (f": {_listed(study, gains, above)}." if above else ".")
    if below:
        yield f"Significantly below it: {_listed(study, gains, below)}."
    if alone:
        yield (
            "Different from it by their own intervals, but not after correction for all "
            f"comparisons: {_listed(study, gains, alone)}."
        )
    if same:
        yield f"Not significantly different from it: {_listed(study, gains, same)}."
    if elsewhere := [study.names[m] for m in own if m not in gains]:
        yield f"Not compared with it, since on another backbone: {', '.join(elsewhere)}."


def _listed(study: Study, gains: Mapping[Method, Number], shown: Sequence[Method]) -> str:
    return ", ".join(f"{study.names[m]} {difference(gains[m].value, gains[m].ends)}" for m in shown)


def _best(study: Study, budget: int) -> str:
    best, *others = study.same(budget)
    own = study.at(budget)
    beside = [m for m in own if m.place == best.place]
    head = f"{study.names[best]} has the highest mean"
    if len(beside) < len(own):
        head += f" of those on {best.backbone}"
    if len(beside) == 1:
        return ""
    if not others:
        return f"{head}, significantly above every other method."
    names = ", ".join(study.names[m] for m in others)
    return f"{head}; not significantly below it: {names}."


def _grown(study: Study) -> str:
    ends = {study.budgets[0], study.budgets[-1]}
    if len(ends) == 1:
        return ""
    parts = []
    for name, own in study.curves.items():
        if not ends.issubset(m.budget for m in own):
            continue
        first, last = (study.level(m, study.mean).value for m in (own[0], own[-1]))
        parts.append(f"{name} {difference(last - first)}")
    if not parts:
        return ""
    least, most = f"{study.budgets[0]:,}", f"{study.budgets[-1]:,}"
    return f"From {least} to {most} tokens the mean changes by {', '.join(parts)}."


def _costs(study: Study, budget: int) -> str:
    own = study.at(budget)
    spent = {m: flops for m in own if (flops := study.cost(m, "flops"))}
    if len(spent) < 2:
        return ""
    least, most = min(spent, key=spent.__getitem__), max(spent, key=spent.__getitem__)
    head = f"At {budget:,} tokens"
    if len(spent) < len(own):
        known = f"{len(spent)} of {_count(len(own), 'method')}"
        head = f"Of the {known} at {budget:,} tokens whose FLOPs are known,"
    if spent[most] < 1.05 * spent[least]:
        return f"{head} every training takes about {PFLOP * spent[most]:,.2g} PFLOP."
    return (
        f"{head} a training takes from {PFLOP * spent[least]:,.2g} PFLOP "
        f"({study.names[least]}) to {PFLOP * spent[most]:,.2g} ({study.names[most]}), with "
        "generators, teachers and everything else that it runs."
    )


def _worded(study: Study) -> str:
    """Return how far the wording of an instruction moves a score; "" under a single one."""
    found = study.wordings
    if found.empty:
        return ""
    moved = found.means.map(lambda means: means.std(ddof=1))
    most = found.loc[moved.idxmax()]
    return (
        f"Instructions are in {len(most.means)} wordings, which intervals include: of a method "
        f"that follows them another wording moves the score of a task by {score(moved.mean())} "
        f"points (standard deviation, the mean of all), at most by {score(moved.max())} "
        f"({study.names[most.method]} in {most.task})."
    )


def _taught(study: Study) -> str:
    """Return which teachers were trained before, which no budget covers; "" for none."""
    taught = {}
    for method in study.methods:
        for card in study.cards(method):
            teacher = card.get("teacher")
            if isinstance(teacher, Mapping) and (before := teacher.get("trained_tokens")):
                taught[study.names[method]] = f"{teacher['name']}, {before:,} tokens"
    each = "; ".join(f"{name} ({teacher})" for name, teacher in taught.items())
    return f"Budgets and FLOPs leave out the training of a teacher before: {each}." if each else ""


def _unlike(study: Study) -> str:
    names = ", ".join(differing(study))
    return f"Settings differ between the budgets of {names}; see the notes." if names else ""


def differing(study: Study) -> dict[str, str]:
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
    counts = [len(m.seeds) for m in study.methods]
    least, most = min(counts), max(counts)
    if most == 1:
        return "Each was trained once: intervals do not cover the variation between trainings."
    head = "Intervals cover test examples, repeats, and"
    if least == most:
        return f"{head} the {most} trainings of each method."
    if least > 1:
        return f"{head} {least} to {most} trainings."
    return (
        f"{head} up to {most} trainings; trained once, so without the variation between "
        f"trainings: {trained_once(study)}."
    )


def trained_once(study: Study) -> str:
    """Return which methods were trained once, by budget; "" for none."""
    return "; ".join(filter(None, (_once(study, budget) for budget in study.budgets)))


def _once(study: Study, budget: int) -> str:
    """Return which methods of a budget were trained once; "" for none."""
    own = study.at(budget)
    once = [study.names[m] for m in own if len(m.seeds) == 1]
    names = "all" if len(once) == len(own) > 1 else ", ".join(once)
    return f"{names} at {budget:,} tokens" if once else ""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
