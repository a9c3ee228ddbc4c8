"""Named entities: taggers on token states and questions, and a user's own files."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench.encoder import TokenStates
from bench.errors import DataError, UsageError
from bench.stats.influence import contributions
from bench.tasks import load_task
from bench.tasks.ner import NER, NERByQuestions, Tagged, entity_scores, first_states, question
from bench.tasks.own import ENTITIES
from tests.bench.encoders import Ended, Words

NAMES = ["O", "B-person", "I-person", "B-location", "I-location"]
TEST, TRAIN = Tagged("org/ner"), (Tagged("org/ner", "train"),)


def make_sentences(n, seed=0):
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
    for split, seed in (("test", 0), ("train", 1)):
        write("org/ner", split, make_sentences(60, seed), names={"ner_tags": NAMES})


# One mean state cannot stand for all the other words.
@pytest.mark.parametrize(("tagger", "least"), [("linear", 0.9), ("prototype", 0.4)])
def test_entities_that_their_words_give_away_are_found(tagger, least, ner_data, encoder):
    task = NER("toy", test=TEST, train=TRAIN, tagger=tagger)
    scores = task.evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 5
    assert scores["recall"].mean > 0.8
    assert scores["f1"].mean > least
    # Every entity begins with the third word.
    scores = task.evaluate(Words(cut=2), seed=0)
    assert (scores["f1"].mean, scores["recall"].mean) == (0, 0)
    assert "precision" not in scores  # of no answers


def test_given_training_sets_are_the_repeats_and_tags_may_be_words(write, encoder):
    rows = make_sentences(30)
    for row in rows:
        row["ner_tags"] = [NAMES[tag] for tag in row["ner_tags"]]
    for split in ("test", "few_shot_5_0", "few_shot_5_1"):
        write("org/ner", split, rows)
    train = tuple(Tagged("org/ner", f"few_shot_5_{i}") for i in range(2))
    scores = NER("toy", test=TEST, train=train, shots=None).evaluate(encoder, seed=0)
    assert scores["f1"].repeats == (1.0, 1.0)


CONLL = """-DOCSTART- -X- O O

She PRP B-person
saw VBD O
Rome NNP B-location

It PRP O
rained VBD O
"""


def own(folder, test=CONLL, train=CONLL, **files):
    """A folder of a user's files; one that is None is not there."""
    folder.mkdir(exist_ok=True)
    for name, text in {"test_conll": test, "train_conll": train, **files}.items():
        if text is not None:
            (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_the_name_of_a_task_on_one_s_own_files_has_a_hash_of_them(tmp_path):
    folder = own(tmp_path / "mine")
    task = load_task(f"ner:{folder}", limit=1)
    assert task.name.startswith("ner:mine-")
    assert (task.limit, str(tmp_path) in task.name) == (1, False)
    assert load_task(f"ner:{own(folder, CONLL * 2)}").name != task.name


def test_one_s_own_questions_are_asked(tmp_path, encoder, caplog):
    location, generic = "What is a location ?", "What is a generic object ?"
    folder = own(tmp_path / "mine", questions_json='{"person": "Who acts?"}')
    for kind in ("ner-question", "ner-start-question"):
        load_task(f"{kind}:{folder}").evaluate(encoder, seed=0)
    assert encoder.told("encode_questions") == [
        [generic, location, "Who acts?"],
        [location, "Who acts?", generic],
    ]
    (folder / "questions.json").write_text('{"person": "Who acts?", "PERSON": "Who is it?"}')
    with caplog.at_level("WARNING"):
        load_task(f"ner-question:{folder}").evaluate(encoder, seed=0)
    assert "questions for PERSON, which no tag has" in caplog.text
    (folder / "questions.json").write_text("[]")
    with pytest.raises(DataError, match="questions"):
        load_task(f"ner-question:{folder}").evaluate(encoder, seed=0)


def test_one_s_own_files_in_any_scheme_are_scored(tmp_path, encoder):
    """``test_conll`` has the layouts and schemes."""
    text = "".join("the O\nfine O\nann U-person\nlee O\n\nin O\nrome U-location\n\n" for _ in "ab")
    folder = own(tmp_path / "mine", text, text)
    scores = [load_task(f"{kind}:{folder}").evaluate(encoder, seed=0)["f1"] for kind in ENTITIES]
    assert scores[0].mean == 1


def test_tags_of_a_data_set_in_another_scheme_are_read_as_iob2_and_broken_ones_named(write):
    row = {"tokens": ["Ann", "Lee", "in", "Rome"], "ner_tags": ["B-PER", "L-PER", "O", "U-LOC"]}
    write("org/ner", "test", [row])
    assert Tagged("org/ner").load()[0].tags == ("B-PER", "I-PER", "O", "B-LOC")
    for broken, told in (
        ({"tokens": ["Rome"], "ner_tags": ["L-LOC"]}, "row 2, word 1"),
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "row 2"),
    ):
        write("org/ner", "test", [row, broken])
        with pytest.raises(DataError, match=told):
            Tagged("org/ner").load()


