import numpy as np
import pytest

from bench.encoder import TokenStates
from bench.errors import DataError
from bench.tasks.ner import NER, NERByQuestions, Tagged, first_states, question

NAMES = ["O", "B-person", "I-person", "B-location", "I-location"]
TEST, TRAIN = Tagged("org/ner"), (Tagged("org/ner", "train"),)


def _sentences(n, seed=0):
    """Sentences in which every entity word tells its tag."""
    rng = np.random.default_rng(seed)
    entities = [(["person", "smith"], [1, 2]), (["location"], [3]), (["ann"], [1])]
    rows = []
    for i in range(n):
        words, tags = entities[i % 3]
        filler = [f"w{j}" for j in rng.choice(40, 4)]
        rows.append({"tokens": [*filler[:2], *words, *filler[2:]], "ner_tags": [0, 0, *tags, 0, 0]})
    return rows


@pytest.fixture
def ner_data(write):
    write("org/ner", "test", _sentences(60), names={"ner_tags": NAMES})
    write("org/ner", "train", _sentences(60, seed=1), names={"ner_tags": NAMES})


@pytest.mark.parametrize("tagger", ["linear", "prototype"])
def test_entities_that_their_words_give_away_are_found(tagger, ner_data, encoder):
    scores = NER("toy", TEST, TRAIN, tagger=tagger).evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 5
    assert scores["recall"].mean > 0.8
    assert scores["f1"].mean > (0.9 if tagger == "linear" else 0.4)  # one mean state cannot stand for all the other words
    assert set(scores) == {"f1", "precision", "recall"}


def test_the_draws_follow_the_seed(ner_data, encoder):
    task = NER("toy", TEST, TRAIN, shots=2, tagger="prototype")
    first, again, other = (task.evaluate(encoder, seed=s)["f1"].repeats for s in (1, 1, 2))
    assert first == again != other


def test_given_training_sets_are_the_repeats_and_tags_may_be_words(write, encoder):
    rows = [{**row, "ner_tags": [NAMES[t] for t in row["ner_tags"]]} for row in _sentences(30)]
    for split in ("test", "few_shot_5_0", "few_shot_5_1"):
        write("org/ner", split, rows)
    train = tuple(Tagged("org/ner", f"few_shot_5_{i}") for i in range(2))
    assert NER("toy", TEST, train, shots=None).evaluate(encoder, seed=0)["f1"].repeats == (1.0, 1.0)


def test_words_that_were_cut_away_are_no_entities(ner_data, make_encoder):
    scores = NER("toy", TEST, TRAIN).evaluate(make_encoder(cut=2), seed=0)  # every entity begins with the third word
    assert scores["f1"].mean == 0
    assert scores["recall"].mean == 0


def test_questions_find_the_words_they_name_without_training(ner_data, encoder):
    scores = NERByQuestions("toy", TEST).evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 1
    assert scores["recall"].mean > 0.2  # "location" is in its own question; "ann" and "smith" are in none


def test_questions_name_the_type_with_its_article():
    assert question("person") == "Who is a person ?"
    assert question("creative-work") == "What is a creative work ?"
    assert question("ORG") == "What is an organization ?"
    assert question("event") == "What is an event ?"


def test_a_word_is_read_at_its_first_sub_token_whatever_the_spans_look_like():
    words = ("Ein", "Haus", "am", "See")  # 0-3, 4-8, 9-11, 12-15
    spans = np.array([(0, 0), (0, 2), (2, 3), (3, 6), (6, 8), (8, 11)], np.int32)  # a special token, spans with leading spaces, a cut
    states = np.arange(6, dtype=np.float32)[:, None]
    found = first_states(words, TokenStates(states, spans))[:, 0]
    assert found[:3].tolist() == [1.0, 3.0, 5.0]
    assert np.isnan(found[3])


def test_a_text_cut_at_its_beginning_lacks_its_first_words():
    spans = np.array([(4, 8)], np.int32)
    found = first_states(("Ein", "Haus"), TokenStates(np.ones((1, 2), np.float32), spans))
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [1.0, 1.0]


def test_a_sentence_with_a_tag_too_few_is_an_error(write, encoder):
    write("org/ner", "test", [{"tokens": ["a", "b"], "ner_tags": [0]}], names={"ner_tags": NAMES})
    with pytest.raises(DataError):
        Tagged("org/ner").load()
