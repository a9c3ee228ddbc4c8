"""``bench card``: a model card of an encoder, as a README for the hub."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.export import Model
from bench.cli.options import Results, Sets

Out = Annotated[
    Path | None,
    typer.Option(
        help="File to write. [default: README.md beside the weights; without a folder of weights, "
        "stdout]",
        dir_okay=False,
        show_default=False,
    ),
]


def card(
    model: Model,
    results: Results = Path("results"),
    out: Out = None,
    set_: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """Write the model card of an encoder: a README with the metadata of the hub.

    Scores are those of the results folder. A README is only replaced if `bench card` wrote it.
    """
    from bench.registry import load_one
    from bench.reporting.modelcard import (
        DEFAULT,
        README,
        find_library,
        model_card,
        results_of,
        write_model_card,
    )
    from bench.store import Store

    name, encoder = load_one(model, changes=set_)
    folder = Path(str(getattr(encoder, "checkpoint", ""))).expanduser()
    is_folder = bool(getattr(encoder, "checkpoint", "")) and folder.is_dir()
    found = results_of(encoder, Store(results).results())
    title = folder.resolve().name if is_folder else name.partition(":")[2] or DEFAULT
    text = model_card(name, encoder, found, library=find_library(folder), folder=title)
    target = out or (folder / README if is_folder else None)
    if target is None:
        print(text, end="")
        return
    write_model_card(target, text)
    print(target)
