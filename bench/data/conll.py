"""Files with one word and its entity tag per line, as words and IOB2 tags.

Layouts: columns separated by tabs, or by spaces where no line has a tab; the tag in any column;
CoNLL-U, with the tag in a column or as ``name=TAG`` in the last one; comments before a sentence;
``-DOCSTART-`` lines; a byte order mark; any line ending; an encoding other than UTF-8 if the first
line names it, as in ``# -*- coding: latin-1 -*-``.

Tags: IOB1, IOB2, IOBES (BMES, BMEWO), BILOU, or types without a prefix, where equal neighbours are
one entity; ``B`` and ``I`` alone tag entities of a single type. A file that is ambiguous or invalid
is an error that names the line.

Source: the shared tasks of CoNLL 2002 and 2003; universaldependencies.org/format.html; the schemes
of seqeval's strict mode.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import NamedTuple

from bench.errors import DataError

_CODING = re.compile(rb"#.*?coding[:=][ \t]*([-\w.]+)")
# A possible comment; "#" alone may be a word as well.
_COMMENT = re.compile(r"#(\s|#|$|[\w.:-]+\s*=|(begin|end) document)")
# A certain comment, even if it has as many columns as a word.
_SETTING = re.compile(r"#\s*[\w.:-]+\s+=\s")
_NUMBER = re.compile(r"\d+([-.]\d+)?")
_RANGE = re.compile(r"\d+[-.]\d+")  # of several words, or an empty node, in CoNLL-U
_TAG = re.compile(r"O|[BIESLUMW](-.+)?")
_PREFIXED = re.compile(r"[BIESLUMW]-.+")
_TYPE = re.compile(r"[^\W\d_][\w &/+.-]*")
_LIKE_PREFIX = re.compile(r"[BIESLUMW]|[BIESLUMW][-_:].+|.+[-_:][BIESLUMW]", re.IGNORECASE)
# Types of syntactic chunks, which are not entities; the last three are of German files.
_CHUNKS = frozenset("NP VP PP ADVP ADJP SBAR PRT CONJP INTJ LST UCP NC VC PC".split())  # noqa: SIM905 - shorter
_SCHEMES = tuple(map(frozenset, ("BI", "BIES", "BILU", "BMES", "BMEW", "BIEW")))
_IOBES = {"L": "E", "U": "S", "W": "S", "M": "I"}  # letters of other schemes
_SINGLE_TYPE = "entity"


class _Line(NamedTuple):
    """A line that is not empty: its number from 1, its text, and its columns."""

    number: int
    text: str
    fields: tuple[str, ...]


class _Place(NamedTuple):
    """Where a line has its tag: in a column, or as the value of a key in ``key=value|...``."""

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
        DataError: A line is invalid or ambiguous, or there is no sentence.
    """
    sentences = _split_sentences(_decode(content, source))
    certain = [list(filter(_is_word, sentence)) for sentence in sentences]
    lines = list(chain.from_iterable(certain))
    if not lines:
        raise DataError(f"{source} has no sentences; copy it again")
    _check_widths(lines, source)
    numbered = _is_numbered(certain)
    if numbered:
        lines = list(filter(_is_not_range, lines))
        sentences = [list(filter(_is_not_range, sentence)) for sentence in sentences]
    place = _find_tags(lines, source)
    seen = set(map(place.read, lines))
    found = [_drop_comments(sentence, seen, lines[0], place, source) for sentence in sentences]
    sentences = [sentence for sentence in found if sentence]
    column = next(i for i in range(3) if i != place.column and not (numbered and i == 0))
    _check_words(sentences, column, source)
    words = [[line.fields[column] for line in sentence] for sentence in sentences]
    tags = [list(map(place.read, sentence)) for sentence in sentences]
    return words, convert_to_iob2(tags, lambda i, j: _where(source, sentences[i][j]))


def _where(source: str, line: _Line) -> str:
    return f"{source} line {line.number}"


def _is_word(line: _Line) -> bool:
    return not _COMMENT.match(line.text)


def _is_not_range(line: _Line) -> bool:
    return not _RANGE.fullmatch(line.fields[0])


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
            f"{source} line {line}: expected text in {encoding.removesuffix('-sig')}; save it as "
            "UTF-8, or name its encoding in the first line: # -*- coding: latin-1 -*-"
        ) from error


