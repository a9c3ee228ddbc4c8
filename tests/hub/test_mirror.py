"""Mirrors of all that a run and a training read, made from a hub on loopback, used without it."""

import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from tests.hub.test_hub import PAIRS, pairs
from tests.tiny import SENTENCES, tiny_folder

BIOSSES = "d3fb88f8f02e40887cd149695127462bbcf29b4a"
SCIFACT = "d56462d0e63a25450459c4f213e49ffdb866f7f9"
JUDGED = """---
configs:
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
- config_name: default
  data_files: [{split: test, path: qrels.jsonl}]
---
"""
RUN = ("run", "-m", "backbone-mean:org/tiny", "--dtype", "float32", "--keep-going")
TASKS = ("-t", f"BIOSSES,SciFact,{PAIRS}")
WANTED = ("-m", "backbone-mean:org/tiny", *TASKS)
TRAINING = ("--set", "sources=org/questions", "--set", "backbone=org/tiny")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def filled(server, tmp_path_factory):
    """The hub with a model, a data set of our own, two of mteb's and a training set."""
    home = tmp_path_factory.mktemp("hub")
    server.push("models", "org/tiny", tiny_folder("llama", home / "tiny", head=True))
    server.push("datasets", "org/pairs", pairs(home / "pairs"))
    scores = [
        {"sentence1": a, "sentence2": b, "score": i} for i, (a, b) in enumerate(pairwise(SENTENCES))
    ]
    write_lines(home / "biosses" / "test.jsonl", scores)
    documents = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(SENTENCES)]
    write_lines(home / "scifact" / "corpus.jsonl", documents)
    write_lines(home / "scifact" / "queries.jsonl", [{"_id": "q0", "text": SENTENCES[0][:20]}])
    judged = [{"query-id": "q0", "corpus-id": "d0", "score": 1}]
    write_lines(home / "scifact" / "qrels.jsonl", judged)
    (home / "scifact" / "README.md").write_text(JUDGED)
    for name, revision in (("biosses-sts", BIOSSES), ("scifact", SCIFACT)):
        folder = home / name.partition("-")[0]
        server.push("datasets", f"mteb/{name}", folder)
        server.repositories["datasets", f"mteb/{name}"].revisions[revision] = folder
    questions = [{"question": text, "answer": "a cat", "context": text} for text in SENTENCES]
    write_lines(home / "questions" / "train.jsonl", questions)
    server.push("datasets", "org/questions", home / "questions")
    return server


def scores(folder: Path) -> dict[str, dict]:
    found = {}
    for path in (folder / "results").glob("*/*.json"):
        result = json.loads(path.read_text())
        found[result["spec"]["task"]] = result["scores"]
    return found


@pytest.fixture(scope="module")
def mirror(filled, bench, tmp_path_factory):
    """The mirror of a run and a training, and what the run scores with the hub."""
    home = tmp_path_factory.mktemp("online")
    online = bench(*RUN, *TASKS, folder=home)
    assert online.code == 0, online.output
    target = home / "mirror"
    made = bench("data", "mirror", str(target), *WANTED, folder=home)
    assert made.code == 0, made.output
    training = bench("data", "mirror", str(target), "--recipe", "inbedder", *TRAINING, folder=home)
    assert training.code == 0, training.output
    return target, scores(home)


def test_a_mirror_is_complete_and_a_run_scores_the_same_without_the_hub(
    filled, bench, mirror, tmp_path, emptied
):
    target, online = mirror
    with filled.offline():
        before = len(filled.requests)
        checked = bench("data", "check", str(target), *WANTED, folder=tmp_path / "a")
        assert checked.code == 0, checked.output
        assert "missing" not in checked.output
        ran = bench(*RUN, *TASKS, "--data", str(target), folder=tmp_path / "a")
        assert ran.code == 0, ran.output
        assert len(filled.requests) == before
    assert scores(tmp_path / "a") == online
    assert set(online) == {"BIOSSES", "SciFact", "pairs"}


