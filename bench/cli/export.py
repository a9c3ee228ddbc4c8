"""``bench export``: results and encoders in the layouts of other tools."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import console
from bench.cli.options import (
    Device,
    Dtype,
    Json,
    ResultFolders,
    Sets,
    command,
    complete,
    encoder_names,
    split_names,
)
from bench.cli.report import Encoders, OnTasks
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.export import ExportOutcome

app = typer.Typer(help="Results and encoders in the layouts of other tools.", no_args_is_help=True)

Model = Annotated[
    str,
    typer.Argument(
        help="Encoder: a name, `name:PATH_OR_ID`, `package.module:Class`, or the folder of a "
        "training.",
        autocompletion=complete(encoder_names),
    ),
]
Folder = Annotated[Path, typer.Argument(help="New folder to write.", file_okay=False)]


@command(
    app,
    "bench export mteb DIR",
    "bench export mteb DIR -m quip --name quip=my-org/quip@1a2b3c",
    "bench export mteb DIR --results A --results B --json | jq .reason",
)
def mteb(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder to write `results/MODEL/REVISION` into.", file_okay=False),
    ],
    model: Encoders = [],  # noqa: B006 - typer copies lists
    task: OnTasks = [],  # noqa: B006
    results: ResultFolders = [Path("results")],  # noqa: B006
    name: Annotated[
        list[str],
        typer.Option(
            help="mteb's name of an encoder: `encoder=org/model` or `encoder=org/model@revision`. "
            "Repeatable. [default: the id on the hub, or bench/ENCODER]",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files whose content differs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write mteb's own results files, for `mteb.ResultCache`, its tools and its leaderboard.

    Only whole tasks of mteb are exported, with the scores that mteb itself returned.
    """
    from bench.export import export_mteb
    from bench.store import Store

    names = [_split_name(each) for each in name]
    made = export_mteb(
        [Store(each) for each in dict.fromkeys(results)],
        folder,
        models=split_names(model),
        tasks=split_names(task),
        names=dict(names),
        force=force,
    )
    if as_json:
        for outcome in made.outcomes:
            console.print_json(asdict(outcome))
    else:
        for path in made.paths:
            print(path)
    _note(made.outcomes, made.unknown)
    if not made.paths:
        raise typer.Exit(1)


@command(
    app,
    "bench export archive study.zip --results results",
    "bench export archive mine.zip -m quip,dino && bench report --results mine.zip",
    "bench export archive shared.zip --without-texts",
)
def archive(
    file: Annotated[Path, typer.Argument(help="Zip file to write.", dir_okay=False)],
    model: Encoders = [],  # noqa: B006 - typer copies lists
    task: OnTasks = [],  # noqa: B006
    results: ResultFolders = [Path("results")],  # noqa: B006
    without_texts: Annotated[
        bool,
        typer.Option(
            "--without-texts",
            help="Leave out the few texts of the data that some tasks show as examples.",
        ),
    ] = False,
) -> None:
    """Write results with their per-example values as one zip file, which is read like a folder.

    Names of folders on this machine, in settings, commands and reasons, are left out.
    """
    from bench.export import export_archive
    from bench.store import Store

    stores = [Store(each) for each in dict.fromkeys(results)]
    export_archive(
        stores,
        file,
        models=split_names(model),
        tasks=split_names(task),
        texts=not without_texts,
    )
    print(file)


@command(
    app,
    "bench export sentence-transformers dino my-model",
    "bench export sentence-transformers checkpoints/inbedder-S my-model --dtype bfloat16",
    name="sentence-transformers",
)
def sentence_transformers(
    model: Model,
    folder: Folder,
    device: Device = "auto",
    dtype: Dtype = "float32",
    set_: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """Write a folder that sentence-transformers loads with the same vectors.

    This is checked on some texts before the folder is put in place. An instruction is the `prompt`
    of `SentenceTransformer.encode`.
    """
    from bench.exportable import ExportableEncoder
    from bench.registry import compute_settings, load_one
    from bench.reporting.modelcard import describe_folder

    name, encoder = load_one(model, compute_settings(device, dtype), set_)
    if not isinstance(encoder, ExportableEncoder):
        raise UsageError(f"{name} cannot be exported to sentence-transformers: it has no network")
    encoder.check_export()
    encoder.export_sentence_transformers(folder)
    describe_folder(name, encoder, folder)
    print(folder)


def _split_name(text: str) -> tuple[str, str]:
    encoder, equals, name = text.rpartition("=")
    if not equals:
        raise UsageError(f"--name takes encoder=org/model, got {text!r}")
    return encoder, name


def _note(outcomes: "Sequence[ExportOutcome]", unknown: Sequence[str]) -> None:
    """Say on stderr what was left out, and what is empty."""
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.reason:
            reasons.setdefault(outcome.reason, []).append(f"{outcome.encoder} on {outcome.task}")
    for reason, cells in reasons.items():
        more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
        console.note(f"left out, {reason}: {', '.join(cells[:3])}{more}")
    if unknown:
        console.note(
            "empty in model_meta.json, since results do not have them: fill them in before you "
            f"submit: {', '.join(unknown)}"
        )
