"""Tasks under several wordings of their instruction."""

import json

import numpy as np
import pytest

from bench.reporting.comparison import sampled
from bench.store import Store
from bench.store.result import Result, RunSpec
from bench.task import Score
from bench.tasks import load_suite, load_task, load_tasks
from bench.tasks.awareness import Awareness
from bench.tasks.reworded import KNOWN, Reworded, _instructions, join_scores, reword
from bench.tasks.sts import STS
from bench.testing import check_task
from tests.bench.encoders import Plain, Unheeding

ASKED = "What is the question about?"
TASK = STS("toy", data="own/pairs", instruction=ASKED)


@pytest.fixture(autouse=True)
def pairs(write):
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i % 4} for i in range(24)]
    write("own/pairs", "test", rows)


def test_a_score_is_the_mean_of_those_under_each_wording_which_are_kept():
    alone = [
        STS("toy", data="own/pairs", instruction=words).evaluate(Plain(), seed=0)
        for words in KNOWN[ASKED][:3]
    ]
    score = reword(TASK, 3).evaluate(Plain(), seed=0)["cosine_spearman"]
    assert score.wordings == tuple(scores["cosine_spearman"].mean for scores in alone)
    assert score.mean == pytest.approx(np.mean(score.wordings))
    assert score.examples.mean() == pytest.approx(score.mean, abs=1e-6)
    # Tasks on the same texts know each other by these.
    assert np.array_equal(score.ids, alone[0]["cosine_spearman"].ids)
    assert len(score.ids) == 24
    assert np.ptp(score.wordings) > 0


def test_a_reworded_task_passes_the_contract_and_is_another_task_than_under_one_wording():
    task = reword(TASK, 2)
    check_task(task, Plain())
    assert (task.name, task.metric, task.family) == (TASK.name, TASK.metric, TASK.family)
    assert len({TASK.readout, task.readout, reword(TASK, 3).readout}) == 3


def test_an_encoder_that_ignores_instructions_encodes_once_and_has_no_spread():
    encoder = Unheeding()
    score = reword(TASK, 10).evaluate(encoder, seed=0)["cosine_spearman"]
    assert len(encoder.asked) == 48
    assert np.ptp(score.wordings) == 0


def test_repeats_are_averaged_one_by_one_unless_their_numbers_differ():
    joined = join_scores("accuracy", [Score((0.2, 0.4)), Score((0.4, 0.8))])
    assert joined.repeats == pytest.approx((0.3, 0.6))
    assert join_scores("f1", [Score((0.2, 0.4)), Score((0.9,))]).repeats == pytest.approx((0.6,))


def test_each_labeling_of_an_awareness_test_is_asked_for_in_other_words():
    task = reword(load_task("faq-awareness"), 2)
    assert isinstance(task, Reworded)
    first, second = task.each()
    assert isinstance(second, Awareness)
    assert first == load_task("faq-awareness")
    for one, other in zip(first.labelings, second.labelings, strict=True):
        assert one.name == other.name
        assert other.instruction == KNOWN[one.instruction][1]


def test_tasks_without_an_instruction_or_known_wordings_stay_as_they_are(caplog):
    same = [load_task("tweet-ner"), STS("toy", data="own/pairs", instruction="Anything else?")]
    assert [reword(task, 10) for task in same] == same
    assert "Anything else?" in caplog.text
    assert load_tasks(["stsb"], wordings=10) == [load_task("stsb")]


@pytest.mark.parametrize("suite", ["quick", "standard", "development"])
def test_every_instruction_of_the_suites_has_ten_wordings(suite):
    instructions = {words for task in load_suite(suite) for words in _instructions(task)}
    assert instructions <= KNOWN.keys()


def test_wordings_are_kept_in_a_file_and_widen_the_interval(tmp_path):
    encoders = [Plain(dim=24), Plain(dim=32)]
    found = []
    for encoder in encoders:
        task = reword(TASK, 5)
        spec = RunSpec.of(f"e{encoder.dim}", encoder, task, 0)
        scores = task.evaluate(encoder, seed=0)
        store = Store(tmp_path)
        store[spec] = Result(spec, task.family, task.metric, scores)
        found.append(store.examples(store[spec]))
        assert found[-1].main.wordings == scores[task.metric].wordings
        changed = json.loads(json.dumps(found[-1].to_json()))
        changed["scores"][task.metric]["wordings"][0] += 0.1
        with pytest.raises(ValueError, match="wordings"):
            Result.from_json(changed)
    without = [
        Result(r.spec, r.family, r.metric, {r.metric: Score(r.main.repeats, r.main.examples)})
        for r in found
    ]
    wide, narrow = (sampled([[r] for r in each], TASK.metric, 0) for each in (found, without))
    assert [c.freedom for c in wide.components] == [23, 4]
    assert [c.freedom for c in narrow.components] == [23]
    widths = [each.intervals.high - each.intervals.low for each in (wide, narrow)]
    assert (widths[0] > widths[1]).all()
