"""Results in other layouts: as one zip file, and those of mteb's tasks in mteb's own layout."""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.encoder import settings
from bench.errors import ResultError, UsageError, unknown
from bench.registry import encoder_names, load_encoder
from bench.reporting.context import command_of
from bench.reporting.joined import find
from bench.reporting.mteb import data_revision
from bench.reporting.names import strip_folders, strip_paths
from bench.store import Store
from bench.store.archive import pack
from bench.store.result import Result
from bench.tasks.mteb.layout import Model, empty_fields, write_models

_PLACES = ("recipe", "backbone", "data", "teacher", "postprocessing", "changed")
"""Entries of cards, their trainings and provenance that may name folders, beside commands."""

_MTEB = 1_000_000  # versions of mteb's tasks begin here
_SEED = 42  # mteb's own
_HUB = re.compile(r"st:([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")


@dataclass(frozen=True)
class ExportOutcome:
    """What became of one result.

    Attributes:
        encoder: Name of the encoder.
        task: Name of the task.
        seed: Its seed.
        model: mteb's name of the model; "" where it is left out.
        reason: Why it is left out; "" where it is exported.
    """

    encoder: str
    task: str
    seed: int
    model: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        outcomes: One for each result, by encoder and task.
        paths: The files.
        unknown: Fields of mteb's model card that are empty, since results do not have them.
    """

    outcomes: Sequence[ExportOutcome]
    paths: Sequence[Path]
    unknown: Sequence[str]


@dataclass(frozen=True)
class _Variant:
    """A result with the model and the settings under which mteb knows it."""

    result: Result
    name: str
    revision: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, self.revision, json.dumps(self.settings, sort_keys=True)


def export_archive(
    stores: Sequence[Store],
    file: Path,
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    texts: bool = True,
) -> None:
    """Write results as one zip file that is read like their folder, to be shared.

    It has everything but the folders of this machine, which settings and commands may name.

    Args:
        stores: The results, joined.
        file: The archive to write.
        models: Names of encoders; all by default.
        tasks: Names of tasks; all by default.
        texts: With the few texts of the data that some tasks show as examples.

    Raises:
        UsageError: There are no such results.
        ResultError: The file cannot be written.
    """
    found, absences = find(stores, models, tasks)
    if not texts:
        found = [replace(result, samples=()) for result in found]
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            store = Store(Path(folder))
            for absence in absences:
                store.leave_out(replace(absence, reason=strip_paths(absence.reason)))
            for result in map(_without_folders, found):
                store[result.spec] = result
            pack(Path(folder), file)
    except OSError as error:
        raise ResultError(
            f"cannot write {file}: {error.strerror}; free space or name another file"
        ) from error


def _without_folders(result: Result) -> Result:
    """Return a result whose settings, commands and sources name no folder of this machine."""
    card, made = dict(result.card), dict(result.provenance)
    training = dict(card.get("training") or {})
    for each in (made, training, card):
        each |= {name: _strip(each[name]) for name in _PLACES if name in each}
        if each.get("command"):
            each["command"] = command_of(each)
    if training:
        card["training"] = training
    spec = replace(result.spec, settings=_strip(result.spec.settings))
    return replace(result, spec=spec, card=card, provenance=made)


def _strip(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return strip_folders(value)
    if isinstance(value, Mapping):
        return {name: _strip(part) for name, part in value.items()}
    return [_strip(part) for part in value] if isinstance(value, list | tuple) else value


def export_mteb(
    stores: Sequence[Store],
    folder: Path,
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    force: bool = False,
) -> Export:
    """Write the results of mteb's whole tasks in mteb's layout.

    Encoders of one name and the same weights are one model. Settings other than the default make a
    variant, below ``experiments``; so does a dtype other than float32 where there are several.

    Args:
        stores: The results, joined.
        folder: Where ``results/<model>/<revision>/<task>.json`` is written.
        models: Names of encoders; all by default.
        tasks: Names of tasks; all by default.
        names: mteb's names of some encoders, "org/model" or "org/model@revision". Other encoders
            are their id on the hub, or "bench/NAME", at the digest of their weights.
        force: Overwrite files that are there with other content.

    Raises:
        UsageError: There are no such results, a name is none of mteb's form, or a file is there.
        ResultError: The folder cannot be written.
        Unavailable: mteb is not installed.
    """
    found, _ = find(stores, models, tasks)
    given = _check_names(names or {}, {result.spec.encoder for result in found})
    outcomes: list[ExportOutcome] = []
    variants: list[_Variant] = []
    for result in found:
        if reason := _reason(result):
            outcomes.append(_left_out(result, reason))
        else:
            variants.append(_variant(result, given))
    variants, mixed = _one_encoder_each(_name_dtypes(variants))
    outcomes += mixed
    groups: dict[tuple[str, str, str], list[_Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.key, []).append(variant)
        spec = variant.result.spec
        outcomes.append(ExportOutcome(spec.encoder, spec.task, spec.seed, model=variant.name))
    made = [Model(_meta(group), *_tasks(group)) for group in groups.values()]
    try:
        paths = write_models(folder, made, replace=force) if made else []
    except OSError as error:
        raise ResultError(
            f"cannot write into {folder}: {error.strerror}; free space or name another folder"
        ) from error
    outcomes.sort(key=lambda outcome: (outcome.encoder, outcome.task, outcome.seed))
    return Export(outcomes, paths, empty_fields(made))


def _check_names(names: Mapping[str, str], known: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return mteb's name and revision ("" for none) by encoder."""
    found = {}
    for encoder, name in names.items():
        if encoder not in known:
            raise unknown("encoder in these results", encoder, known)
        model, _, revision = name.partition("@")
        if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", model):
            raise UsageError(f"mteb names a model org/model, got {name!r} for {encoder}")
        found[encoder] = (model, revision)
    return found


