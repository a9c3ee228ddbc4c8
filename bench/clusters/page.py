"""What is written of groupings: JSON for programs, Markdown and a table of the texts for people."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.clusters.figure import picture
from bench.clusters.grouping import Cluster, Grouping, agreement
from bench.clusters.texts import Texts
from bench.encoder import Encoder, card, fingerprint, settings
from bench.files import escape_formula, escape_markdown, hide_home, write_atomic

EXAMPLES = 3
"""Texts nearest to the centre that are shown of a cluster."""

SOURCES = {"answers": "answers", "head": "language-model head", "texts": "texts"}
"""What key words are from, in words."""


def rows(grouping: Grouping, texts: Texts) -> Iterator[dict[str, Any]]:
    """Yield a plain JSON object for each cluster: instruction, number, size, key words, examples with their answers."""
    for number, cluster in enumerate(grouping.clusters, 1):
        yield {
            "instruction": grouping.instruction,
            "cluster": number,
            "size": len(cluster.members),
            "words": {source: list(words) for source, words in cluster.words.items()},
            "examples": [
                {"text": text, "answer": answer}
                for text, answer in examples(cluster, grouping, texts)
            ],
        }


def examples(cluster: Cluster, grouping: Grouping, texts: Texts) -> list[tuple[str, str | None]]:
    """Return the different texts nearest to the centre, each with its answer; None where the encoder gives none."""
    first = dict.fromkeys(texts.texts[i] for i in cluster.members)
    answers = dict(zip(texts.texts, grouping.answers, strict=False))
    return [(text, answers.get(text)) for text in list(first)[:EXAMPLES]]


def about(name: str, encoder: Encoder, texts: Texts, *, seed: int) -> dict[str, Any]:
    """Return what the groupings were made from: encoder, texts, seed."""
    behind = card(encoder)
    made: dict[str, Any] = hide_home(
        {
            "encoder": {
                "name": name,
                "settings": settings(encoder),
                "fingerprint": fingerprint(encoder),
                "backbone": behind.backbone,
                "trained": behind.trained,
            },
            "texts": {
                "source": texts.source,
                "column": texts.column,
                "read": len(texts.texts),
                "of": texts.whole,
                "blank": texts.blank,
            },
            "seed": seed,
        }
    )
    return made


def write(
    folder: Path, groupings: Sequence[Grouping], texts: Texts, made_from: Mapping[str, Any]
) -> list[Path]:
    """Write clusters.md, clusters.json, clusters.png, clusters.svg and texts.csv, and return their paths.

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
    return {
        "schema": 1,
        **made_from,
        "groupings": [
            {
                "instruction": grouping.instruction,
                "silhouettes": {
                    str(k): round(value, 4) for k, value in grouping.silhouettes.items()
                },
                "clusters": list(rows(grouping, texts)),
                "texts": [
                    {
                        "text": text,
                        "cluster": int(number) + 1,
                        "answer": grouping.answers[i] if grouping.answers else None,
                        "place": [round(float(x), 3) for x in grouping.places[i]],
                    }
                    for i, (text, number) in enumerate(
                        zip(texts.texts, grouping.assigned, strict=True)
                    )
                ],
            }
            for grouping in groupings
        ],
        "agreements": [
            {"groupings": [a + 1, b + 1], "adjusted_mutual_information": round(value, 4)}
            for a, b, value in agreements(groupings)
        ],
    }


def agreements(groupings: Sequence[Grouping]) -> list[tuple[int, int, float]]:
    """Return the agreement of every two groupings, with their numbers from 0."""
    return [
        (a, b, agreement(groupings[a], groupings[b]))
        for a, b in combinations(range(len(groupings)), 2)
    ]


def page(groupings: Sequence[Grouping], texts: Texts, made_from: Mapping[str, Any]) -> str:
    """Return clusters.md: the picture, then a section for each grouping with a table of its clusters."""
    encoder = made_from["encoder"]
    lines = [
        "# Clusters",
        "",
        escape_markdown(f"{counted(texts)}, grouped by {called(encoder)}."),
        "",
        "![map of the texts](clusters.png)",
        "",
    ]
    for a, b, value in agreements(groupings):
        lines += [
            f"Groupings {a + 1} and {b + 1} agree with an adjusted mutual information of {value:.2f} (1: equal, 0: by chance).",
            "",
        ]
    for number, grouping in enumerate(groupings, 1):
        lines += [
            f"## {number}. {_plain(grouping.instruction) or 'No instruction'}",
            "",
            *_chosen(grouping),
            *_table(grouping, texts),
            "",
        ]
    return "\n".join(lines)


def counted(texts: Texts) -> str:
    """Return how many texts of which source there are, in words."""
    whole = f"{texts.whole:,} text{'s' * (texts.whole != 1)}"
    part = (
        f"{len(texts.texts):,} of {whole} drawn at random"
        if len(texts.texts) < texts.whole
        else whole
    )
    blank = (
        f" ({texts.blank:,} blank one{'s' * (texts.blank != 1)} left out)" if texts.blank else ""
    )
    source = hide_home(texts.source)
    return f"{part} of {source}{', column ' + texts.column if texts.column else ''}{blank}"


def called(encoder: Mapping[str, Any]) -> str:
    """Return an encoder's name, with the backbone it has not been trained on where that is so."""
    return str(encoder["name"]) + (
        "" if encoder["trained"] else f" (untrained, on {encoder['backbone']})"
    )


def _chosen(grouping: Grouping) -> list[str]:
    tried = ", ".join(f"{k}: {value:.3f}" for k, value in grouping.silhouettes.items())
    return (
        [f"{len(grouping.clusters)} clusters have the best mean silhouette ({tried}).", ""]
        if tried
        else []
    )


def _table(grouping: Grouping, texts: Texts) -> Iterator[str]:
    sources = list(grouping.clusters[0].words)
    heads = [
        "",
        "texts",
        *(f"key words of {SOURCES[source]}" for source in sources),
        "nearest to the centre",
    ]
    yield "| " + " | ".join(heads) + " |"
    yield "|---:|---:|" + "---|" * (len(heads) - 2)
    for number, cluster in enumerate(grouping.clusters, 1):
        shown = "<br>".join(
            _plain(text) + (f" → *{_plain(answer)}*" if answer else "")
            for text, answer in examples(cluster, grouping, texts)
        )
        words = [_plain(", ".join(cluster.words[source])) for source in sources]
        yield "| " + " | ".join([str(number), str(len(cluster.members)), *words, shown]) + " |"


def _plain(text: str) -> str:
    """Return a text for a cell of a table: on one line, cut, with nothing that Markdown or HTML would take as theirs."""
    line = " ".join(text.split())
    return escape_markdown(line if len(line) <= 120 else line[:119] + "…")


def table(groupings: Sequence[Grouping], texts: Texts) -> str:
    """Return texts.csv: each text with its cluster and answer under every instruction."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    answered = [(n, grouping) for n, grouping in enumerate(groupings, 1) if grouping.answers]
    numbers = [f"cluster {n}" for n in range(1, len(groupings) + 1)]
    writer.writerow(["text", *numbers, *(f"answer {n}" for n, _ in answered)])
    assigned = [grouping.assigned + 1 for grouping in groupings]
    for i, text in enumerate(texts.texts):
        places = [int(found[i]) for found in assigned]
        answers = [grouping.answers[i] for _, grouping in answered]
        writer.writerow(map(escape_formula, [text, *places, *answers]))
    return out.getvalue()
