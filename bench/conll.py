"""Files with a word a line and its entity tag beside it, in the layouts that the field's tools write, as words and IOB2 tags.

Read are columns separated by tabs, or by spaces where no line has a tab; the tag in any column, such as the last or the first; CoNLL-U,
with the tag in a column or as ``name=TAG`` in the last one; comments before a sentence; ``-DOCSTART-`` lines; a byte order mark; any line
ending; another encoding than UTF-8 where the first line names it, as in ``# -*- coding: latin-1 -*-``. Tags follow IOB1, IOB2, IOBES
(BMES, BMEWO) or BILOU, or are types without a prefix, of which neighbouring equal ones are one entity; ``B`` and ``I`` alone tag entities
of a single type. What has two readings, or none, is an error that names the line.

Source: the shared tasks of CoNLL 2002 and 2003; universaldependencies.org/format.html; the schemes of seqeval's strict mode.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from bench.errors import DataError

_CODING = re.compile(rb"#.*?coding[:=][ \t]*([-\w.]+)")
# What may be a comment; "#" alone may be a word as well.
_COMMENT = re.compile(r"#(\s|#|$|[\w.:-]+\s*=|(begin|end) document)")
_SETTING = re.compile(
    r"#\s*[\w.:-]+\s+=\s"
)  # a comment, also where it has as many columns as a word
_NUMBER = re.compile(r"\d+([-.]\d+)?")
_RANGE = re.compile(r"\d+[-.]\d+")  # of several words, or an empty node, in CoNLL-U
_TAG = re.compile(r"O|[BIESLUMW](-.+)?")
_TYPE = re.compile(r"[^\W\d_][\w &/+.-]*")
_LIKE_PREFIX = re.compile(r"[BIESLUMW]|[BIESLUMW][-_:].+|.+[-_:][BIESLUMW]", re.IGNORECASE)
_CHUNKS = frozenset({
    *("NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP"),
    *("NC", "VC", "PC"),  # of the German files of CoNLL 2003
})  # fmt: skip
_SCHEMES = tuple(map(frozenset, ("BI", "BIES", "BILU", "BMES", "BMEW", "BIEW")))
_SAME = {"L": "E", "U": "S", "W": "S", "M": "I"}
_SINGLE_TYPE = "entity"


class _Line(NamedTuple):
    """A line that is not empty: its number from 1, its text, and its columns."""

    number: int
    text: str
    fields: tuple[str, ...]


class _Place(NamedTuple):
    """Where a line has its tag: in a column, or there behind the key of a ``key=value`` list."""

    column: int
    key: str = ""

    def read(self, line: _Line) -> str:
        value = line.fields[self.column]
        if not self.key:
            return value
        pairs = (part.partition("=") for part in value.split("|"))
        return next((tag for key, _, tag in pairs if key == self.key), "O")


def read_conll(content: bytes, source: str) -> tuple[list[list[str]], list[list[str]]]:
    """Return the words and the IOB2 tags of each sentence.

    Args:
        content: The bytes of the file.
        source: Its name, for messages.

    Raises:
        DataError: A line is broken or has two readings, or there is no sentence.
    """
    groups = _groups(_decode(content, source))
    certain = [[line for line in group if not _COMMENT.match(line.text)] for group in groups]
    lines = [line for group in certain for line in group]
    if not lines:
        raise DataError(f"{source} has no sentences; copy it again")
    _check_widths(lines, source)
    numbered = _is_numbered(certain)
    if numbered:  # ranges and empty nodes have no tags
        groups = [[line for line in one if not _RANGE.fullmatch(line.fields[0])] for one in groups]
        lines = [line for line in lines if not _RANGE.fullmatch(line.fields[0])]
    place = _find_tags(lines, source)
    seen = {place.read(line) for line in lines}
    sentences = [_words(group, seen, lines[0], place, source) for group in groups]
    sentences = [one for one in sentences if one]
    word = next(i for i in range(3) if i != place.column and not (numbered and i == 0))
    _check_words(sentences, word, source)
    tags = convert_to_iob2(
        [[place.read(line) for line in one] for one in sentences],
        lambda i, j: f"{source} line {sentences[i][j].number}",
    )
    return [[line.fields[word] for line in one] for one in sentences], tags


def _decode(content: bytes, source: str) -> str:
    coding = _CODING.match(content)
    encoding = coding[1].decode("ascii", "replace") if coding else "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        return content.decode(encoding)
    except LookupError as error:
        raise DataError(f"{source} line 1: no encoding is called {encoding!r}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{source} line {line}: expected text in {encoding.removesuffix('-sig')}; save it as UTF-8, "
            "or name its encoding in the first line: # -*- coding: latin-1 -*-"
        ) from error


def _groups(text: str) -> list[list[_Line]]:
    """Return the lines between empty lines and lines that begin a document."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    tabs = any("\t" in line.strip() for line in lines if not _COMMENT.match(line))
    groups: list[list[_Line]] = [[]]
    for number, line in enumerate(lines, 1):
        fields = line.rstrip().split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))
        fields = [field.strip(" ") for field in fields]
        if not line.strip() or any(field.startswith("-DOCSTART-") for field in fields):
            groups.append([])
        else:
            groups[-1].append(_Line(number, line, tuple(fields)))
    return groups