def test_sets_that_are_missing_or_without_a_common_type_are_named(tmp_path, encoder):
    with pytest.raises(UsageError, match=r"train\.conll"):
        load_task(f"ner:{own(tmp_path / 'mine', train=None)}")
    no, other = "a O\nb O\n", CONLL.replace("-person", "-PER").replace("-location", "-LOC")
    for name, test, train, told in (
        ("none", no, CONLL, r"test\.conll.* entities"),
        ("untrained", CONLL, no, r"train\.conll.* entities"),
        ("other", CONLL, other, "location, person .*LOC, PER"),
    ):
        folder = own(tmp_path / name, test, train)
        for kind in ENTITIES:
            if name == "none" or kind != "ner-question":
                task = load_task(f"{kind}:{folder}")
                for read in (task.items, lambda seed, task=task: task.evaluate(encoder, seed=seed)):
                    with pytest.raises(DataError, match=told):
                        read(seed=0)


def test_types_that_only_the_test_sentences_have_are_told(tmp_path, caplog):
    folder = own(tmp_path / "mine", CONLL, CONLL.replace("-person", "-PER"))
    load_task(f"ner:{folder}").load(0)
    assert "no training sentence has the types person, so" in caplog.text
    caplog.clear()
    load_task(f"ner:{own(tmp_path / 'same')}").load(0)
    assert not caplog.text


def test_a_type_is_found_by_the_start_vector_of_its_question_without_training(ner_data, encoder):
    task = NERByQuestions("toy", test=TEST)
    ours, ended = (task.evaluate(each, seed=0) for each in (encoder, Ended()))
    assert ours["f1"].repeats == ended["f1"].repeats
    assert len(ours["f1"].repeats) == 1
    # "location" is in its own question; "ann" and "smith" are in none.
    assert ours["recall"].mean > 0.2


def test_questions_name_the_type_with_its_article():
    expected = {
        "person": "Who is a person ?",
        "PER": "Who is a person ?",
        "creative-work": "What is a creative work ?",
        "LOC": "What is a location ?",
        "O": "What is a generic object ?",
        "ORG": "What is an organization ?",
        "event": "What is an event ?",
        "MISC": "What is a miscellaneous entity ?",
        "politicalparty": "What is a political party ?",
    }
    assert {kind: question(kind) for kind in expected} == expected


def test_a_word_is_read_at_its_first_sub_token_whatever_the_spans_look_like():
    words = ("Ein", "Haus", "am", "See")  # 0-3, 4-8, 9-11, 12-15
    # A special token, spans with leading spaces, a cut at the end; then one at the beginning.
    for spans, expected in (
        ([(0, 0), (0, 2), (2, 3), (3, 6), (6, 8), (8, 11)], [1.0, 3.0, 5.0, np.nan]),
        ([(4, 8)], [np.nan, 0.0, np.nan, np.nan]),
    ):
        states = np.arange(len(spans), dtype=np.float32)[:, None]
        found = first_states(words, TokenStates(states, np.array(spans, np.int32)))
        np.testing.assert_array_equal(found[:, 0], expected)


TAGS = st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"])
SENTENCES = st.lists(st.lists(st.tuples(TAGS, TAGS, TAGS), min_size=1, max_size=6), min_size=1)
"""Three sets of tags a word."""


@settings(max_examples=40)
@given(SENTENCES)
def test_entity_scores_are_seqeval_s_and_the_mean_of_what_sentences_contribute(sentences):
    from seqeval.metrics import f1_score, precision_score, recall_score

    gold, *found = ([[word[k] for word in one] for one in sentences] for k in range(3))
    assume(any(set(tags) != {"O"} for tags in gold))  # else there is no F1
    answers = [tags for tags in found if any(set(one) != {"O"} for one in tags)]
    scores = entity_scores(gold, found)
    assert ("precision" in scores) == bool(answers)
    for name, measure, sets in (
        ("f1", f1_score, found),
        ("precision", precision_score, answers),
        ("recall", recall_score, found),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval warns where nothing is found
            expected = [measure(gold, tags, zero_division=0) for tags in sets]
        if expected:
            score = scores[name]
            assert score.repeats == pytest.approx(expected, abs=1e-9)
            each = contributions(name, score.examples, score.gold)
            assert len(each) == len(sentences)
            assert each.mean() == pytest.approx(score.mean, abs=1e-5)
