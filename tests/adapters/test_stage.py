"""Stages are done once, refused to others, and damaged files made again; journals resume."""

import json
import logging

import pytest

from adapters._training.stage import Journal, Stage
from bench.errors import DataError, UsageError

KEY = {"seed": 1, "recipe": {"lr": 0.1, "betas": [0.9, 0.98]}}


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "stage.json", KEY)


@pytest.fixture
def other(tmp_path):
    return Stage(tmp_path / "stage.json", {**KEY, "seed": 2})


def test_a_finished_stage_is_not_done_again_and_another_is_refused(stage, other, tmp_path):
    assert stage.begin() is None
    with pytest.raises(UsageError):
        other.begin()
    assert stage.begin() is None
    (tmp_path / "weights").write_bytes(b"1")
    assert stage.finish(tmp_path / "weights", loss=0.5) == {"loss": 0.5}
    assert stage.begin() == {"loss": 0.5}
    with pytest.raises(UsageError, match=r"stage\.json"):
        other.begin()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "note"])
def test_what_is_damaged_is_made_again(stage, tmp_path, caplog, damage):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(b"content")
        stage.add(file)
    stage.finish(loss=0.5)
    assert stage.begin() is not None
    target = stage.note if damage == "note" else files[1]
    if damage == "gone":
        target.unlink()
    else:
        target.write_bytes(b"kontent" if damage == "flip" else b"con")
    with caplog.at_level(logging.WARNING):
        assert stage.begin() is None
    assert damage == "gone" or "damaged" in caplog.text
    assert stage.has(files[0]) == (damage != "note")
    assert not stage.has(files[1])


def test_notes_of_earlier_versions_without_hashes_are_read(stage):
    stage.note.write_text(json.dumps({"of": KEY, "positions": 7}))
    assert stage.begin() == {"positions": 7}


def test_no_flipped_bit_of_a_note_changes_what_it_says(stage):
    stage.begin()
    stage.finish(positions=7, loss=0.5)
    data = stage.note.read_bytes()
    for i in range(len(data)):
        stage.note.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        assert stage.begin() in (None, {"positions": 7, "loss": 0.5})


def test_a_journal_goes_on_behind_its_last_whole_batch(stage, other, tmp_path):
    journal = Journal(stage, tmp_path / "rows")
    assert (journal.progress, journal.read()) == ({}, b"")
    journal.append(b"one\n", rows=1)
    journal.append(b"two\n", rows=2)
    with (tmp_path / "rows").open("ab") as file:
        file.write(b"thr")  # a kill
    journal = Journal(stage, tmp_path / "rows")
    assert (journal.progress, journal.read()) == ({"rows": 2}, b"one\ntwo\n")
    journal.append(b"three\n", rows=3)
    assert (tmp_path / "rows").read_bytes() == b"one\ntwo\nthree\n"
    with pytest.raises(UsageError):
        Journal(other, tmp_path / "rows")


@pytest.mark.parametrize("damage", [b"one\ntwp\n", b"one\n", b""])
def test_a_damaged_journal_is_begun_anew(stage, tmp_path, caplog, damage):
    Journal(stage, tmp_path / "rows").append(b"one\ntwo\n", rows=2)
    (tmp_path / "rows").write_bytes(damage)
    journal = Journal(stage, tmp_path / "rows")
    assert (journal.progress, journal.read()) == ({}, b"")
    assert "rows is damaged" in caplog.text
    journal.append(b"one\n", rows=1)
    assert (tmp_path / "rows").read_bytes() == b"one\n"


def test_a_file_without_a_note_is_left_alone(stage, tmp_path):
    (tmp_path / "rows").write_bytes(b"somebody's\n")
    with pytest.raises(DataError, match=r"stage\.json"):
        Journal(stage, tmp_path / "rows")
    assert (tmp_path / "rows").read_bytes() == b"somebody's\n"
