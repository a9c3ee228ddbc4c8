"""``bench clusters``: cluster your own texts, with key words for each cluster."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console
from bench.cli.options import Cache, Device, Dtype, Json, Seed, Sets, model_option, split_names
from bench.errors import UsageError
from bench.files import check_writable, escape_surrogates, remove_leftovers

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from bench.clusters import Grouping, Texts
    from bench.encoder import Encoder

_WORDS = 6  # key words of each source that are shown

Source = Annotated[
    str,
    typer.Option(
        "--texts",
        help="A file (one text a line, .jsonl, .csv, .tsv; also .gz), or a data set as "
        "ORG/NAME[/CONFIG]:SPLIT.",
    ),
]
Model = Annotated[
    str,
    model_option("Encoder. [default: the first that answers instructions in words]"),
]
Instructions = Annotated[
    list[str],
    typer.Option(
        "--instruction",
        "-i",
        help="What the clusters are about, as a question. Repeat it for more clusterings.",
    ),
]
NumberOfClusters = Annotated[
    str, typer.Option("--k", help="Number of clusters; auto: the one with the best silhouette.")
]
Column = Annotated[
    str,
    typer.Option(
        help="Column of the texts. [default: the only one, or `text`]", show_default=False
    ),
]
Limit = Annotated[
    int, typer.Option(help="At most this many texts, drawn at random; 0 for all.", min=0)
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder to write into. [default: clusters/NAME]", file_okay=False, show_default=False
    ),
]


def clusters(  # noqa: PLR0913, PLR0917 - one parameter an option
    texts: Source,
    model: Model = "",
    instruction: Instructions = [],  # noqa: B006 - typer copies it
    k: NumberOfClusters = "auto",
    column: Column = "",
    limit: Limit = 1000,
    out: Out = None,
    seed: Seed = 42,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Cluster your own texts, and describe each cluster: key words, examples, a map."""
    from bench.clusters import cluster_texts, read_texts
    from bench.clusters.page import about, default_folder, rows, write
    from bench.embeddings import cached
    from bench.registry import compute_settings
    from bench.vectors import open_vectors

    number = _parse_k(k)
    read = read_texts(texts, column=column, limit=limit, seed=seed)
    folder = out or default_folder(read)
    if (folder / "clusters.json").exists():
        console.note(f"replacing the files in {folder}")
    with _writing(folder):
        remove_leftovers(folder)
        check_writable(folder / "clusters.json")
    name, encoder = _load_encoder(model, compute_settings(device, dtype), set_)
    made_from = about(name, encoder, read, seed=seed)
    _note(made_from, read, ignored=bool(instruction) and not encoder.follows_instructions)
    instructions = list(dict.fromkeys(map(escape_surrogates, instruction))) or [""]
    with console.progress() as progress:
        inner = cached(encoder, open_vectors(on_disk=cache), progress)
        groupings = cluster_texts(
            inner, read.texts, instructions, k=number, seed=seed, progress=progress
        )
        progress("drawing the map", 0, 1)
        with _writing(folder):
            paths = write(folder, groupings, read, made_from)
    _note_fewer(groupings, number)
    if as_json:
        for grouping in groupings:
            for row in rows(grouping, read):
                console.print_json(row)
    else:
        _show(groupings, read)
        for path in paths:
            print(path)


def _parse_k(text: str) -> int:
    """Return the number of clusters; 0 for auto."""
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 2:
        raise UsageError(f"--k takes auto or a number of clusters from 2 on, got {text!r}")
    return int(text)


def _load_encoder(
    name: str, settings: Mapping[str, str], changes: Sequence[str]
) -> "tuple[str, Encoder]":
    """Return one encoder; by default the first that answers in words."""
    from bench.clusters.grouping import AnsweringEncoder
    from bench.registry import load_encoders

    if not name:
        every = load_encoders(["all"]).items()
        name = next((name for name, each in every if isinstance(each, AnsweringEncoder)), "")
    found = load_encoders(split_names([name]), settings, changes)
    if len(found) > 1:
        raise UsageError(f"--model takes one encoder here, got {', '.join(found)}")
    return next(iter(found.items()))


def _note(made_from: Mapping[str, Any], texts: "Texts", *, ignored: bool) -> None:
    """Print to stderr what is going to be grouped."""
    from bench.clusters.page import describe_encoder, describe_texts

    encoder = made_from["encoder"]
    console.note(f"{describe_texts(texts)}; {describe_encoder(encoder)}")
    if len(texts.texts) < texts.whole:
        console.note("--limit 0 takes all texts")
    if ignored:
        console.note(f"{encoder['name']} does not follow instructions: they change nothing")


def _note_fewer(groupings: "Sequence[Grouping]", k: int) -> None:
    """Print to stderr where texts of one embedding leave fewer clusters than asked for."""
    if not k:  # chosen by the data
        return
    for made in sorted({len(grouping.clusters) for grouping in groupings} - {k}):
        console.note(f"{made} clusters instead of {k}: the texts have too few different embeddings")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; name another folder with --out"
        ) from error


def _show(groupings: "Sequence[Grouping]", texts: "Texts") -> None:
    """Print a table for each grouping, and how far each pair of them agrees."""
    from bench.clusters.page import agreements

    screen = console.open_screen(160)
    for grouping in groupings:
        screen.print(_make_table(grouping, texts))
    for a, b, value in agreements(groupings):
        names = f"{groupings[a].instruction!r} and {groupings[b].instruction!r}"
        text = f"{names} agree to {value:.2f} (adjusted mutual information; 1 equal, 0 by chance)"
        screen.print(text, markup=False, highlight=False)


def _make_table(grouping: "Grouping", texts: "Texts") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from bench.clusters.page import SOURCES, rows

    title = Text(grouping.instruction or "No instruction", style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right", style="bold")
    table.add_column("texts", justify="right")
    sources = [
        source for source in grouping.clusters[0].words if source != "texts" or not grouping.answers
    ]
    for source in sources:
        table.add_column(f"key words of {SOURCES[source]}", ratio=2)
    table.add_column("nearest to the centre" + (" → answer" if grouping.answers else ""), ratio=5)
    for row in rows(grouping, texts):
        lines = [_example(**example) for example in row["examples"]]
        words = [Text(", ".join(row["words"][source][:_WORDS])) for source in sources]
        size = f"{row['size']:,}"
        table.add_row(str(row["cluster"]), size, *words, Text("\n").join(lines), end_section=True)
    return table


def _example(text: str, answer: str | None) -> "Text":
    from rich.text import Text

    from bench.clusters.page import shorten

    line = Text(shorten(text, 90))
    return line.append(f" → {shorten(answer, 40)}", style="dim") if answer else line
