"""Files of rows as columns (JSON Lines, CSV, TSV, Parquet, CoNLL), and class names beside them."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.data.catalog import Columns
from bench.data.conll import read_conll
from bench.data.delimited import read_table
from bench.errors import DataError

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_CODE = re.compile(r"[-+]?0\d+")  # 007 is another name than 7
_IDS = frozenset({"query-id", "corpus-id"})  # of judgements, where 1.10 is another one than 1.1
_MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})  # beside numbers


def parse_columns(path: Path, content: bytes) -> Columns:
    """Return the columns of a file's unpacked content, by the format that its name says.

    Raises:
        DataError: The content is not of this format; the message names the line.
    """
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind == ".conll":
        words, tags = read_conll(content, str(path))
        return {"tokens": words, "ner_tags": tags}
    if kind in {".csv", ".tsv"}:
        return _parse_delimited(path, content, "," if kind == ".csv" else "\t")
    if kind == ".parquet":
        return _parse_parquet(path, content)
    return _parse_json(path, content)


def _parse_delimited(path: Path, content: bytes, delimiter: str) -> Columns:
    """Return the columns of CSV or TSV; one of numbers is numbers, with None where one is missing.

    Whole numbers with a leading 0 are texts, and so are all ids of judgements.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: save it as text in UTF-8") from error
    rows = read_table(text, path, delimiter)
    if not rows:
        raise DataError(f"{path} has no rows; copy it again")
    return {
        name: values if name in _IDS else _parse_numbers(values)
        for name, values in _transpose(rows).items()
    }


def _parse_numbers(values: list[str]) -> list[Any]:
    stripped = [value.strip() for value in values]
    given = [value for value in stripped if value.lower() not in _MISSING]
    if not given or not all(map(_NUMBER.fullmatch, given)) or any(map(_CODE.fullmatch, given)):
        return values
    whole = all(re.fullmatch(r"[-+]?\d+", value) for value in given)
    number: type[int | float] = int if whole else float
    return [None if value.lower() in _MISSING else number(value) for value in stripped]


def _parse_parquet(path: Path, content: bytes) -> Columns:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow; pip install pyarrow, or save it as .jsonl"
        ) from error
    try:
        return dict(parquet.read_table(io.BytesIO(content)).to_pydict())
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot read Parquet ({reason}); copy it again") from error


def _parse_json(path: Path, content: bytes) -> Columns:
    """Return the columns of JSON lines."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines(), 1):
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: expected a JSON object ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object, got {line[:40]!r}")
        if rows and row.keys() != rows[0].keys():
            columns = ", ".join(rows[0])
            raise DataError(f"{where}: expected the columns {columns}, got {', '.join(row)}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has no rows; copy it again")
    return _transpose(rows)


def _transpose(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the columns of rows that have the same keys."""
    columns: Columns = {}
    for name in rows[0]:
        columns[name] = [row[name] for row in rows]
    return columns


def read_classes(folder: Path, root: Path) -> dict[str, list[str]]:
    """Return the class names in the nearest features.json, in the folder or above it."""
    for place in (folder, *folder.parents):
        path = place / "features.json"
        if path.is_file():
            try:
                features = json.loads(path.read_bytes())
                return {column: list(value["names"]) for column, value in features.items()}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                expected = '{"column": {"names": [...]}}'
                raise DataError(f"{path}: expected {expected} ({error!r})") from error
        if place == root:
            break
    return {}
