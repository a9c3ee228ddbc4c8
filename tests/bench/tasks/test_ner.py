import numpy as np
import pytest

from bench.encoder import QuestionVectors, TokenStates
from bench.errors import DataError, UsageError
from bench.tasks import load_task
from bench.tasks.ner import NER, NERByQuestions, Tagged, first_states, question
from bench.tasks.own import ENTITIES

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
    scores = NER("toy", test=TEST, train=TRAIN, tagger=tagger).evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 5
    assert scores["recall"].mean > 0.8
    assert scores["f1"].mean > (
        0.9 if tagger == "linear" else 0.4
    )  # one mean state cannot stand for all the other words
    assert set(scores) == {"f1", "precision", "recall"}


def test_the_draws_follow_the_seed(ner_data, encoder):
    task = NER("toy", test=TEST, train=TRAIN, shots=2, tagger="prototype")
    first, again, other = (task.evaluate(encoder, seed=s)["f1"].repeats for s in (1, 1, 2))
    assert first == again != other


def test_given_training_sets_are_the_repeats_and_tags_may_be_words(write, encoder):
    rows = [{**row, "ner_tags": [NAMES[t] for t in row["ner_tags"]]} for row in _sentences(30)]
    for split in ("test", "few_shot_5_0", "few_shot_5_1"):
        write("org/ner", split, rows)
    train = tuple(Tagged("org/ner", f"few_shot_5_{i}") for i in range(2))
    assert NER("toy", test=TEST, train=train, shots=None).evaluate(encoder, seed=0)[
        "f1"
    ].repeats == (1.0, 1.0)


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
    sentences = Tagged(str(folder / "test.conll")).load()
    assert [(s.words, s.tags) for s in sentences] == [
        (("She", "saw", "Rome"), ("B-person", "O", "B-location")),
        (("It", "rained"), ("O", "O")),
    ]
    for kind in ENTITIES:
        task = load_task(f"{kind}:{folder}")
        assert task.name.startswith(f"{kind}:mine-")
        assert str(tmp_path) not in task.name
        assert 0 <= task.evaluate(encoder, seed=0)["f1"].mean <= 1
    assert (
        load_task(f"ner:{folder}").evaluate(encoder, seed=0)["f1"].mean > 0.7
    )  # trained on the sentence with names
    assert load_task(f"ner:{folder}", limit=1).limit == 1
    (folder / "test.conll").write_text(CONLL + CONLL)
    assert load_task(f"ner:{folder}").name != task.name.replace("ner-tuned-standard", "ner")


def test_one_s_own_questions_are_asked(tmp_path, encoder):
    asked = []

    class Asked(type(encoder)):
        def encode_questions(self, questions):
            asked.append(list(questions))
            return super().encode_questions(questions)

    folder = own(
        tmp_path / "mine",
        test_conll=CONLL,
        train_conll=CONLL,
        questions_json='{"person": "Who acts?"}',
    )
    load_task(f"ner-question:{folder}").evaluate(Asked(), seed=0)
    load_task(f"ner-start-question:{folder}").evaluate(Asked(), seed=0)
    assert asked == [
        ["What is a generic object ?", "What is a location ?", "Who acts?"],
        ["What is a location ?", "Who acts?", "What is a generic object ?"],
    ]
    (folder / "questions.json").write_text("[]")
    with pytest.raises(DataError, match="questions"):
        load_task(f"ner-question:{folder}").evaluate(encoder, seed=0)


def test_files_of_one_s_own_that_are_missing_or_broken_are_one_line_errors(tmp_path):
    with pytest.raises(UsageError, match=r"train\.conll"):
        load_task(f"ner:{own(tmp_path / 'mine', test_conll=CONLL)}")
    broken = own(tmp_path / "broken", test_conll="Rome B-location\nlonely\n", train_conll="\n")
    with pytest.raises(DataError, match="line 2: expected a word and its tag"):
        Tagged(str(broken / "test.conll")).load()
    with pytest.raises(DataError, match="no sentences"):
        Tagged(str(broken / "train.conll")).load()


