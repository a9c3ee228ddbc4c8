"""What is read of the user's files."""

import csv
import gzip
import io
import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.clusters import read_texts
from bench.errors import UsageError


@pytest.fixture
def file(tmp_path):
    def made(name, content):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(tmp_path / name)

    return made


@pytest.mark.parametrize("name", ["a.txt", "a.log", "a", "a.txt.gz", "two.dots.txt.gz"])
def test_every_line_that_is_not_blank_is_a_text(file, name):
    read = read_texts(file(name, "\ufeffone\r\n\n  \ntwo, three\n"))
    assert (read.texts, read.blank, read.whole, read.column) == (("one", "two, three"), 2, 2, "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"id": 1, "text": "one\\ntwo"}\n\n{"id": 2, "text": null}\n{"id": 3}\n'),
        ("a.jsonl.gz", '{"id": 1, "text": "one\\ntwo"}\n{"id": 2, "text": ""}\n{"id": 3}\n'),
        ("a.csv", 'id,text\n1,"one\ntwo"\n2,\n3,\n'),
        ("a.TSV", 'id\ttext\n1\t"one\ntwo"\n2\t\n3\t\n'),
    ],
)
def test_a_column_is_read_and_its_empty_cells_are_blank(file, name, content):
    read = read_texts(file(name, content))
    assert (read.texts, read.blank, read.column) == (("one\ntwo",), 2, "text")


def test_the_only_column_needs_no_name_where_it_is_no_text(file):
    assert read_texts(file("a.csv", "text\ngood\n\nbad\n")).texts == ("good", "bad")
    assert read_texts(file("a.jsonl", '{"remark": "good"}\n')).texts == ("good",)
    path = file("a.tsv.gz", "remark\ngood\nbad\n")
    with pytest.raises(UsageError, match=r"'remark'.*--column"):
        read_texts(path)
    assert read_texts(path, column="remark").texts == ("good", "bad")


TABLE = [["id", "text", ""], *([str(i), f'a,b;c|d "e" {i}\nf', "x"] for i in range(3))]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables_are_read_whichever_delimiter_they_have(file, name, delimiter):
    for end, hint in itertools.product(("\n", "\r\n"), (False, True)):
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(TABLE)
        path = file(name, "\ufeff" + f"sep={delimiter}{end}" * hint + out.getvalue())
        assert read_texts(path).texts == tuple(row[1] for row in TABLE[1:])


def test_long_fields_and_tabs_with_quotes_that_quote_nothing_are_read(file):
    assert read_texts(file("a.csv", f"id,text\n1,{'x' * 1_000_000}\n")).texts == ("x" * 1_000_000,)
    content = 'text\tlabel\n"Yes, he said\t1\n5" wide\t0\n'
    assert read_texts(file("a.tsv", content)).texts == ('"Yes, he said', '5" wide')


@pytest.mark.parametrize(
    ("name", "content", "column", "named"),
    [
        ("a.csv", "text,b\nx,y\n", "txet", "'text'"),
        ("a.csv", "a,b\nx,y\n", "", "a, b"),
        ("a.csv", "", "", "header"),
        ("a.csv", "text\n", "", "rows"),
        ("a.csv", "text\nGreat, fast, good\nslow\n", "", "line 2: got 3 fields"),
        ("a.csv", "id,text\n1,a\n2,b,c\n", "", "line 3: got"),
        ("a.csv", "id,text\n1,one\ntwo\n", "", "line 3: got"),
        ("a.csv", 'id,text\n1,"a\nb"\n2,"c\n', "", "line 4: cannot be read"),
        ("a.csv", 'id,text\n1,"Yes" he said\n', "", "line 2: cannot be read"),
        ("a.tsv", "id\ttext\n1\ta\tb\n", "", "line 2: got"),
        ("a.csv", "sep=;\nid;text\n1;a;b\n", "", "line 3: got"),
        ("a.csv", "id;text\n1;a;b\n", "", "'id;text'"),
        ("a.csv", "text,text\na,b\n", "", "two columns called 'text'"),
        ("a.csv", "text;a,b\nx;y,z\n", "", "ambiguous"),
        ("a.tsv", 'text\ta\n"x\t1\ny"\t2\n', "", "ambiguous"),
        ("a.csv", "Good service\nSlow\n", "", "'Good service'"),
        ("a.txt", "x\n", "text", "lines"),
        ("a.txt", " \n\n", "", "blanks"),
        ("a.txt", b"\xff\xfe\x00", "", "UTF-8"),
        ("a.jsonl", "[1]\n", "", "line 1"),
        ("a.jsonl", '{"text": "x"}\n{"text"\n', "", "line 2"),
        ("a.jsonl", '{"text": 3}\n', "", "column 'text'"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line_that_says_why(
    file, name, content, column, named
):
    with pytest.raises(UsageError) as error:
        read_texts(file(name, content), column=column)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_a_folder_and_a_broken_archive_are_errors(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(b"no gzip")
    for path in (tmp_path / "no.txt", tmp_path, tmp_path / "a.txt.gz"):
        with pytest.raises(UsageError, match="cannot read"):
            read_texts(str(path))


def test_a_data_set_is_named_by_its_id_and_split(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "org" / "name" / "config"
    folder.mkdir(parents=True)
    with gzip.open(folder / "test.jsonl.gz", "wt") as out:
        out.write(json.dumps({"question": "why?"}) + "\n")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    assert read_texts("org/name/config:test").texts == ("why?",)
    with pytest.raises(UsageError):
        read_texts("name:test")


def test_a_limit_draws_the_same_texts_for_a_seed_in_their_order(file):
    path = file("a.txt", "\n".join(map(str, range(100))))
    read = read_texts(path, limit=10, seed=1)
    assert read == read_texts(path, limit=10, seed=1) != read_texts(path, limit=10, seed=2)
    assert (len(read.texts), read.whole) == (10, 100)
    assert list(read.texts) == sorted(read.texts, key=int)
    assert len(read_texts(path).texts) == len(read_texts(path, limit=1000).texts) == 100


WORDS = st.text(st.characters(exclude_categories=("Cs",)))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, min_size=1).filter(lambda texts: any(map(str.strip, texts))))
def test_texts_of_json_lines_come_back_whatever_is_in_them(file, texts):
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    expected = tuple(text.strip() for text in texts if text.strip())
    assert read_texts(file("a.jsonl", "".join(lines))).texts == expected
