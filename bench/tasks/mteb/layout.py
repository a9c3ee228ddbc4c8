"""mteb's own layout of results, written by mteb: ``results/<model>/<revision>/<task>.json``.

Variants of a model are in ``experiments/<settings>`` below it. Beside the tasks are
``model_meta.json`` and ``run_settings.jsonl``, as in ``mteb.cache.ResultCache.save_to_cache``.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bench.errors import UsageError
from bench.files import write_atomic
from bench.tasks.mteb.isolated import loaded_mteb, undisturbed

_PACKAGES = ("mteb", "torch", "sentence-transformers", "flash-attn", "transformers")


@dataclass(frozen=True)
class Model:
    """Results of one model, or of one variant of it.

    Attributes:
        meta: The fields of mteb's ``ModelMeta`` that are known.
        results: mteb's ``TaskResult`` of each task, as JSON values.
        versions: Versions of the installed packages when the task was run, by task.
    """

    meta: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, Mapping[str, str]]


def write_models(folder: Path, models: Sequence[Model], *, replace: bool) -> list[Path]:
    """Write models' results in mteb's layout and return the paths, by model and task.

    Args:
        folder: Folder of ``results``.
        models: The models, each name, revision and settings once.
        replace: Whether files with other content are overwritten.

    Raises:
        Unavailable: mteb is not installed.
        UsageError: A file is there with other content.
        OSError: The folder cannot be written.
    """
    with undisturbed(), tempfile.TemporaryDirectory() as work:
        loaded_mteb()
        made = Path(work)
        for model in models:
            _write_model(made, model)
        files = {
            folder / path.relative_to(made): path.read_bytes()
            for path in sorted(made.rglob("*.json*"))
        }
    for path, data in files.items():
        if not replace and path.exists() and path.read_bytes() != data:
            raise UsageError(
                f"{path} is there with other content: choose another folder, or --force"
            )
    for path, data in files.items():
        write_atomic(path, data)
    return list(files)


def empty_fields(models: Sequence[Model]) -> list[str]:
    """Return the fields of mteb's model card that are not known of some model."""
    with undisturbed():
        loaded_mteb()
        found = [_meta(model.meta).to_dict() for model in models]
    # Only these are about a model that mteb does not load itself.
    about = [name for name in found[0] if name not in _OPTIONAL] if found else []
    return [name for name in about if any(meta[name] in (None, []) for meta in found)]


_OPTIONAL = frozenset(
    {
        "adapted_from",
        "citation",
        "contacts",
        "experiment_kwargs",
        "extra_requirements_groups",
        "is_cross_encoder",
        "loader",
        "loader_kwargs",
        "n_active_parameters_override",
        "output_dtypes",
        "reference",
        "superseded_by",
    }
)


def _meta(known: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a ModelMeta
    from mteb.models import ModelMeta
    from mteb.types import Licenses

    fields = {**ModelMeta.create_empty().model_dump(), **known}
    licence = str(fields["license"] or "").lower()
    fields["license"] = licence if licence in get_args(Licenses) else None
    return ModelMeta.model_validate(fields)


def _write_model(folder: Path, model: Model) -> None:
    from mteb.cache import ResultCache
    from mteb.results import TaskResult

    cache, meta = ResultCache(folder), _meta(model.meta)
    for task, found in model.results.items():
        path = cache.get_task_result_path(task, meta)
        path.parent.mkdir(parents=True, exist_ok=True)
        TaskResult.model_validate(found).to_disk(path)
    place = path.parent
    text = json.dumps(meta.to_dict(), default=str, indent=4)
    (place / "model_meta.json").write_text(text, encoding="utf-8")
    lines = [json.dumps(line) + "\n" for line in _run_settings(model)]
    (place / "run_settings.jsonl").write_text("".join(lines), encoding="utf-8")


def _run_settings(model: Model) -> Iterator[dict[str, Any]]:
    """Yield how each split was run, as mteb's own file says it."""
    for task, found in model.results.items():
        for split, parts in found["scores"].items():
            yield {
                "task": task,
                "splits": [split],
                "version": {name: model.versions[task].get(name) for name in _PACKAGES},
                "encode_kwargs": {},
                "subsets": sorted(part["hf_subset"] for part in parts),
            }