def test_every_layout_of_one_s_own_files_has_the_score_of_iob2(tmp_path, encoder):
    rows = [(w, t) for s in _sentences(30) for w, t in [*zip(*s.values(), strict=True), ("", "")]]
    last = {1: "U", 3: "U"}  # of the three kinds of sentences, "person smith" has two words

    def bilou(i, tag):
        more = i + 1 < len(rows) and rows[i + 1][1] == 2
        return (
            NAMES[tag].replace("I-", "L-") if tag == 2 or more else f"{last[tag]}{NAMES[tag][1:]}"
        )

    layouts = {
        "iob2": [f"{w} {NAMES[t]}" if w else "" for w, t in rows],
        "types": [f"{w} {NAMES[t][2:] or 'O'}" if w else "" for w, t in rows],
        "bilou": [
            f"{bilou(i, t) if t else 'O'}\t{w}" if w else "" for i, (w, t) in enumerate(rows)
        ],
    }
    scores = []
    for name, lines in layouts.items():
        text = "\n".join(lines)
        folder = own(tmp_path / name, test_conll=text, train_conll=text)
        tasks = [load_task(f"{kind}:{folder}") for kind in ENTITIES]
        scores.append([task.evaluate(encoder, seed=0)["f1"].repeats for task in tasks])
    assert scores[0] == scores[1] == scores[2]
    assert scores[0][0][0] > 0.8


def test_tags_of_a_data_set_in_another_scheme_are_read_as_iob2(write):
    row = {"tokens": ["Ann", "Lee", "in", "Rome"], "ner_tags": ["B-PER", "L-PER", "O", "U-LOC"]}
    write("org/ner", "test", [row])
    assert Tagged("org/ner").load()[0].tags == ("B-PER", "I-PER", "O", "B-LOC")
    write("org/ner", "test", [row, {"tokens": ["Rome"], "ner_tags": ["L-LOC"]}])
    with pytest.raises(DataError, match="row 2, word 1"):
        Tagged("org/ner").load()


def test_sets_without_entities_or_without_a_common_type_have_no_f1(tmp_path, encoder):
    no, other = "a O\nb O\n", CONLL.replace("-person", "-PER").replace("-location", "-LOC")
    for name, test, train, told in (
        ("none", no, CONLL, r"test\.conll.* entities"),
        ("untrained", CONLL, no, r"train\.conll.* entities"),
        ("other", CONLL, other, "location, person .*LOC, PER"),
    ):
        folder = own(tmp_path / name, test_conll=test, train_conll=train)
        kinds = [kind for kind in ENTITIES if name == "none" or kind != "ner-question"]
        for kind in kinds:
            with pytest.raises(DataError, match=told):
                load_task(f"{kind}:{folder}").evaluate(encoder, seed=0)
            with pytest.raises(DataError, match=told):
                load_task(f"{kind}:{folder}").items(seed=0)


def test_words_that_were_cut_away_are_no_entities(ner_data, make_encoder):
    scores = NER("toy", test=TEST, train=TRAIN).evaluate(
        make_encoder(cut=2), seed=0
    )  # every entity begins with the third word
    assert scores["f1"].mean == 0
    assert scores["recall"].mean == 0
    assert "precision" not in scores  # of no answers


def test_a_type_is_found_by_the_start_vector_of_its_question(ner_data, make_encoder):
    class Ended(make_encoder):
        def encode_questions(self, questions):
            found = super().encode_questions(questions)
            return QuestionVectors(found.start, -found.start)

    task = NERByQuestions("toy", test=TEST)
    assert (
        task.evaluate(Ended(), seed=0)["f1"].repeats
        == task.evaluate(make_encoder(), seed=0)["f1"].repeats
    )


def test_questions_find_the_words_they_name_without_training(ner_data, encoder):
    scores = NERByQuestions("toy", test=TEST).evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 1
    assert (
        scores["recall"].mean > 0.2
    )  # "location" is in its own question; "ann" and "smith" are in none


def test_questions_name_the_type_with_its_article():
    assert question("person") == "Who is a person ?"
    assert question("creative-work") == "What is a creative work ?"
    assert question("PER") == "Who is a person ?"
    assert question("LOC") == "What is a location ?"
    assert question("O") == "What is a generic object ?"
    assert question("ORG") == "What is an organization ?"
    assert question("event") == "What is an event ?"
    assert question("misc") == question("MISC") == "What is a miscellaneous entity ?"
    assert question("politicalparty") == "What is a political party ?"


def test_a_word_is_read_at_its_first_sub_token_whatever_the_spans_look_like():
    words = ("Ein", "Haus", "am", "See")  # 0-3, 4-8, 9-11, 12-15
    spans = np.array(
        [(0, 0), (0, 2), (2, 3), (3, 6), (6, 8), (8, 11)], np.int32
    )  # a special token, spans with leading spaces, a cut
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
