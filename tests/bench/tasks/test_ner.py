"""Named entities: taggers on token states and questions, and a user's own files."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.encoder import QuestionVectors, TokenStates
from bench.errors import DataError, UsageError
from bench.influence import contributions
from bench.tasks import load_task
from bench.tasks.ner import NER, NERByQuestions, Tagged, entity_scores, first_states, question
from bench.tasks.own import ENTITIES
from tests.bench.encoders import Words

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
    write("org/ner", "test", make_sentences(60), names={"ner_tags": NAMES})
    write("org/ner", "train", make_sentences(60, seed=1), names={"ner_tags": NAMES})


# One mean state cannot stand for all the other words.
@pytest.mark.parametrize(("tagger", "least"), [("linear", 0.9), ("prototype", 0.4)])
def test_entities_that_their_words_give_away_are_found(tagger, least, ner_data, encoder):
    scores = NER("toy", test=TEST, train=TRAIN, tagger=tagger).evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 5
    assert scores["recall"].mean > 0.8
    assert scores["f1"].mean > least
    assert set(scores) == {"f1", "precision", "recall"}


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


def own(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_files_in_conll_s_layout_are_tasks(tmp_path, encoder):
    folder = own(tmp_path / "mine", test_conll=CONLL, train_conll=CONLL)
    for kind in ENTITIES:
        task = load_task(f"{kind}:{folder}")
        assert task.name.startswith(f"{kind}:mine-")
        assert str(tmp_path) not in task.name
        assert 0 <= task.evaluate(encoder, seed=0)["f1"].mean <= 1
    task = load_task(f"ner:{folder}")
    assert task.evaluate(encoder, seed=0)["f1"].mean > 0.7  # trained on the sentence with names
    assert load_task(f"ner:{folder}", limit=1).limit == 1
    (folder / "test.conll").write_text(CONLL + CONLL)
    assert load_task(f"ner:{folder}").name != task.name


def test_one_s_own_questions_are_asked(tmp_path, encoder):
    asked = []

    class Asked(Words):
        def encode_questions(self, questions):
            asked.append(list(questions))
            return super().encode_questions(questions)

    mine = '{"person": "Who acts?"}'
    files = {"test_conll": CONLL, "train_conll": CONLL, "questions_json": mine}
    folder = own(tmp_path / "mine", **files)
    for kind in ("ner-question", "ner-start-question"):
        load_task(f"{kind}:{folder}").evaluate(Asked(), seed=0)
    assert asked == [
        ["What is a generic object ?", "What is a location ?", "Who acts?"],
        ["What is a location ?", "Who acts?", "What is a generic object ?"],
    ]
    (folder / "questions.json").write_text("[]")
    with pytest.raises(DataError, match="questions"):
        load_task(f"ner-question:{folder}").evaluate(encoder, seed=0)


def test_every_layout_of_one_s_own_files_has_the_score_of_iob2(tmp_path, encoder):
    layouts = {"iob2": [], "types": [], "bilou": []}
    for sentence in make_sentences(30):
        tags = [*sentence["ner_tags"], 0]
        for i, word in enumerate(sentence["tokens"]):
            tag = NAMES[tags[i]]
            layouts["iob2"].append(f"{word} {tag}")
            layouts["types"].append(f"{word} {tag[2:] or 'O'}")
            letter = {1: "B" if tags[i + 1] == 2 else "U", 2: "L", 3: "U"}.get(tags[i], "")
            layouts["bilou"].append(f"{letter}{tag[1:] if letter else tag}\t{word}")
        for lines in layouts.values():
            lines.append("")
    scores = []
    for name, lines in layouts.items():
        text = "\n".join(lines)
        folder = own(tmp_path / name, test_conll=text, train_conll=text)
        tasks = [load_task(f"{kind}:{folder}") for kind in ENTITIES]
        scores.append([task.evaluate(encoder, seed=0)["f1"].repeats for task in tasks])
    assert scores[0] == scores[1] == scores[2]
    assert scores[0][0][0] > 0.8


def test_tags_of_a_data_set_in_another_scheme_are_read_as_iob2_and_broken_ones_named(write):
    row = {"tokens": ["Ann", "Lee", "in", "Rome"], "ner_tags": ["B-PER", "L-PER", "O", "U-LOC"]}
    write("org/ner", "test", [row])
    assert Tagged("org/ner").load()[0].tags == ("B-PER", "I-PER", "O", "B-LOC")
    write("org/ner", "test", [row, {"tokens": ["Rome"], "ner_tags": ["L-LOC"]}])
    with pytest.raises(DataError, match="row 2, word 1"):
        Tagged("org/ner").load()
    write("org/ner", "test", [{"tokens": ["a", "b"], "ner_tags": [0]}], names={"ner_tags": NAMES})
    with pytest.raises(DataError):
        Tagged("org/ner").load()


def test_sets_that_are_missing_or_without_a_common_type_are_named(tmp_path, encoder):
    with pytest.raises(UsageError, match=r"train\.conll"):
        load_task(f"ner:{own(tmp_path / 'mine', test_conll=CONLL)}")
    no, other = "a O\nb O\n", CONLL.replace("-person", "-PER").replace("-location", "-LOC")
    for name, test, train, told in (
        ("none", no, CONLL, r"test\.conll.* entities"),
        ("untrained", CONLL, no, r"train\.conll.* entities"),
        ("other", CONLL, other, "location, person .*LOC, PER"),
    ):
        folder = own(tmp_path / name, test_conll=test, train_conll=train)
        kinds = [kind for kind in ENTITIES if name == "none" or kind != "ner-question"]
        for kind in kinds:
            task = load_task(f"{kind}:{folder}")
            with pytest.raises(DataError, match=told):
                task.evaluate(encoder, seed=0)
            with pytest.raises(DataError, match=told):
                task.items(seed=0)


def test_words_that_were_cut_away_are_no_entities(ner_data):
    # Every entity begins with the third word.
    scores = NER("toy", test=TEST, train=TRAIN).evaluate(Words(cut=2), seed=0)
    assert scores["f1"].mean == 0
    assert scores["recall"].mean == 0
    assert "precision" not in scores  # of no answers


def test_a_type_is_found_by_the_start_vector_of_its_question_without_training(ner_data, encoder):
    class Ended(Words):
        def encode_questions(self, questions):
            found = super().encode_questions(questions)
            return QuestionVectors(found.start, -found.start)

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
        "misc": "What is a miscellaneous entity ?",
        "MISC": "What is a miscellaneous entity ?",
        "politicalparty": "What is a political party ?",
    }
    assert {kind: question(kind) for kind in expected} == expected


def test_a_word_is_read_at_its_first_sub_token_whatever_the_spans_look_like():
    words = ("Ein", "Haus", "am", "See")  # 0-3, 4-8, 9-11, 12-15
    # A special token, spans with leading spaces, a cut at the end; then one at the beginning.
    spans = np.array([(0, 0), (0, 2), (2, 3), (3, 6), (6, 8), (8, 11)], np.int32)
    found = first_states(words, TokenStates(np.arange(6, dtype=np.float32)[:, None], spans))
    assert found[:3, 0].tolist() == [1.0, 3.0, 5.0]
    assert np.isnan(found[3, 0])
    cut = TokenStates(np.ones((1, 2), np.float32), spans=np.array([(4, 8)], np.int32))
    found = first_states(words[:2], cut)
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [1.0, 1.0]


TAGS = st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"])
SENTENCES = st.lists(st.lists(st.tuples(TAGS, TAGS, TAGS), min_size=1, max_size=6), min_size=1)
"""Three sets of tags a word."""


@given(SENTENCES)
def test_entity_scores_are_seqeval_s_and_the_mean_of_what_sentences_contribute(sentences):
    from seqeval.metrics import f1_score, precision_score, recall_score

    gold, *found = ([[word[k] for word in one] for one in sentences] for k in range(3))
    assume(any(set(tags) != {"O"} for tags in gold))  # else there is no F1
    answers = [tags for tags in found if any(set(one) != {"O"} for one in tags)]
    asked = {
        "f1": (f1_score, found),
        "precision": (precision_score, answers),
        "recall": (recall_score, found),
    }
    expected = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where nothing is found
        for name, (measure, sets) in asked.items():
            expected[name] = [measure(gold, tags, zero_division=0) for tags in sets]
    scores = entity_scores(gold, found)
    assert set(scores) == {name for name, repeats in expected.items() if repeats}
    for name, score in scores.items():
        assert score.repeats == pytest.approx(expected[name], abs=1e-9)
        each = contributions(name, score.examples, score.gold)
        assert len(each) == len(sentences)
        assert each.mean() == pytest.approx(score.mean, abs=1e-5)
