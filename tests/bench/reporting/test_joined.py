"""Several folders of results as one; an encoder is what it is, not what it is called."""

import logging

import pytest

import bench
from bench.errors import UsageError
from bench.reporting import read
from bench.store import Store
from tests.bench.reporting.made import absence, result

OLD, NEW = "2030-01-01T00:00:00+00:00", "2030-02-01T00:00:00+00:00"


@pytest.fixture
def folder(tmp_path):
    def _folder(name, *results):
        store = Store(tmp_path / name)
        for each in results:
            store[each.spec] = each
        return store

    return _folder


def test_folders_are_joined_and_an_equal_cell_counts_once(folder, tmp_path, caplog):
    folder("a", result("one", "t", 0.5), result("two", "t", 0.4))
    folder("b", result("two", "t", 0.4), result("two", "u", 0.6))
    frame = bench.results([tmp_path / "a", tmp_path / "b"])
    done = frame[frame.status == "done"]
    assert sorted(zip(done.encoder, done.task, done.score, strict=True)) == [
        ("one", "t", 0.5),
        ("two", "t", 0.4),
        ("two", "u", 0.6),
    ]
    assert not caplog.messages


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_a_cell_that_differs_the_newest_counts_and_a_line_says_so(folder, caplog, order):
    stores = {
        "a": folder("a", result("one", "t", 0.5, time=NEW)),
        "b": folder("b", result("one", "t", 0.25, time=OLD)),
    }
    with caplog.at_level(logging.WARNING):
        c = read([stores[name] for name in order])
    assert c.scores.loc["t", "one"] == 0.5
    assert len(caplog.messages) == 1
    assert "newest counts" in caplog.text
    assert "0.25 (one on t)" in caplog.text


def test_a_folder_without_results_is_named_among_others(folder, tmp_path):
    full = folder("a", result("one", "t", 0.5))
    with pytest.raises(UsageError, match="typo"):
        read([full, Store(tmp_path / "typo")])


def test_what_one_folder_lacks_another_one_has(folder):
    lacking, full = folder("a"), folder("b", result("one", "t", 0.5))
    lacking.leave_out(absence("one", "t", reason="no data"))
    c = read([lacking, full])
    assert c.scores.to_dict() == {"one": {"t": 0.5}}


def test_one_encoder_under_several_names_is_one_row_and_found_under_each(folder):
    names = ("quip", "adapters.quip.encoder:QuIP", "quip:/home/me/weights", "quip:/mnt/copy")
    made = [result(name, f"t{i}", 0.5, print_="f" * 16) for i, name in enumerate(names)]
    store = folder("a", *made, result("hashing", "t0", 0.1))
    store.leave_out(absence("quip:/mnt/copy", "t9", reason="no data"))
    c = read(store)
    assert sorted(c.labels) == ["hashing", "quip"]
    assert len(c.of_encoder("quip")) == len(names)
    assert [each.encoder for each in c.absences] == ["quip"]
    for name in ("quip", "quip:copy"):
        assert read(store, models=[name]).labels == ["quip"]


def test_a_label_given_later_names_the_encoder(folder):
    one = result("st:model", "t", 0.5, print_="f" * 16, time=OLD)
    two = result("mine", "t", 0.5, print_="f" * 16, time=NEW)
    assert read(folder("a", one, two)).labels == ["mine"]
    assert read(folder("b", two, result("st:model", "t", 0.5, print_="f" * 16))).labels == ["mine"]


def test_labels_name_the_dtype_that_auto_stands_for(folder):
    settings = {"dtype": "auto", "dim": 3}
    made = [
        result("a", "t", 0.5, print_=str(i) * 16, settings=settings, card={"dtype": dtype})
        for i, dtype in enumerate(("float32", "bfloat16"))
    ]
    assert sorted(read(folder("a", *made)).labels) == ["a dtype=bfloat16", "a dtype=float32"]
