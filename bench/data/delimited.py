"""Rows of CSV and TSV files with any of the usual delimiters.

A record that does not fit the header is an error.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench.errors import UsageError

_DELIMITERS = ",;\t|"

_Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE


class _Reading(NamedTuple):
    """The records of a file for one delimiter, header first, and the fault of the first bad one."""

    delimiter: str
    records: list[list[str]]
    fault: str


def read_table(content: str, path: Path, delimiter: str) -> list[dict[str, str]]:
    """Return the rows of a file by the names of its columns; columns without a name are left out.

    Args:
        content: The text of the file; a first line such as ``sep=;`` names its delimiter.
        path: For messages.
        delimiter: The usual one of such files; others that are in the header are tried too.

    Raises:
        UsageError: A record has more or fewer fields than the header, two columns have the same
            name, or the file is ambiguous.
    """
    records = _choose(list(_try_delimiters(content, delimiter)), path)
    names = records[0]
    if twice := [name for name, n in Counter(names).items() if name and n > 1]:
        raise UsageError(f"{path} has two columns called {twice[0]!r}: rename one of them")
    rows = []
    for record in records[1:]:
        row = dict(zip(names, record, strict=True))
        row.pop("", None)
        rows.append(row)
    return rows


def _try_delimiters(content: str, delimiter: str) -> Iterator[_Reading]:
    """Yield the reading of each possible delimiter, the usual one first."""
    named = re.match(r"sep=(.)\r?\n", content)
    header = content.partition("\n")[0]
    others = [other for other in _DELIMITERS if other in header and other != delimiter]
    for each in [named[1]] if named else [delimiter, *others]:
        yield _read(content, each, csv.QUOTE_MINIMAL, skip=bool(named))
        if each == "\t":  # written without quoting by many tools
            yield _read(content, each, csv.QUOTE_NONE, skip=bool(named))


def _choose(readings: Sequence[_Reading], path: Path) -> list[list[str]]:
    """Return the records of the only reading that fits."""
    whole = [reading for reading in readings if not reading.fault]
    wide = [reading for reading in whole if len(reading.records[0]) > 1]
    if len({(reading.delimiter, len(reading.records)) for reading in wide}) > 1:
        raise UsageError(
            f"{path} is ambiguous in its delimiters or quotes: put quotes round every field, "
            "or save it as .jsonl"
        )
    best = [*wide, *whole, *readings][0]
    if best.fault:
        advice = "put quotes round fields with a delimiter, a quote or a line break"
        raise UsageError(f"{path} {best.fault}; {advice}")
    return best.records


def _read(content: str, delimiter: str, quoting: _Quoting, *, skip: bool) -> _Reading:
    csv.field_size_limit(2**31 - 1)  # the default cuts off at 131,072 characters
    file = io.StringIO(content, newline="")
    before = 1 if skip and file.readline() else 0
    records: list[list[str]] = []
    reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
    begins = before + 1
    try:
        for fields in reader:
            width = len(records[0]) if records else len(fields)
            found = fields or [""] * (width == 1)  # an empty line is an empty field of one column
            if found and len(found) != width:
                fault = f"line {begins}: got {len(found)} fields where the header has {width}"
                return _Reading(delimiter, records, fault)
            records += [found] if found else []
            begins = before + reader.line_num + 1
    except csv.Error as error:
        return _Reading(delimiter, records, f"line {begins}: cannot be read ({error})")
    return _Reading(delimiter, records, "" if records else "has no header")
