"""The texts to group: lines or a column of a file of the user's own, or a column of a data set."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.clusters.table import read_table
from bench.data import load
from bench.errors import UsageError, unknown

_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_USUAL = ("text", "sentence", "question", "content", "title")


@dataclass(frozen=True)
class Texts:
    """The texts of a source.

    Attributes:
        texts: In the order of the source, none of them blank.
        source: Where they are from.
        column: The column that was read; "" where there are none.
        blank: How many blank ones were left out.
        whole: How many texts the source has, of which these are all or a random sample.
    """

    texts: tuple[str, ...]
    source: str
    column: str
    blank: int
    whole: int


def read_texts(source: str, *, column: str = "", limit: int = 0, seed: int = 42) -> Texts:
    """Return the texts of a file or a data set.

    Args:
        source: A file: .jsonl, .csv and .tsv have columns, any other has a text a line; .gz is unpacked. Or a data set as
            ``org/name:split`` or ``org/name/config:split``.
        column: The column of the texts; "" takes one that is called as is usual, such as "text", or the only one of
            objects and data sets.
        limit: At most this many texts, drawn at random; 0 for all.
        seed: Of the draw.

    Raises:
        UsageError: No such file, it is no text in UTF-8, or it has no such column or no text.
        Unavailable: The data set cannot be had on this machine.
        DataError: It is there but broken.
    """
    path = Path(source).expanduser()
    is_file = path.exists() or ":" not in source
    columns = _columns(path) if is_file else _data_set(source)
    name = _chosen(column, columns, source, table=is_file and _kind(path) in {"csv", "tsv"})
    values = columns[name]
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None:
        raise UsageError(
            f"expected texts in column {name!r} of {source}, got {str(wrong)[:40]!r}: name another with --column"
        )
    texts = [value.strip() for value in values if value.strip()]
    if not texts:
        raise UsageError(f"expected texts in {source}, got only blanks")
    kept = range(len(texts))
    if limit and len(texts) > limit:
        kept = np.sort(np.random.default_rng(seed).permutation(len(texts))[:limit])  # type: ignore[assignment]
    return Texts(tuple(texts[i] for i in kept), source, name, len(values) - len(texts), len(texts))


def _chosen(column: str, columns: dict[str, list[Any]], source: str, *, table: bool) -> str:
    """Return the column to read; the only one of a table must be named, since its first line may be a text."""
    if column:
        if column not in columns:
            plain = list(columns) == [""]
            raise (
                UsageError(f"{source} has lines, not columns: leave --column out")
                if plain
                else unknown(f"column of {source}", column, columns)
            )
        return column
    found = [name for name in _USUAL if name in columns]
    if len(columns) == 1 and (found or not table):
        return next(iter(columns))
    if not found and len(columns) == 1:
        raise UsageError(
            f"{source} begins with {next(iter(columns))[:40]!r}: if that names the column, give it as --column; "
            "if it is a text, add a line with a name before it"
        )
    if not found:
        raise UsageError(
            f"{source} has the columns {', '.join(columns)}: say with --column which one holds the texts"
        )
    return found[0]


def _data_set(source: str) -> dict[str, list[Any]]:
    name, _, split = source.rpartition(":")
    org, _, rest = name.partition("/")
    name, _, config = rest.partition("/")
    return dict(load(f"{org}/{name}", split, config=config).data)


def _kind(path: Path) -> str:
    """Return what a file holds, told by its name: "jsonl", "csv", "tsv", or "lines"."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return _KINDS.get(suffixes[-1], "lines") if suffixes else "lines"


def _columns(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a file by name; lines are one column without a name."""
    content, kind = _content(path, packed=path.suffix.lower() == ".gz"), _kind(path)
    if kind == "lines":
        return {"": content.removesuffix("\n").split("\n")}
    if kind == "jsonl":
        rows: list[dict[str, Any]] = list(_objects(content, path))
    else:
        rows = read_table(content, path, "\t" if kind == "tsv" else ",")
    if not rows:
        raise UsageError(f"expected rows in {path}, got none")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_blank(row.get(name)) for row in rows] for name in names}


def _blank(value: object) -> object:
    return "" if value is None else value


def _content(path: Path, *, packed: bool) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if packed else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"expected text in UTF-8 in {path}, got other bytes: save it as plain text in UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(
            f"expected a file of texts, or a data set as org/name:split, cannot read {str(path)!r}: {reason}"
        ) from error


def _objects(content: str, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UsageError(
                f"{path} line {number}: expected a JSON object a line, got {line[:40]!r}"
            )
        yield row
