"""Where the training data of all recipes comes from: files, and sets that may be unavailable."""

import gzip
from dataclasses import replace
from functools import partial

import pytest

from adapters._text import count_words
from adapters._training.sources import Source, parse_sources
from adapters._training.texts import TextSource, list_sentences, read_texts
from adapters.dino.data import read_first_texts
from adapters.inbedder.data import AnswerSource, read_examples
from adapters.llm2comp.train import Recipe
from adapters.quip.data import load_passages
from bench.data import load
from bench.errors import DataError, Unavailable, UsageError
from tests.adapters.checks import write_rows

ANSWERS = {"text": ["Rome"], "answer_start": [14]}
SQUAD = {"context": "Anna lives in Rome.", "question": "Where?", "answers": ANSWERS}
READERS = {
    "texts": (read_texts, TextSource, {"text": "One text."}),
    "answers": (partial(read_examples, rows=8, words=60, seed=0), AnswerSource, SQUAD),
    "passages": (load_passages, Source, SQUAD),
}


@pytest.mark.parametrize("name", READERS)
def test_an_unavailable_set_is_skipped_with_a_warning_and_none_at_all_is_an_error(
    name, tmp_path, caplog
):
    read, kind, row = READERS[name]
    file = write_rows(tmp_path / "a.jsonl", [row])
    sources = parse_sources(f"{file},no/such-set", kind)
    found, (record,) = read(sources, load)
    assert found
    assert (record.id, record.rows, len(record.pin["sha256"])) == (str(file), 1, 64)
    assert "no/such-set" in caplog.text
    with pytest.raises(Unavailable, match="--set sources="):
        read(sources[1:], load)
    other = write_rows(tmp_path / "b.jsonl", [{"label": 1}])
    with pytest.raises(DataError):
        read(parse_sources(str(other), kind), load)
    with pytest.raises(UsageError):
        parse_sources("a/b:c:d:e", kind)


def test_a_file_in_the_home_folder_is_named_as_cards_name_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = write_rows(tmp_path / "a.jsonl", [{"text": "One text."}])
    assert parse_sources("~/a.jsonl,~/b.jsonl", Source) == [Source(str(file)), Source("~/b.jsonl")]
    assert Recipe(triples="~/a.jsonl, org/set")._triple_files == [str(file), "org/set"]


def test_paragraphs_of_text_files_are_texts_and_wikitext_is_detokenised(tmp_path):
    (tmp_path / "a.txt").write_text("One text\nof two lines.\n\nAnother one.\n")
    found, _ = read_texts(parse_sources(str(tmp_path / "a.txt"), TextSource), load)
    assert found == ["One text\nof two lines.", "Another one."]
    line = (
        ' The 3 @-@ 2 win ( his first ) was " big " , he said . <unk> went home .'
        " It did n't rain .\n"
    )
    path = write_rows(tmp_path / "wiki.jsonl", [{"text": " = Title = \n"}, {"text": line}])
    source = replace(parse_sources(str(path), TextSource)[0], tokenised=True)
    found, records = read_texts([source], load)
    assert found == ['The 3-2 win (his first) was "big", he said.', "It didn't rain."]
    assert records[0].rows == 2


def read_own(path, reader):
    if reader == "dino":
        return read_first_texts(path, count=9, seed=0)[0]
    if reader == "quip":
        return [passage.text for passage in load_passages([Source(str(path))], load)[0]]
    return read_texts([TextSource(str(path))], load)[0]


CSV = 'id,text,label\n1,"First, one.",0\n2,Second one.,1\n'


@pytest.mark.parametrize("reader", ["texts", "quip", "dino"])
def test_a_file_is_read_as_its_ending_says_or_refused(tmp_path, reader):
    plain = "First, one.\n\nSecond one.\n"
    files = {
        "a.txt": plain.encode(),
        "a.md": plain.replace("\n", "\r\n").encode("utf-8-sig"),  # as Windows saves it
        "a.txt.gz": gzip.compress(plain.encode()),
    }
    if reader != "dino":  # its tables are those of the STS benchmark
        files |= {"a.csv": CSV.encode(), "a.csv.gz": gzip.compress(CSV.encode())}
        files["a.tsv"] = b"id\ttext\n1\tFirst, one.\n2\tSecond one.\n"
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert read_own(tmp_path / name, reader) == ["First, one.", "Second one."], name
    bad = {"a.json": b'{\n"one": "First."\n}', "b.txt": "Z\u00fcrich.".encode("utf-16")}
    bad |= {"c.txt.gz": b"no gzip", "d.txt": "Z\u00fcrich.".encode("latin-1")}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            read_own(tmp_path / name, reader)


@pytest.mark.parametrize(
    ("sentences", "words"),
    [
        (["The cat sat.", "A dog, too!"], 6),
        (["Привет, мир.", "Как дела?", "Хорошо."], 5),
        (["今日は雨です。", "「はい\uff01」", "明日は晴れ\uff1f"], 13),
        (["本当\uff1f\uff01", "雨\u3002\u3002\u3002", "はい\u3002"], 5),
        (["यह एक है।", "यह दो है।"], 6),
        (["هذا نص.", "وهذا آخر؟", "نعم."], 5),
        (["이것은 하나.", "저것은 둘."], 4),
        (["Il part.", "École et lycée.", "«Oui.»", "À demain."], 8),
        (["¿Qué pasa?", "¡Ñandú!", "„Wo?“", "“Here.”", "\u2018Łódź.\u2019", "Fin."], 7),
    ],
)
def test_sentences_and_words_are_found_in_other_scripts_too(sentences, words):
    text = ("" if "雨" in "".join(sentences) else " ").join(sentences)
    assert list_sentences(text) == sentences
    assert count_words(text) == words
