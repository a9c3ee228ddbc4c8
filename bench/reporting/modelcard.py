"""Model cards: a README with the hub's metadata, from an encoder, its training and its results.

Nothing is invented: numbers are those of results, a licence is named only where it is known, and
folders are named without their place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.catalog import CATALOG
from bench.encoder import Card, Encoder, card, fingerprint
from bench.errors import BenchError, UsageError
from bench.exportable import ExportableEncoder
from bench.files import escape_markdown, hide_home, write_atomic
from bench.registry import encoder_names
from bench.reporting.names import strip_folders
from bench.reporting.stale import leave_out_stale
from bench.store.result import Result

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

README = "README.md"
"""The file of a model card."""

DEFAULT = "default"
"""What stands for the folder of an encoder as it comes."""

MARK = "<!-- Written by `bench card`, which replaces this file; without this line it does not. -->"
"""The line by which a card is known as one of ours."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_MADE = (
    "command", "budget", "trained_tokens", "inference_tokens", "steps", "seconds", "seed",
    "device", "processor", "dtype", "created",
)  # fmt: skip
_TYPES = {
    "sts": "STS",
    "classification": "Classification",
    "clustering": "Clustering",
    "retrieval": "Retrieval",
    "reranking": "Reranking",
}
"""Types of tasks on the hub, which are mteb's, by our families."""


def results_of(encoder: Encoder, results: Iterable[Result]) -> list[Result]:
    """Return the results of an encoder: of its class, version, settings and weights, in any dtype.

    Of a task that was run in several versions, or on data that has changed, only the newest counts.
    """
    weights = card(encoder).weights
    has_dtype = "dtype" in {field.name for field in fields(encoder)}  # type: ignore[arg-type]

    @cache
    def identity(dtype: str, *, exact: bool) -> str:
        changed = {"dtype": dtype} if has_dtype and dtype else {}
        return fingerprint(replace(encoder, **changed), exact=exact)  # type: ignore[type-var]

    def is_own(result: Result) -> bool:
        if not weights or result.card.get("weights") != weights:
            return False
        dtype, exact = result.card.get("dtype"), result.spec.settings.get("exact")
        return result.spec.fingerprint == identity(str(dtype or ""), exact=bool(exact))

    own, _ = leave_out_stale(filter(is_own, results))
    newest: dict[tuple[str, str], int] = {}
    for spec in (result.spec for result in own):
        place = spec.task, spec.readout
        newest[place] = max(newest.get(place, 0), spec.task_version)
    kept = [r for r in own if r.spec.task_version == newest[r.spec.task, r.spec.readout]]
    return sorted(kept, key=lambda result: (result.family, result.spec.task, result.spec.seed))


def find_library(folder: Path) -> str:
    """Return the library on the hub that loads a folder; "" for a method's own layout."""
    if (folder / "modules.json").is_file():
        return "sentence-transformers"
    return "peft" if (folder / "adapter_config.json").is_file() else ""


def write_model_card(path: Path, text: str) -> None:
    """Write a model card.

    Raises:
        UsageError: There is another file that no ``bench card`` wrote.
    """
    if path.is_file() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(
            f"{path} was not written by `bench card`: move it, or choose another --out"
        )
    write_atomic(path, text)


def describe_folder(name: str, encoder: Encoder, folder: Path) -> None:
    """Write the model card of an encoder into its folder of weights.

    Raises:
        UsageError: There is a README that no ``bench card`` wrote.
    """
    library, title = find_library(folder), folder.resolve().name
    write_model_card(folder / README, model_card(name, encoder, library=library, folder=title))