def _split_sentences(text: str) -> list[list[_Line]]:
    """Return the lines between empty lines and lines that begin a document."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    tabs = any("\t" in line.strip() for line in lines if not _COMMENT.match(line))
    sentences: list[list[_Line]] = [[]]
    for number, line in enumerate(lines, 1):
        fields = line.rstrip().split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))
        fields = [field.strip(" ") for field in fields]
        if not line.strip() or any(field.startswith("-DOCSTART-") for field in fields):
            sentences.append([])
        else:
            sentences[-1].append(_Line(number, line, tuple(fields)))
    return sentences


def _check_widths(lines: Sequence[_Line], source: str) -> None:
    """Check that all lines have as many columns as the first, and at least two."""
    first = lines[0]
    if len(first.fields) < 2:
        raise _no_tag(first, source)
    for line in lines:
        if len(line.fields) != len(first.fields):
            raise DataError(
                f"{_where(source, line)}: expected a word and its tag in {len(first.fields)} "
                f"columns as in line {first.number}, got {len(line.fields)} in "
                f"{line.text.strip()[:40]!r}; a word with a space needs tabs between all columns"
            )


def _no_tag(line: _Line, source: str) -> DataError:
    got = line.text.strip()[:40]
    return DataError(f"{_where(source, line)}: expected a word and its tag, got {got!r}")


def _is_numbered(sentences: Sequence[Sequence[_Line]]) -> bool:
    """Say whether the first of three or more columns counts words, by sentence or throughout."""
    last = 0
    for sentence in sentences:
        if any(len(line.fields) < 3 or not _NUMBER.fullmatch(line.fields[0]) for line in sentence):
            return False
        numbers = [int(line.fields[0]) for line in sentence if line.fields[0].isdecimal()]
        if numbers and numbers[0] not in {0, 1, last + 1}:
            return False
        if any(second != first + 1 for first, second in pairwise(numbers)):
            return False
        last = numbers[-1] if numbers else last
    return True


def _find_tags(lines: Sequence[_Line], source: str) -> _Place:
    """Return the only place whose values are all tags; entity tags are preferred to chunks.

    Raises:
        DataError: There is none, or more than one.
    """
    columns = {place: list(map(place.read, lines)) for place in _list_places(lines)}
    found = [place for place, tags in columns.items() if all(map(_TAG.fullmatch, tags))]
    found = [place for place in found if not _are_chunks(columns[place])] or found
    if not found:
        _check_prefixes(lines, columns, source)
        whole = {place: tags for place, tags in columns.items() if not place.key and "O" in tags}
        found = [place for place, tags in whole.items() if _are_types(tags)]
    if len(found) == 1:
        return found[0]
    names = " and ".join(str(place.column + 1) for place in sorted(found))
    got = f"tags in columns {names}: keep one of them" if found else "no such column"
    raise DataError(
        f"{_where(source, lines[0])}: expected one column of tags, O and B-TYPE or I-TYPE, "
        f"or of types, got {got}"
    )


def _list_places(lines: Sequence[_Line]) -> Iterator[_Place]:
    """Yield the columns, and the keys in the last column of CoNLL-U, which has ten."""
    width = len(lines[0].fields)
    yield from map(_Place, range(width))
    if width == 10:
        parts = chain.from_iterable(line.fields[-1].split("|") for line in lines)
        for key in sorted({part.partition("=")[0] for part in parts if "=" in part}):
            yield _Place(9, key)


def _are_chunks(tags: Sequence[str]) -> bool:
    types = {tag[2:] for tag in tags if tag != "O"}
    return bool(types) and types <= _CHUNKS


def _are_types(tags: Iterable[str]) -> bool:
    types = set(tags) - {"O"}
    return all(_TYPE.fullmatch(t) and not _LIKE_PREFIX.fullmatch(t) for t in types)


def _check_prefixes(lines: Sequence[_Line], columns: dict[_Place, list[str]], source: str) -> None:
    """Raise for the first invalid tag of a column in which most are valid, some with a prefix."""
    for place, tags in columns.items():
        prefixed = [bool(_PREFIXED.fullmatch(tag)) for tag in tags]
        valid = [tag == "O" or has_prefix for tag, has_prefix in zip(tags, prefixed, strict=True)]
        if any(prefixed) and 2 * sum(valid) > len(valid):
            i = valid.index(False)
            raise DataError(
                f"{_where(source, lines[i])}: expected O, B-TYPE or I-TYPE in column "
                f"{place.column + 1}, got {tags[i]!r}"
            )


def _drop_comments(
    sentence: Sequence[_Line], seen: set[str], example: _Line, place: _Place, source: str
) -> list[_Line]:
    """Return the lines of a sentence without comments, which are only allowed before words."""
    words: list[_Line] = []
    for line in sentence:
        if _has_word(line, seen, example, place):
            words.append(line)
        elif words:
            raise _no_tag(line, source)
    return words


def _has_word(line: _Line, seen: set[str], example: _Line, place: _Place) -> bool:
    if _is_word(line):
        return True
    if len(line.fields) != len(example.fields) or _SETTING.match(line.text):
        return False
    tag = place.read(line)
    return tag in seen or bool(_TAG.fullmatch(tag))


def _check_words(sentences: Sequence[Sequence[_Line]], column: int, source: str) -> None:
    """Raise for empty words, and for numbers, ids or names of sentences instead of words."""
    constant, numbers = [], []
    is_number = str.isdecimal if column else _has_digit  # no text has one in every word
    for sentence in sentences:
        words = [line.fields[column] for line in sentence]
        if "" in words:
            line = sentence[words.index("")]
            raise DataError(f"{_where(source, line)}: expected a word, got none")
        numbers.append(all(map(is_number, words)))
        if len(words) > 1:
            constant.append(len(set(words)) == 1)
    first = sentences[0][0]
    if len(first.fields) > 2 and (all(numbers) or (constant and all(constant))):
        raise DataError(
            f"{_where(source, first)}: expected words in column {column + 1}, got "
            f"{first.fields[column]!r} throughout a sentence, or numbers in all of them that do "
            "not count its words; put the words first"
        )


def _has_digit(word: str) -> bool:
    return any(map(str.isdecimal, word))


def convert_to_iob2(
    sentences: Sequence[Sequence[str]], where: Callable[[int, int], str]
) -> list[list[str]]:
    """Return the tags of each sentence in IOB2.

    Args:
        sentences: The tags of each sentence, all in one scheme.
        where: Returns the place of a tag for messages, from the index of its sentence and its own
            index there.

    Raises:
        DataError: The tags are not of one scheme, or the scheme is ambiguous.
    """
    every = set(chain.from_iterable(sentences))
    if _are_types(every):
        return list(map(_convert_types, sentences))
    _check_scheme(sentences, where)
    if any(tag[0] not in "OBI" for tag in every):
        return [_convert_iobes(tags, partial(where, i)) for i, tags in enumerate(sentences)]
    _check_beginnings(sentences, where)
    return list(map(_convert_iob, sentences))


def _check_scheme(sentences: Sequence[Sequence[str]], where: Callable[[int, int], str]) -> None:
    letters: set[str] = set()
    typed: set[bool] = set()
    for i, j, tag in _enumerate_tags(sentences):
        if tag == "O":
            continue
        letters.add(tag[:1])
        typed.add("-" in tag)
        one_scheme = any(letters <= scheme for scheme in _SCHEMES)
        if not _TAG.fullmatch(tag) or len(typed) > 1 or not one_scheme:
            raise DataError(
                f"{where(i, j)}: expected the tags of one scheme (IOB1, IOB2, IOBES, BILOU, "
                f"or types alone), got {tag!r}"
            )


def _check_beginnings(sentences: Sequence[Sequence[str]], where: Callable[[int, int], str]) -> None:
    """Raise where some entities begin with I, as in IOB1, and others always with B, as in IOB2."""
    tags = list(_enumerate_tags(sentences))
    orphans = [(i, j) for i, j, _ in tags if _is_orphan(sentences[i], j)]
    for i, j, tag in tags if orphans else ():
        before = sentences[i][j - 1] if j else "O"
        if tag[0] == "B" and (before == "O" or before[1:] != tag[1:]):
            a, b = orphans[0]
            raise DataError(
                f"{where(a, b)}: {sentences[a][b]} begins an entity, as in IOB1, but so does "
                f"{tag} ({where(i, j)}), as in IOB2; write B at the first word of every entity"
            )


def _enumerate_tags(sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, int, str]]:
    for i, tags in enumerate(sentences):
        for j, tag in enumerate(tags):
            yield i, j, tag


def _is_orphan(tags: Sequence[str], j: int) -> bool:
    """Say whether an entity begins here, with I."""
    before = tags[j - 1] if j else "O"
    return tags[j][0] == "I" and (before == "O" or before[1:] != tags[j][1:])


def _add_type(tag: str) -> str:
    return tag if tag == "O" or "-" in tag else f"{tag}-{_SINGLE_TYPE}"


def _convert_types(tags: Sequence[str]) -> list[str]:
    converted = []
    for before, tag in zip(["O", *tags], tags, strict=False):
        prefix = "I" if tag == before else "B"
        converted.append("O" if tag == "O" else f"{prefix}-{tag}")
    return converted


def _convert_iob(tags: Sequence[str]) -> list[str]:
    begun = [f"B{tag[1:]}" if _is_orphan(tags, j) else tag for j, tag in enumerate(tags)]
    return list(map(_add_type, begun))


def _convert_iobes(tags: Sequence[str], where: Callable[[int], str]) -> list[str]:
    """Convert the tags of a scheme that marks the last word of an entity."""
    converted: list[str] = []
    begun = None  # type of an entity that has not ended
    for j, tag in enumerate([*tags, "O"]):
        letter, type_ = _IOBES.get(tag[0], tag[0]), tag[1:]
        inside = letter in {"I", "E"}
        if (type_ if inside else None) != begun:
            raise DataError(
                f"{where(min(j, len(tags) - 1))}: expected every entity to end as in IOBES or "
                f"BILOU, got {tag!r} after {converted[-1:]}"
            )
        begun = type_ if letter in {"B", "I"} else None
        converted.append(tag if tag == "O" else _add_type(f"{'I' if inside else 'B'}{type_}"))
    return converted[:-1]
