"""The files of ``bench clusters``: JSON, Markdown, and a table of the texts."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, count
from pathlib import Path
from typing import Any

from bench.clusters.figure import picture
from bench.clusters.grouping import Cluster, Grouping, agreement
from bench.clusters.texts import Texts
from bench.encoder import Encoder, card, fingerprint, settings
from bench.files import (
    escape_formula,
    escape_markdown,
    hide_home,
    quoting_for,
    write_atomic,
)

EXAMPLES = 3
"""Number of texts that are shown for each cluster."""

SOURCES = {"answers": "answers", "head": "language-model head", "texts": "texts"}
"""Names of the sources of key words."""


def rows(grouping: Grouping, texts: Texts) -> Iterator[dict[str, Any]]:
    """Yield a plain JSON object for each cluster: number, size, key words, examples."""
    for number, cluster in enumerate(grouping.clusters, 1):
        shown = examples(cluster, grouping, texts)
        yield {
            "instruction": grouping.instruction,
            "cluster": number,
            "size": len(cluster.members),
            "words": {source: list(words) for source, words in cluster.words.items()},
            "examples": [{"text": text, "answer": answer} for text, answer in shown],
        }


def examples(cluster: Cluster, grouping: Grouping, texts: Texts) -> list[tuple[str, str | None]]:
    """Return the texts nearest to the centre, each with its answer, or None without answers."""
    first = dict.fromkeys(texts.texts[i] for i in cluster.members)
    answers = dict(zip(texts.texts, grouping.answers, strict=False))
    return [(text, answers.get(text)) for text in list(first)[:EXAMPLES]]


def about(name: str, encoder: Encoder, texts: Texts, *, seed: int) -> dict[str, Any]:
    """Return the origin of the groupings: encoder, texts, seed."""
    model_card = card(encoder)
    made_with = {
        "name": name,
        "settings": settings(encoder),
        "fingerprint": fingerprint(encoder),
        "backbone": model_card.backbone,
        "trained": model_card.trained,
    }
    made_from = {
        "source": texts.source,
        "column": texts.column,
        "read": len(texts.texts),
        "of": texts.whole,
        "blank": texts.blank,
    }
    return dict(hide_home({"encoder": made_with, "texts": made_from, "seed": seed}))


def default_folder(texts: Texts) -> Path:
    """Return clusters/NAME, by the name of the file without suffixes or of the data set.

    A number is added where that folder has clusters of other texts.
    """
    name = Path(texts.source).name.partition(".")[0].replace(":", "-") or "texts"
    numbered = (Path("clusters", f"{name}-{n}" if n > 1 else name) for n in count(1))
    return next(folder for folder in numbered if not _is_of_others(folder / "clusters.json", texts))


def _is_of_others(path: Path, texts: Texts) -> bool:
    """Say whether a clusters.json was made from other texts, or by another program."""
    try:
        kept = json.loads(path.read_bytes())["texts"]
        source = [kept["source"], kept["column"]]
    except OSError:
        return False
    except (ValueError, LookupError, TypeError):
        return True
    return bool(hide_home(source) != hide_home([texts.source, texts.column]))


def write(
    folder: Path, groupings: Sequence[Grouping], texts: Texts, made_from: Mapping[str, Any]
) -> list[Path]:
    """Write the JSON, Markdown, CSV and figure of groupings, and return their paths.

    Raises:
        OSError: A file cannot be written.
    """
    drawing = picture(groupings)
    files: dict[str, bytes | str] = {
        "clusters.md": page(groupings, texts, made_from),
        "clusters.json": (
            json.dumps(record(groupings, texts, made_from), ensure_ascii=False, indent=1) + "\n"
        ),
        "clusters.png": drawing.png,
        "clusters.svg": drawing.svg,
        "texts.csv": table(groupings, texts),
    }
    for name, data in files.items():
        write_atomic(folder / name, data)
    return [folder / name for name in files]


def record(
    groupings: Sequence[Grouping], texts: Texts, made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything as one plain JSON object."""
    agreed = [
        {"groupings": [a + 1, b + 1], "adjusted_mutual_information": round(value, 4)}
        for a, b, value in agreements(groupings)
    ]
    recorded = [_record_grouping(grouping, texts) for grouping in groupings]
    return {"schema": 1, **made_from, "groupings": recorded, "agreements": agreed}