def _reason(result: Result) -> str:
    """Return why a result cannot be exported; "" where it can."""
    spec = result.spec
    if spec.task_version < _MTEB:
        return "not a task of mteb"
    if spec.limit:
        return "run with --limit, so not the whole task"
    if spec.seed != _SEED:
        return f"run with another seed than mteb's, which is {_SEED}"
    if not result.original:
        return "own data, or run by an earlier version (run it again with --force)"
    return ""


def _left_out(result: Result, reason: str) -> ExportOutcome:
    spec = result.spec
    return ExportOutcome(spec.encoder, spec.task, spec.seed, reason=reason)


def _variant(result: Result, given: Mapping[str, tuple[str, str]]) -> _Variant:
    label = result.spec.encoder
    weights = str(result.card.get("weights") or "")[:40]
    if label in given:
        name, revision = given[label]
    elif hub := _HUB.fullmatch(label):
        name, revision = hub[1], hub[2] or ""
    else:
        name, revision = "bench/" + re.sub(r"[^\w.+-]+", "_", label), ""
    return _Variant(
        result, name, revision or weights or "no_revision_available", _changed(result, label)
    )


def _changed(result: Result, label: str) -> dict[str, Any]:
    """Return the settings other than the default ones, apart from the dtype."""
    changed = {**result.card.get("changed", {})}
    head = label.partition(":")[0]
    if head in encoder_names():  # whose defaults may differ from those of its class
        usual, own = settings(load_encoder(head)), result.spec.settings
        changed = {name: own[name] for name in usual if own.get(name, usual[name]) != usual[name]}
    for name in ("checkpoint", "dtype"):
        changed.pop(name, None)
    if result.spec.settings.get("exact"):
        changed["exact"] = True
    if result.original["instruction"]:
        changed["instruction"] = result.original["instruction"]
    return dict(_strip(changed))


def _name_dtypes(variants: Sequence[_Variant]) -> list[_Variant]:
    """Return the variants; where a model has several dtypes, those but float32 are settings."""
    dtypes: dict[tuple[str, str, str], set[str]] = {}
    for variant in variants:
        dtypes.setdefault(variant.key, set()).add(_dtype(variant))
    return [
        replace(variant, settings={**variant.settings, "dtype": _dtype(variant)})
        if len(dtypes[variant.key]) > 1 and _dtype(variant) != "float32"
        else variant
        for variant in variants
    ]


def _dtype(variant: _Variant) -> str:
    return str(variant.result.card.get("dtype") or "float32")


def _one_encoder_each(
    variants: Sequence[_Variant],
) -> tuple[list[_Variant], list[ExportOutcome]]:
    """Return the variants of the newest encoder of each key, and the others as left out."""
    newest = {variant.key: variant.result.spec.fingerprint for variant in variants}  # by time
    kept, out = [], []
    for variant in variants:
        if newest[variant.key] == variant.result.spec.fingerprint:
            kept.append(variant)
        else:
            out.append(_left_out(variant.result, "of an older version of the encoder"))
    return kept, out


def _meta(group: Sequence[_Variant]) -> dict[str, Any]:
    """Return what is known of a model in the words of mteb's ``ModelMeta``."""
    variant = group[-1]
    card = variant.result.card
    length = variant.result.spec.settings.get("max_length")
    dimension = variant.result.cost.get("dimension")
    return {
        "name": variant.name,
        "revision": variant.revision,
        "n_parameters": card.get("parameters"),
        "n_embedding_parameters": card.get("embedding_parameters"),
        "max_tokens": length if isinstance(length, int) else None,
        "embed_dim": int(dimension) if dimension else None,
        "license": card.get("licence"),
        "similarity_fn_name": variant.result.original.get("similarity"),
        "use_instructions": bool(card.get("instructed_sides")),
        "adapted_from": _strip((card.get("training") or {}).get("backbone")),
        "experiment_kwargs": dict(variant.settings) or None,
        "output_dtypes": _dtype(variant),
    }


def _tasks(group: Sequence[_Variant]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return mteb's result of each task, the splits and subsets of all cells, and the versions."""
    results: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    for variant in group:
        made = variant.result.provenance
        found = dict(variant.result.original["task_result"])
        name = found["task_name"]
        # Vectors are shared and kept, so no time is that of this task alone.
        found |= {"evaluation_time": None, "evaluation_phases": None}
        found["dataset_revision"] = data_revision(variant.result)
        if name in results:
            found["scores"] = _merge(results[name]["scores"], found["scores"])
        results[name], versions[name] = found, made.get("versions") or {}
    return results, versions


def _merge(older: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of both by split; of one split and subset the newer one."""
    merged = {}
    for split in [*older, *(split for split in newer if split not in older)]:
        parts = [*older.get(split, ()), *newer.get(split, ())]
        merged[split] = list({part["hf_subset"]: part for part in parts}.values())
    return merged
