"""Files of words with entity tags: every layout and scheme gives the same entities as IOB2."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import scheme as strict

from bench.data.conll import convert_to_iob2, read_conll
from bench.errors import DataError

TYPES = st.sampled_from(["PER", "LOC", "ORG", "Other", "creative-work", "B"])
WORDS = st.text(
    st.characters(codec="latin-1", categories=("L", "N", "P", "S")), min_size=1, max_size=5
).filter(lambda word: not word.startswith("-DOCSTART-"))
# A sentence: groups of words with their type, "" for no entity. The first has only words.
GROUPS = st.tuples(st.one_of(st.just(""), TYPES), st.lists(WORDS, min_size=1, max_size=4))
DOCUMENTS = st.lists(st.lists(GROUPS, min_size=1, max_size=5), max_size=4).map(
    lambda made: [[("", ["Then", "."]), ("PER", ["Ann", "Lee"])], *made]
)


def words_of(document):
    return [[word for _, words in sentence for word in words] for sentence in document]


def tagged(document, first, inside, last, single):
    """The tags of a scheme that has these letters for the places of a word in its entity."""

    def tags(kind, n):
        letters = single if n == 1 else first + inside * (n - 2) + last
        return ["O"] * n if not kind else [f"{letter}-{kind}" for letter in letters]

    return [[t for kind, words in s for t in tags(kind, len(words))] for s in document]


def iob1(document):
    """B only where a neighbour of the same type goes before."""
    tags = tagged(document, "I", "I", "I", "I")
    for sentence, found in zip(document, tags, strict=True):
        start = 0
        for (before, _), (kind, words) in zip([("", []), *sentence], sentence, strict=False):
            found[start] = f"B-{kind}" if kind and kind == before else found[start]
            start += len(words)
    return tags


LETTERS = {"IOB2": "BIIB", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
SCHEMES = ("IOB1", *LETTERS)


def tag(document, scheme):
    return iob1(document) if scheme == "IOB1" else tagged(document, *LETTERS[scheme])


def conllu(i, word, tag):
    columns = [str(i), word, "_", "NOUN", "NN", "_", "0", "root", "_"]
    return "\t".join([*columns, f"ner={tag}|SpaceAfter=No"])


LAYOUTS = {
    "tag last": lambda i, word, tag: f"{word} {tag}",
    "tag first": lambda i, word, tag: f"{tag}\t{word}",
    "tabs": lambda i, word, tag: f"{word} {word}\t{tag}",
    "further columns": lambda i, word, tag: f"{word} NN B-NP {tag}",
    "blanks": lambda i, word, tag: f"{word}   _ _  {tag} ",
    "numbered": lambda i, word, tag: f"{i}\t{word}\t{tag}\t-\tname",
    "CoNLL-U": conllu,
}


def written(layout, words, tags, *, comment="", end="\n"):
    lines = []
    for sentence in zip(words, tags, strict=True):
        lines += [comment] if comment else []
        lines += [
            LAYOUTS[layout](i, *pair) for i, pair in enumerate(zip(*sentence, strict=True), 1)
        ]
        lines.append("")
    return end.join(lines)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=20)
@given(document=DOCUMENTS)
def test_every_scheme_tells_the_entities_of_iob2_and_of_seqeval_s_strict_mode(scheme, document):
    tags, expected = (tag(document, name) for name in (scheme, "IOB2"))
    assert convert_to_iob2(tags, lambda i, j: "") == expected
    if hasattr(strict, scheme):
        found = strict.Entities(tags, scheme=getattr(strict, scheme)).entities
        assert found == strict.Entities(expected, scheme=strict.IOB2).entities


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=10)
@given(
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    comment=st.sampled_from(["", "# id 4c0f0\tdomain=train", "# text = O"]),
    document=DOCUMENTS,
    scheme=st.sampled_from(SCHEMES),
)
def test_every_layout_holds_the_same_words_and_tags(layout, end, comment, document, scheme):
    words = words_of(document)
    expected = [[f"{w} {w}" for w in s] for s in words] if layout == "tabs" else words
    text = written(layout, words, tag(document, scheme), comment=comment, end=end)
    contents = [
        text.encode(),
        codecs.BOM_UTF8 + text.encode(),
        text.encode("utf-16"),
        f"# -*- coding: latin-1 -*-{end}{end}{text}".encode("latin-1"),
        f"-DOCSTART- -X- O O{end}{end}{text}".encode(),
    ]
    for content in contents:
        assert read_conll(content, "a.conll") == (expected, tag(document, "IOB2"))


@settings(max_examples=20)
@given(DOCUMENTS)
def test_types_alone_tell_the_same_entities_where_none_touch(document):
    apart = [[part for group in sentence for part in (group, ("", [","]))] for sentence in document]
    apart = [[("X" if kind == "B" else kind, words) for kind, words in s] for s in apart]
    expected = tag(apart, "IOB2")
    types = [[each.partition("-")[2] or "O" for each in sentence] for sentence in expected]
    assert read_conll(written("tabs", words_of(apart), types).encode(), "")[1] == expected


CHUNKS = "-DOCSTART- -X- O O\n\nEU NNP I-NP {}\nis VBZ I-VP O\nGerman JJ I-NP {}\n"


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("a B\nb I\nc O\nd B\n", "a/B-entity b/I-entity c/O d/B-entity"),
        ("# words\n#nofilter O\n#Rome B-LOC\n\n#Oslo O\n", "#nofilter/O #Rome/B-LOC|#Oslo/O"),
        (CHUNKS.format("I-ORG", "I-MISC"), "EU/B-ORG is/O German/B-MISC"),
        (CHUNKS.format("O", "O"), "EU/O is/O German/O"),
    ],
    ids=["tags without a type are of one", "words begin with a hash", "chunks", "only chunks"],
)
def test_what_is_a_word_and_what_its_tag(content, read):
    sentences = zip(*read_conll(content.encode(), ""), strict=True)
    pairs = [zip(words, tags, strict=True) for words, tags in sentences]
    assert "|".join(" ".join(map("/".join, each)) for each in pairs) == read


def test_ranges_and_empty_nodes_of_conll_u_are_no_words():
    rows = [("1-2", "_"), ("1", "O"), ("2", "B-PER"), ("2.1", "_"), ("3", "I-PER")]
    text = "".join(f"{i}\tw{i}\t" + "_\t" * 7 + f"{'NER=' * (t != '_')}{t}\n" for i, t in rows)
    assert read_conll(text.encode(), "") == ([["w1", "w2", "w3"]], [["O", "B-PER", "I-PER"]])
    text = "".join(f"{i}\tw{i}\t{t}\n" for i, t in rows)
    assert read_conll(text.encode(), "") == ([["w1", "w2", "w3"]], [["O", "B-PER", "I-PER"]])


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("\n", "no sentences"),
        ("Rome B-LOC\nlonely\n", "line 2: expected a word and its tag"),
        ("Rome,B-LOC\n", "line 1: expected a word and its tag"),
        ("a O\nNew York B-LOC\n", "line 2: .* 2 columns"),
        ("a\tO\nYork B-LOC\n", "line 2: .* 2 columns"),
        ("a\tO\n\tB-LOC\n", "line 2: expected a word"),
        ("a O\n#lonely\n", "line 2: expected a word and its tag"),
        ("#lonely\na O\n", "line 1: expected a word and its tag"),
        ("a O\nb LOC\nc B-LOC\n", "line 2: expected O, B-TYPE"),
        ("a O\nb b-LOC\n", "line 1: expected one column of tags"),
        ("a O\nb LOC_B\n", "line 1: expected one column of tags"),
        ("a _ _\nb _ _\n", "line 1: expected one column of tags"),
        ("a (LOC*\nb *)\n", "line 1: expected one column of tags"),
        ("a B-LOC B-PER\n", "columns 2 and 3"),
        ("doc a O\ndoc b B-LOC\n", "expected words in column 1"),
        ("1 a O\n1 b B-LOC\n", "expected words in column 1"),
        ("s1t1 a O\ns1t2 b B-LOC\n\ns2t1 a O\n", "expected words in column 1"),
        ("0:1 a O\n2:3 b B-LOC\n", "expected words in column 1"),
        ("a I-LOC\nb O\nc B-LOC\n", r"line 1: I-LOC .*line 3"),
        ("a B-LOC\nb I-PER\n", "line 2: I-PER .*line 1"),
        ("a B-LOC\nb L-PER\n", "line 2: .* end"),
        ("a U-LOC\nb B-LOC\nc O\n", "line 3: .* end"),
        ("a U-LOC\n\nb B-LOC\n\nc O\n", "line 3: .* end"),
        ("a U-LOC\nb S-LOC\n", "line 2: .* one scheme"),
        ("a B-LOC\nb B\n", "line 2: .* one scheme"),
        (b"a O\n\xe9 O\n", "line 2: .* coding: latin-1"),
        (b"# -*- coding: nonsense -*-\na O\n", "line 1: no encoding"),
    ],
)
def test_what_is_broken_or_has_two_readings_is_refused_with_its_line(content, hint):
    with pytest.raises(DataError, match=rf"a\.conll .*{hint}|a\.conll {hint}") as error:
        read_conll(content if isinstance(content, bytes) else content.encode(), "a.conll")
    assert "\n" not in str(error.value)