def _record_grouping(grouping: Grouping, texts: Texts) -> dict[str, Any]:
    answers = grouping.answers or (None,) * len(texts.texts)
    columns = texts.texts, grouping.assigned, answers, grouping.places
    recorded = []
    for text, number, answer, (x, y) in zip(*columns, strict=True):
        place = [round(float(x), 3), round(float(y), 3)]
        recorded.append(
            {"text": text, "cluster": int(number) + 1, "answer": answer, "place": place}
        )
    return {
        "instruction": grouping.instruction,
        "silhouettes": {str(k): round(value, 4) for k, value in grouping.silhouettes.items()},
        "clusters": list(rows(grouping, texts)),
        "texts": recorded,
    }


def agreements(groupings: Sequence[Grouping]) -> list[tuple[int, int, float]]:
    """Return the agreement of each pair of groupings, with their indices."""
    pairs = combinations(range(len(groupings)), 2)
    return [(a, b, agreement(groupings[a], groupings[b])) for a, b in pairs]


def page(groupings: Sequence[Grouping], texts: Texts, made_from: Mapping[str, Any]) -> str:
    """Return clusters.md: the map, and a section with a table of clusters for each grouping."""
    described = f"{describe_texts(texts)}, grouped by {describe_encoder(made_from['encoder'])}."
    blocks = ["# Clusters", escape_markdown(described), "![map of the texts](clusters.png)"]
    for a, b, value in agreements(groupings):
        blocks.append(
            f"Groupings {a + 1} and {b + 1} agree with an adjusted mutual information of "
            f"{value:.2f} (1: equal, 0: by chance)."
        )
    for number, grouping in enumerate(groupings, 1):
        blocks.append(f"## {number}. {_plain(grouping.instruction) or 'No instruction'}")
        if grouping.silhouettes:
            tried = ", ".join(f"{k}: {value:.3f}" for k, value in grouping.silhouettes.items())
            best = len(grouping.clusters)
            blocks.append(f"{best} clusters have the best mean silhouette ({tried}).")
        blocks.append("\n".join(_table(grouping, texts)))
    return "\n\n".join(blocks) + "\n"


def describe_texts(texts: Texts) -> str:
    """Return the number of texts and their source in words."""
    described = f"{texts.whole:,} text{'s' * (texts.whole != 1)}"
    if len(texts.texts) < texts.whole:
        described = f"{len(texts.texts):,} of {described} drawn at random"
    described += f" of {hide_home(texts.source)}"
    if texts.column:
        described += f", column {texts.column}"
    if texts.blank:
        described += f" ({texts.blank:,} blank one{'s' * (texts.blank != 1)} left out)"
    return described


def describe_encoder(encoder: Mapping[str, Any]) -> str:
    """Return an encoder's name, with the backbone if it has not been trained on it."""
    untrained = "" if encoder["trained"] else f" (untrained, on {encoder['backbone']})"
    return f"{encoder['name']}{untrained}"


def _table(grouping: Grouping, texts: Texts) -> Iterator[str]:
    sources = list(grouping.clusters[0].words)
    words = [f"key words of {SOURCES[source]}" for source in sources]
    yield _table_row(["", "texts", *words, "nearest to the centre"])
    yield "|---:|---:|" + "---|" * (len(words) + 1)
    for row in rows(grouping, texts):
        shown = []
        for example in row["examples"]:
            answer = f" → *{_plain(example['answer'])}*" if example["answer"] else ""
            shown.append(_plain(example["text"]) + answer)
        words = [_plain(", ".join(row["words"][source])) for source in sources]
        yield _table_row([str(row["cluster"]), str(row["size"]), *words, "<br>".join(shown)])


def _table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Return a text for a cell of a table: on one line, shortened and escaped."""
    return escape_markdown(shorten(text, 120))


def shorten(text: str, width: int) -> str:
    """Return a text on one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def table(groupings: Sequence[Grouping], texts: Texts) -> str:
    """Return texts.csv: each text with its cluster and answer under every instruction."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=quoting_for(texts.texts), lineterminator="\n")
    answered = [(n, grouping) for n, grouping in enumerate(groupings, 1) if grouping.answers]
    numbers = [f"cluster {n}" for n in range(1, len(groupings) + 1)]
    writer.writerow(["text", *numbers, *(f"answer {n}" for n, _ in answered)])
    assigned = [grouping.assigned + 1 for grouping in groupings]
    for i, text in enumerate(texts.texts):
        places = [int(found[i]) for found in assigned]
        answers = [grouping.answers[i] for _, grouping in answered]
        writer.writerow(map(escape_formula, [text, *places, *answers]))
    return out.getvalue()