def test_a_training_by_ids_waits_for_a_busy_hub_and_completes_a_cut_file(
    filled, bench, tmp_path, emptied
):
    filled.limited, filled.cut = 2, {"train.jsonl", "model.safetensors"}
    command = ("train", "inbedder", "--budget", "300", "--out", "out", *TRAINING)
    ended = bench(*command, folder=tmp_path)
    assert ended.code == 0, ended.output
    assert (filled.limited, filled.cut) == (0, set())
    card = json.loads((tmp_path / "out/card.json").read_text())
    (used,) = card["data"]
    repository = filled.repositories["datasets", "org/questions"]
    assert used["pin"] == {"source": "hub", "revision": repository.branches["main"]}


def test_a_renamed_data_set_is_followed(filled, bench, tmp_path):
    filled.renamed["org/old-questions"] = "org/questions"
    made = bench("data", "mirror", str(tmp_path / "mirror"), "org/old-questions:train")
    assert made.code == 0, made.output
    assert (tmp_path / "mirror/org/old-questions/train.jsonl.gz").is_file()


def test_a_training_reads_the_mirror_without_the_hub(filled, bench, mirror, tmp_path, emptied):
    target, _ = mirror
    command = ("train", "inbedder", "--budget", "300", "--out", "out", *TRAINING)
    with filled.offline():
        checked = bench("data", "check", str(target), "--recipe", "inbedder", *TRAINING)
        assert checked.code == 0, checked.output
        ended = bench(*command, "--data", str(target), folder=tmp_path / "work")
    assert ended.code == 0, ended.output
    card = json.loads((tmp_path / "work/out/card.json").read_text())
    (used,) = card["data"]
    assert used["pin"]["source"] == "local"


def test_what_a_mirror_lacks_is_named_before_a_job_is_queued(filled, bench, mirror, tmp_path):
    target, _ = mirror
    with filled.offline():
        checked = bench("data", "check", str(target), "-t", "BIOSSES,sts12", "-m", "dino:org/other")
    assert (checked.code, checked.crashed) == (1, False)
    assert "mteb-tasks/BIOSSES" in checked.output
    for name in ("sts12", "dino:org/other"):
        assert any(
            line.startswith(name) and "unavailable" in line for line in checked.output.splitlines()
        )


def test_a_damaged_file_of_a_mirror_is_found_and_made_again(filled, bench, mirror, tmp_path):
    target, _ = mirror
    copy = Path(shutil.copytree(target, tmp_path / "copy"))
    (path,) = copy.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    checked = bench("data", "check", str(copy))
    assert checked.code == 1
    assert f"{path.relative_to(copy)}" in checked.output
    assert "damaged" in checked.output
    again = bench("data", "mirror", str(copy), "-m", "backbone-mean:org/tiny")
    assert again.code == 0, again.output
    assert bench("data", "check", str(copy)).code == 0


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("-m", "hashing", "-t", PAIRS), 2),
        (("-m", "hashing", "-t", "BIOSSES"), 1),
        (("-m", "backbone-mean:org/tiny", "-t", "stsb"), 1),
    ],
    ids=["data", "mteb", "model"],
)
def test_the_commands_that_a_message_advises_do_what_they_promise(
    filled, bench, tmp_path, command, names, home, emptied
):
    with filled.offline():
        said = bench("run", *command, "--no-cache").output
    advised = re.findall(r"`bench (data [^`]+)`", said)
    assert len(set(advised)) == names, said
    for words in set(advised):
        done = bench(*shlex.split(words.replace("DIR", str(tmp_path / "mirror"))))
        assert done.code == 0, done.output
    shutil.rmtree(home, ignore_errors=True)
    with filled.offline():
        mirror = ("--data", str(tmp_path / "mirror"))
        again = bench("run", *command, *mirror, "--no-cache", "--dry-run", "--json")
    assert not [word for word in advised if word in again.output]
