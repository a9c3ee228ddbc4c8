"""The texts to cluster: lines or a column of a file, or a column of a data set."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import load
from bench.data.delimited import read_table
from bench.errors import UsageError, unknown

_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_USUAL = ("text", "sentence", "question", "content", "title")


@dataclass(frozen=True)
class Texts:
    """The texts of a source.

    Attributes:
        texts: In the order of the source, none of them blank.
        source: The file or data set.
        column: The column that was read; "" where there are none.
        blank: Number of blank texts that were left out.
        whole: Number of texts in the source, of which these are all or a random sample.
    """

    texts: tuple[str, ...]
    source: str
    column: str
    blank: int
    whole: int


def read_texts(source: str, *, column: str = "", limit: int = 0, seed: int = 42) -> Texts:
    """Return the texts of a file or a data set.

    Args:
        source: A file: .jsonl, .csv and .tsv have columns, others one text per line; .gz is
            unpacked. Or a data set as ``org/name:split`` or ``org/name/config:split``.
        column: The column of the texts; "" takes one with a usual name, such as "text", or the
            only one of objects and data sets.
        limit: At most this many texts, drawn at random; 0 for all.
        seed: Random seed of the sample.

    Raises:
        UsageError: There is no such file, it is not UTF-8, or it has no such column or no text.
        Unavailable: The data set is not available on this machine.
        DataError: The data set is broken.
    """
    path = Path(source).expanduser()
    is_file = path.exists() or ":" not in source
    columns = _read_columns(path) if is_file else _load_columns(source)
    name = _choose(column, columns, source, table=is_file and _kind(path) in {"csv", "tsv"})
    values = columns[name]
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None:
        raise UsageError(
            f"expected texts in column {name!r} of {source}, got {str(wrong)[:40]!r}: "
            "name another with --column"
        )
    texts = [value.strip() for value in values if value.strip()]
    if not texts:
        raise UsageError(f"expected texts in {source}, got only blanks")
    kept = range(len(texts))
    if limit and len(texts) > limit:
        kept = np.sort(np.random.default_rng(seed).permutation(len(texts))[:limit])  # type: ignore[assignment]
    return Texts(tuple(texts[i] for i in kept), source, name, len(values) - len(texts), len(texts))


def _choose(column: str, columns: dict[str, list[Any]], source: str, *, table: bool) -> str:
    """Return the column to read.

    The only column of a table must be named, since its first line may be a text.
    """
    names = list(columns)
    if column in names:
        return column
    if column and names == [""]:
        raise UsageError(f"{source} has lines, not columns: leave --column out")
    if column:
        raise unknown(f"column of {source}", column, names)
    found = [name for name in _USUAL if name in names]
    if found or (len(names) == 1 and not table):
        return [*found, *names][0]
    if len(names) == 1:
        raise UsageError(
            f"{source} begins with {names[0][:40]!r}: if that names the column, give it as "
            "--column; if it is a text, add a line with a name before it"
        )
    raise UsageError(
        f"{source} has the columns {', '.join(names)}: name the column of the texts with --column"
    )


def _load_columns(source: str) -> dict[str, list[Any]]:
    name, _, split = source.rpartition(":")
    org, _, rest = name.partition("/")
    name, _, config = rest.partition("/")
    return dict(load(f"{org}/{name}", split, config=config).data)


def _kind(path: Path) -> str:
    """Return the format of a file by its name: "jsonl", "csv", "tsv", or "lines"."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return _KINDS.get(suffixes[-1], "lines") if suffixes else "lines"


def _read_columns(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a file by name; lines are one column without a name."""
    content, kind = _read_text(path), _kind(path)
    if kind == "lines":
        return {"": content.removesuffix("\n").split("\n")}
    if kind == "jsonl":
        rows: list[dict[str, Any]] = list(_parse_objects(content, path))
    else:
        rows = read_table(content, path, "\t" if kind == "tsv" else ",")
    if not rows:
        raise UsageError(f"expected rows in {path}, got none")
    names = dict.fromkeys(chain(*rows))
    columns: dict[str, list[Any]] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[name] = ["" if value is None else value for value in values]
    return columns


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: save it as plain text in UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(
            "expected a file of texts, or a data set as org/name:split, "
            f"cannot read {str(path)!r}: {reason}"
        ) from error


def _parse_objects(content: str, path: Path) -> Iterator[dict[str, Any]]:
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