def _check_widths(lines: Sequence[_Line], source: str) -> None:
    first = lines[0]
    if len(first.fields) < 2:
        raise DataError(
            f"{source} line {first.number}: expected a word and its tag, got {first.text.strip()[:40]!r}"
        )
    for line in lines:
        if len(line.fields) != len(first.fields):
            raise DataError(
                f"{source} line {line.number}: expected a word and its tag in {len(first.fields)} columns as in line {first.number}, "
                f"got {len(line.fields)} in {line.text.strip()[:40]!r}; a word with a space needs tabs between all columns"
            )


def _is_numbered(groups: Sequence[Sequence[_Line]]) -> bool:
    """Return whether the first of three or more columns counts the words of each sentence, or of the file."""
    lines = [line for group in groups for line in group]
    if len(lines[0].fields) < 3 or not all(_NUMBER.fullmatch(line.fields[0]) for line in lines):
        return False
    before = 0
    for group in groups:
        numbers = [int(line.fields[0]) for line in group if line.fields[0].isdecimal()]
        if numbers and numbers[0] not in {0, 1, before + 1}:
            return False
        if any(second != first + 1 for first, second in pairwise(numbers)):
            return False
        before = numbers[-1] if numbers else before
    return True


def _find_tags(lines: Sequence[_Line], source: str) -> _Place:
    """Return where the tags are: the only place of which every value is a tag; entity tags go before chunks.

    Raises:
        DataError: There is none, or more than one.
    """
    columns = {place: [place.read(line) for line in lines] for place in _places(lines)}
    found = {place for place, tags in columns.items() if all(map(_TAG.fullmatch, tags))}
    found = {p for p in found if not _are_chunks(columns[p])} or found
    if not found:
        _check_prefixes(lines, columns, source)
        found = {
            place
            for place, tags in columns.items()
            if not place.key and "O" in tags and _are_types(tags)
        }
    if len(found) != 1:
        names = " and ".join(str(place.column + 1) for place in sorted(found))
        got = f"tags in columns {names}: keep one of them" if found else "no such column"
        raise DataError(
            f"{source} line {lines[0].number}: expected one column of tags, O and B-TYPE or I-TYPE, or of types, got {got}"
        )
    return found.pop()


def _places(lines: Sequence[_Line]) -> list[_Place]:
    places = [_Place(i) for i in range(len(lines[0].fields))]
    if len(places) != 10:
        return places
    last = {part for line in lines for part in line.fields[-1].split("|")}
    return places + [
        _Place(9, key) for key in sorted({p.partition("=")[0] for p in last if "=" in p})
    ]


def _are_chunks(tags: Sequence[str]) -> bool:
    types = {tag[2:] for tag in tags if tag != "O"}
    return bool(types) and types <= _CHUNKS


def _are_types(tags: Iterable[str]) -> bool:
    types = set(tags) - {"O"}
    return all(_TYPE.fullmatch(t) and not _LIKE_PREFIX.fullmatch(t) for t in types)


def _check_prefixes(lines: Sequence[_Line], columns: dict[_Place, list[str]], source: str) -> None:
    """Refuse the first value that is no tag in a column where most values are, some of them with a prefix."""
    for place, tags in columns.items():
        known = [tag == "O" or _is_prefixed(tag) for tag in tags]
        if 2 * sum(known) > len(known) and any(map(_is_prefixed, tags)):
            i = known.index(False)
            raise DataError(
                f"{source} line {lines[i].number}: expected O, B-TYPE or I-TYPE in column {place.column + 1}, got {tags[i]!r}"
            )


def _is_prefixed(tag: str) -> bool:
    return tag != "O" and "-" in tag and bool(_TAG.fullmatch(tag))


def _words(
    group: Sequence[_Line], seen: set[str], example: _Line, place: _Place, source: str
) -> list[_Line]:
    """Return the lines of a group that hold a word; others are comments, which stand before the first word."""
    found: list[_Line] = []
    for line in group:
        if _has_word(line, seen, example, place):
            found.append(line)
        elif found:
            raise DataError(
                f"{source} line {line.number}: expected a word and its tag, got {line.text.strip()[:40]!r}"
            )
    return found


def _has_word(line: _Line, seen: set[str], example: _Line, place: _Place) -> bool:
    if not _COMMENT.match(line.text):
        return True
    if len(line.fields) != len(example.fields) or _SETTING.match(line.text):
        return False
    tag = place.read(line)
    return tag in seen or bool(_TAG.fullmatch(tag))


