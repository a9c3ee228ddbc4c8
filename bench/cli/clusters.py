"""``bench clusters``: texts of the user's own in groups, with words that say what each is about."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console
from bench.cli.loading import load_encoders, load_named, vector_store
from bench.cli.options import (
    Data,
    Device,
    Dtype,
    Json,
    Sets,
    Verbose,
    completed,
    computing,
    errors,
    names,
    start,
)
from bench.errors import UsageError
from bench.files import check_writable, escape_surrogates, hide_home, remove_leftovers

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from bench.clusters import Grouping, Texts
    from bench.encoder import Encoder


def _encoders(incomplete: str) -> list[str]:
    from bench.registry import encoder_names

    return completed(incomplete, encoder_names())


_WORDS = 6  # of each source, in a table on a terminal

Source = Annotated[
    str,
    typer.Option(
        "--texts",
        help="A file (a text a line, .jsonl, .csv, .tsv; .gz too), or a data set as ORG/NAME[/CONFIG]:SPLIT.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Encoder. [default: the first that answers in words]",
        autocompletion=_encoders,
        show_default=False,
    ),
]
Instructions = Annotated[
    list[str],
    typer.Option(
        "--instruction",
        "-i",
        help="What the groups are to be about, as a question. Repeat it for more groupings.",
    ),
]


def clusters(  # noqa: PLR0913, PLR0917 - one parameter an option
    texts: Source,
    model: Model = "",
    instruction: Instructions = [],  # noqa: B006 - typer copies it
    k: Annotated[
        str,
        typer.Option(
            "--k", help="Number of clusters; auto takes the one with the best silhouette."
        ),
    ] = "auto",
    column: Annotated[
        str,
        typer.Option(
            "--column",
            help="Column of the texts. [default: the only one, or `text`]",
            show_default=False,
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option(help="At most this many texts, drawn at random; 0 for all.", min=0)
    ] = 1000,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for what is written. [default: clusters/NAME]",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The only source of randomness.", min=0)] = 42,
    data: Data = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006 - typer copies it
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep embeddings on disk for later runs.")
    ] = True,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Group texts of your own, and say what each group is about: key words, examples, a map."""
    with errors():
        start(data, verbose=verbose)
        from bench.cache import cached
        from bench.clusters import cluster_texts, read_texts
        from bench.clusters.page import about, rows, write

        number = _number(k)
        read = read_texts(texts, column=column, limit=limit, seed=seed)
        folder = out or _folder(read)
        if (folder / "clusters.json").exists():
            console.note(f"replacing what is in {folder}")
        with _writing(folder):
            remove_leftovers(folder)
            check_writable(folder / "clusters.json")
        name, encoder = _encoder(model, computing(device, dtype), set_)
        made_from = about(name, encoder, read, seed=seed)
        _note(made_from, read, ignored=bool(instruction) and not encoder.follows_instructions)
        with console.progress() as bars:
            asked = list(dict.fromkeys(map(escape_surrogates, instruction))) or [""]
            groupings = cluster_texts(
                cached(encoder, vector_store(disk=cache), bars),
                read.texts,
                asked,
                k=number,
                seed=seed,
                progress=bars,
            )
            bars("drawing the picture", 0, 1)
            with _writing(folder):
                paths = write(folder, groupings, read, made_from)
        if as_json:
            for row in (row for grouping in groupings for row in rows(grouping, read)):
                print(json.dumps(row, ensure_ascii=False))
            return
        _show(groupings, read)
        for path in paths:
            print(path)


def _number(text: str) -> int:
    """Return the number of clusters that ``--k`` means; 0 where it is to be found."""
    if text != "auto" and not (text.isdecimal() and int(text) >= 2):
        raise UsageError(f"--k takes auto or a number of clusters from 2 on, got {text!r}")
    return 0 if text == "auto" else int(text)


def _folder(texts: "Texts") -> Path:
    """Return clusters/NAME, after the file without its suffixes or the data set; with a number where that holds groups of other texts."""
    name = Path(texts.source).name.partition(".")[0].replace(":", "-") or "texts"
    numbered = (Path("clusters", f"{name}-{n}" if n > 1 else name) for n in count(1))
    return next(folder for folder in numbered if not _holds_others(folder / "clusters.json", texts))


def _holds_others(path: Path, texts: "Texts") -> bool:
    try:
        held = json.loads(path.read_bytes())["texts"]
        named = [held["source"], held["column"]]
        return bool(hide_home(named) != hide_home([texts.source, texts.column]))
    except OSError:
        return False
    except (ValueError, LookupError, TypeError):  # no file of ours
        return True


def _encoder(name: str, defaults: Mapping[str, str], sets: list[str]) -> "tuple[str, Encoder]":
    from bench.encoder import AnsweringEncoder

    if not name:
        every = load_named(["all"])
        name = next((n for n, each in every.items() if isinstance(each, AnsweringEncoder)), "")
    found = load_encoders(names([name]), defaults, sets)
    if len(found) > 1:
        raise UsageError(f"--model takes one encoder here, got {', '.join(found)}")
    return next(iter(found.items()))


def _note(made_from: Mapping[str, Any], texts: "Texts", *, ignored: bool) -> None:
    """Say on stderr what is about to be grouped, and what should be known about it."""
    from bench.clusters.page import called, counted

    console.note(f"{counted(texts)}; {called(made_from['encoder'])}")
    if len(texts.texts) < texts.whole:
        console.note("--limit 0 takes all texts")
    if ignored:
        console.note(
            f"{made_from['encoder']['name']} does not follow instructions: they change nothing"
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; name another folder with --out"
        ) from error


def _show(groupings: "Sequence[Grouping]", texts: "Texts") -> None:
    """Print a table for each grouping, and how far every two of them agree."""
    from rich.console import Console

    from bench.clusters.page import agreements

    screen = Console()
    if not screen.is_terminal:  # a file or a pipe is as wide as it has to be
        screen = Console(width=160)
    for grouping in groupings:
        screen.print(_table(grouping, texts))
    for a, b, value in agreements(groupings):
        names = f"{groupings[a].instruction!r} and {groupings[b].instruction!r}"
        screen.print(
            f"{names} agree to {value:.2f} (adjusted mutual information; 1 equal, 0 by chance)",
            markup=False,
            highlight=False,
        )


def _table(grouping: "Grouping", texts: "Texts") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from bench.clusters.page import SOURCES, examples

    title = Text(grouping.instruction or "No instruction", style="bold")
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_lines=False, pad_edge=False
    )
    table.add_column("", justify="right", style="bold")
    table.add_column("texts", justify="right")
    sources = [
        source for source in grouping.clusters[0].words if source != "texts" or not grouping.answers
    ]
    for source in sources:
        table.add_column(f"key words of {SOURCES[source]}", ratio=2)
    table.add_column("nearest to the centre" + (" → answer" if grouping.answers else ""), ratio=5)
    for number, cluster in enumerate(grouping.clusters, 1):
        shown = Text("\n").join(
            _example(text, answer) for text, answer in examples(cluster, grouping, texts)
        )
        words = [Text(", ".join(cluster.words[source][:_WORDS])) for source in sources]
        table.add_row(str(number), f"{len(cluster.members):,}", *words, shown, end_section=True)
    return table


def _example(text: str, answer: str | None) -> "Text":
    from rich.text import Text

    line = Text(_cut(text, 90))
    return line.append(f" → {_cut(answer, 40)}", style="dim") if answer else line


def _cut(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