def model_card(
    name: str,
    encoder: Encoder,
    results: Sequence[Result] = (),
    *,
    library: str = "",
    folder: str = "FOLDER",
) -> str:
    """Return a model card in Markdown with the hub's metadata.

    Args:
        name: Of the encoder, as it was asked for.
        encoder: Any encoder.
        results: Its results.
        library: What loads the folder on the hub: "peft", "sentence-transformers"; "" for none.
        folder: Name of the folder that the card lies in, or ``DEFAULT``.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from jinja2 import Environment, StrictUndefined

    known, head = card(encoder), name.partition(":")[0]
    method = str(known.training.get("method") or head)
    reader = head if head in encoder_names() or "." in head else method  # else it is a label
    target = reader if folder == DEFAULT else f"{reader}:{folder}"
    whole = [result for result in results if result.spec.limit is None]
    measured = list(filter(None, map(_evaluation, whole)))
    data = ModelCardData(
        model_name=folder if measured else None,
        base_model=_base_model(known),
        datasets=_datasets(known) or None,
        license=_spdx(known.licence) if not known.training else None,
        library_name=library or None,
        pipeline_tag="feature-extraction",
        tags=["feature-extraction", "encoder-recipes-bench", method],
        eval_results=measured or None,
    )
    environment = Environment(
        autoescape=False,  # noqa: S701 - it is Markdown, which the filters escape
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"md": escape_markdown, "plain": _plain, "code": _code}
    template = files("bench.reporting").joinpath("modelcard.md").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        mark=MARK,
        method=method,
        folder=folder,
        target=target,
        about=(type(encoder).__doc__ or "").partition("\n")[0],
        facts=_facts(known),
        changed="".join(f", {setting}" for setting in _settings(known)),
        library=library,
        encoder=encoder,
        export="" if library == "sentence-transformers" else _export_line(target, encoder),
        training=known.training,
        made=_made(known.training),
        results=results,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def _base_model(known: Card) -> str | None:
    """Return the hub id of the backbone; None where it is a folder or not known."""
    source = str(known.training.get("backbone") or known.backbone)
    if not _HUB_ID.fullmatch(source) or Path(source).expanduser().exists():
        return None
    return source.partition("@")[0]


def _datasets(known: Card) -> list[str]:
    """Return the hub ids of the training data, as far as they are known to be on the hub."""
    on_hub = {entry.id for entry in CATALOG.values() if entry.hub}
    found: dict[str, None] = {}
    for used in known.training.get("data") or ():
        source = "/".join(str(used.get("id", "")).split("/")[:2])
        from_hub = (used.get("pin") or {}).get("source") == "hub"
        if source in on_hub or (from_hub and _HUB_ID.fullmatch(source)):
            found[source] = None
    return list(found)


def _spdx(licence: str) -> str | None:
    """Return the hub's name of a licence; None where it has none."""
    return {"Apache-2.0": "apache-2.0", "MIT": "mit", "BSD": "bsd"}.get(licence)


def _evaluation(result: Result) -> "EvalResult | None":
    """Return a result for the hub's metadata; None where its data is not on the hub."""
    from huggingface_hub import EvalResult

    every: list[Mapping[str, Any]] = list(result.provenance.get("data") or ())
    read = every[0] if every else {}  # test data is read first
    on_hub = any(entry.id == read.get("id") and entry.hub for entry in CATALOG.values())
    if not on_hub and read.get("source") != "hub":
        return None
    same = [(one.get("id"), one.get("split")) == (read["id"], read.get("split")) for one in every]
    return EvalResult(
        task_type=_TYPES.get(result.family, result.family),
        dataset_type=str(read["id"]),
        dataset_name=str(read["id"]),
        dataset_config=(sum(same) == 1 and read.get("config")) or None,  # not of a mean of several
        dataset_split=read.get("split") or None,
        dataset_revision=read.get("revision") or None,
        metric_type=result.metric,
        # The hub keeps the results of one data set in one entry: only the metrics are distinct.
        metric_name=f"{result.metric} of {result.spec.task}",
        metric_args={
            "seed": result.spec.seed,
            "readout": result.spec.readout,
            "dtype": result.card.get("dtype"),
            "exact": bool(result.spec.settings.get("exact")),
        },
        metric_value=round(result.main.mean, 6),
    )


def _facts(known: Card) -> dict[str, Any]:
    return {
        "Backbone": known.training.get("backbone") or known.backbone,
        "Parameters": f"{known.parameters:,}" if known.parameters else "",
        "Trained": "" if known.trained else "no: the method's template and pooling on a backbone",
        "Settings": ", ".join(_settings(known)),
        "Teacher": "was trained on labels" if known.distilled else "",
        "Training tokens": f"{known.training_tokens:,}" if known.training_tokens else "",
        "Licence of the backbone": known.licence,
    }


def _settings(known: Card) -> list[str]:
    """Return the settings other than the default ones as arguments; scores are named by dtype."""
    found = []
    for name, value in known.changed.items():
        shown = strip_folders(value) if isinstance(value, str) else value
        if name != "dtype":
            found.append(f"{name}={shown!r}")
    return found


def _plain(value: object) -> str:
    """Return a value on one line of Markdown; of a folder only its name."""
    text = str(hide_home(str(value)))
    if text.startswith(("/", "~")):
        text = Path(text).name
    return escape_markdown(text)


def _export_line(target: str, encoder: Encoder) -> str:
    if not isinstance(encoder, ExportableEncoder):
        return "It has no network, so it cannot be exported to sentence-transformers."
    try:
        encoder.check_export()
    except UsageError as error:
        return f"It cannot be exported to sentence-transformers: {escape_markdown(str(error))}."
    except BenchError:
        return ""  # its backbone is not on this machine
    command = f"bench export sentence-transformers {target} NEW_FOLDER"
    return f"`{command}` writes a sentence-transformers folder with the same vectors."


def _made(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return how an encoder was trained, as far as it is known."""
    found = {}
    for fact in _MADE:
        value = training.get(fact)
        if value not in (None, ""):
            counted = isinstance(value, int | float) and fact != "seed"
            found[fact.replace("_", " ")] = f"{value:,}" if counted else value
    return found


def _code(value: object) -> str:
    text = " ".join(str(hide_home(str(value))).split())
    return f"`{text.replace('`', chr(39))}`"