def _check_words(sentences: Sequence[Sequence[_Line]], column: int, source: str) -> None:
    """Refuse words that are empty, and a column that holds numbers or names of sentences instead of words."""
    words = [[line.fields[column] for line in one] for one in sentences]
    for one, lines in zip(words, sentences, strict=True):
        if "" in one:
            raise DataError(
                f"{source} line {lines[one.index('')].number}: expected a word, got none"
            )
    longer = [set(one) for one in words if len(one) > 1]
    same = bool(longer) and all(len(one) == 1 for one in longer)
    numbers = all(word.isdecimal() for one in words for word in one)
    if len(sentences[0][0].fields) > 2 and (same or numbers):
        raise DataError(
            f"{source} line {sentences[0][0].number}: expected words in column {column + 1}, got "
            f"{words[0][0]!r} throughout a sentence, or numbers that do not count its words; put the words first"
        )


def convert_to_iob2(
    sentences: Sequence[Sequence[str]], where: Callable[[int, int], str]
) -> list[list[str]]:
    """Return the tags of each sentence in IOB2.

    Args:
        sentences: The tags of each sentence, all in one scheme.
        where: Returns where a tag is, by the number of its sentence and its own in it, for messages.

    Raises:
        DataError: A tag does not follow the scheme of the others, or the scheme has two readings.
    """
    every = {tag for tags in sentences for tag in tags}
    if _are_types(every):
        return [_from_types(tags) for tags in sentences]
    _check_scheme(sentences, where)
    if any(tag[0] not in "OBI" for tag in every):
        return [_from_ends(tags, partial(where, i)) for i, tags in enumerate(sentences)]
    _check_beginnings(sentences, where)
    return [
        [_typed(f"B{tag[1:]}" if _is_orphan(tags, j) else tag) for j, tag in enumerate(tags)]
        for tags in sentences
    ]


def _check_scheme(sentences: Sequence[Sequence[str]], where: Callable[[int, int], str]) -> None:
    letters: set[str] = set()
    typed: set[bool] = set()
    for i, tags in enumerate(sentences):
        for j, tag in enumerate(tags):
            if tag == "O":
                continue
            letters.add(tag[:1])
            typed.add("-" in tag)
            one_scheme = any(letters <= scheme for scheme in _SCHEMES)
            if not _TAG.fullmatch(tag) or len(typed) > 1 or not one_scheme:
                raise DataError(
                    f"{where(i, j)}: expected the tags of one scheme (IOB1, IOB2, IOBES, BILOU, or types alone), got {tag!r}"
                )


def _check_beginnings(sentences: Sequence[Sequence[str]], where: Callable[[int, int], str]) -> None:
    """Refuse files where some entities begin with I, as in IOB1, and others with B after another tag, as in IOB2."""
    places = [(i, j) for i, tags in enumerate(sentences) for j in range(len(tags))]
    orphans = [(i, j) for i, j in places if _is_orphan(sentences[i], j)]
    for i, j in places if orphans else ():
        tags = sentences[i]
        if tags[j][0] == "B" and (j == 0 or tags[j - 1][1:] != tags[j][1:] or tags[j - 1] == "O"):
            one, other = orphans[0]
            raise DataError(
                f"{where(one, other)}: {sentences[one][other]} begins an entity, as in IOB1, but so does {tags[j]} ({where(i, j)}), "
                "as in IOB2; write B at the first word of every entity"
            )


def _is_orphan(tags: Sequence[str], j: int) -> bool:
    """Return whether an entity begins with I."""
    before = tags[j - 1] if j else "O"
    return tags[j][0] == "I" and (before == "O" or before[1:] != tags[j][1:])


def _typed(tag: str) -> str:
    return tag if tag == "O" or "-" in tag else f"{tag}-{_SINGLE_TYPE}"


def _from_types(tags: Sequence[str]) -> list[str]:
    return [
        "O" if tag == "O" else f"{'I' if tag == before else 'B'}-{tag}"
        for before, tag in zip(["O", *tags], tags, strict=False)
    ]


def _from_ends(tags: Sequence[str], where: Callable[[int], str]) -> list[str]:
    """Return the tags of a scheme in which the last word of an entity is told."""
    found: list[str] = []
    begun = None
    for j, tag in enumerate([*tags, "O"]):
        letter, kind = _SAME.get(tag[0], tag[0]), tag[1:]
        inside = letter in {"I", "E"}
        if (kind if inside else None) != begun:
            raise DataError(
                f"{where(min(j, len(tags) - 1))}: expected every entity to end as in IOBES or BILOU, got {tag!r} after {found[-1:]}"
            )
        begun = kind if letter in {"B", "I"} else None
        found.append(tag if tag == "O" else _typed(f"{'I' if inside else 'B'}{kind}"))
    return found[:-1]
