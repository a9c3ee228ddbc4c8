"""results.md: the tables with the notes that a reader of them needs."""

import json
import shlex

from bench.report.cells import Cells, placeless
from bench.report.tables import MISSING, by_task, cost, data, markdown, overview


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


def notes(cells: Cells) -> list[str]:
    """Return what a reader has to know about the tables: what is missing, mixed, or left out of means."""
    results = [result for found in cells.results.values() for result in found]
    whole = len(cells.encoders) * len(cells.columns)
    found = []
    if missing := whole - len(cells.results):
        found.append(f"{MISSING}: no result, {missing} of {whole} cells; `bench run` says of each why it was skipped or failed.")
    if rare := [cells.title(column) for column in cells.columns if column not in cells.common]:
        found.append(f"Left out of means, since at most half of the encoders have them: {', '.join(rare)}.")
    found.append("± is the sample standard deviation over repeats (seeds, splits, draws); a single measurement has none.")
    found.append("A family's ± is that of its mean: tasks count as independent, those measured once as exact.")
    found += [f"Backbone of {', '.join(labels)}: {backbone}." for backbone, labels in _backbones(cells).items()]
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
    """Return how the results were made: commands, code, versions, machine and time; no place on a disk."""
    sources = [result.provenance for found in cells.results.values() for result in found]
    commands = {shlex.join(placeless(part) for part in shlex.split(s["command"])) for s in sources if s.get("command")}
    lines = [f"`{command}`" for command in sorted(commands)]
    commits = sorted({s["commit"] for s in sources if s.get("commit")})
    lines += [f"code: commit {' and '.join(commits)}"] if commits else []
    machines = sorted({json.dumps(s.get("machine", {}), sort_keys=True) for s in sources})
    lines += [", ".join(f"{k} {v}" for k, v in json.loads(machine).items()) for machine in machines if machine != "{}"]
    versions = sorted({json.dumps(s.get("versions", {}), sort_keys=True) for s in sources})
    lines += [", ".join(f"{k} {v}" for k, v in json.loads(version).items()) for version in versions if version != "{}"]
    days = sorted({s["time"][:10] for s in sources if s.get("time")})
    return lines + ([f"run {' to '.join(dict.fromkeys((days[0], days[-1])))}"] if days else [])


def _backbones(cells: Cells) -> dict[str, list[str]]:
    """Return the labels of the encoders on each backbone, sorted."""
    pairs = sorted((cells.of_encoder(label)[0].card.get("backbone") or "", label) for label in cells.encoders)
    return {backbone: [label for other, label in pairs if other == backbone] for backbone, _ in pairs if backbone}
