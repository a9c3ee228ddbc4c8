"""Where the training data of all recipes comes from: files, and sets that may be unavailable."""

from dataclasses import replace
from functools import partial

import pytest

from adapters._training.sources import Source, parse_sources
from adapters._training.texts import TextSource, read_texts
from adapters.inbedder.data import AnswerSource, read_examples
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
