"""Several folders of results as one; an encoder is what it is, not what it is called."""

import logging

import pytest

import bench
from bench.errors import UsageError
from bench.reporting import formats, read
from bench.reporting.tables import tables
from bench.store import Store
from tests.bench.reporting.made import absence, on, result

OLD, NEW = "2030-01-01T00:00:00+00:00", "2030-02-01T00:00:00+00:00"
PRINT = {"print_": "f" * 16}


@pytest.fixture
def folder(tmp_path):
    def _folder(name, *results):
        store = Store(tmp_path / name)
        for each in results:
            store[each.spec] = each
        return store

    return _folder


def test_folders_are_joined_and_an_equal_cell_counts_once(folder, tmp_path, caplog):
    full = folder("a", *on("t", {"one": 0.5, "two": 0.4}))
    folder("b", *on("t", {"two": 0.4}), *on("u", {"two": 0.6}))
    frame = bench.results([tmp_path / "a", tmp_path / "b"])
    done = frame[frame.status == "done"]
    found = sorted(zip(done.encoder, done.task, done.score, strict=True))
    assert found == [("one", "t", 0.5), ("two", "t", 0.4), ("two", "u", 0.6)]
    assert not caplog.messages
    with pytest.raises(UsageError, match="typo"):
        read([full, Store(tmp_path / "typo")])


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_cell_that_differs_the_newest_counts_and_a_line_says_so(folder, caplog, order):
    stores = [folder("a", result("one", "t", 0.5, time=NEW))]
    stores.append(folder("b", result("one", "t", 0.25, time=OLD)))
    with caplog.at_level(logging.WARNING):
        c = read(stores[::order])
    assert c.scores.loc["t", "one"] == 0.5
    assert len(caplog.messages) == 1
    assert "0.25 (one on t)" in caplog.text


def test_what_one_folder_lacks_another_one_has(folder):
    lacking, full = folder("a"), folder("b", result("one", "t", 0.5))
    lacking.leave_out(absence("one", "t", reason="no data"))
    assert read([lacking, full]).scores.to_dict() == {"one": {"t": 0.5}}


def test_one_encoder_under_several_names_is_one_row_and_found_under_each(folder):
    names = ("quip", "adapters.quip.encoder:QuIP", "quip:/home/me/weights", "quip:/mnt/copy")
    made = [result(name, f"t{i}", 0.5, **PRINT) for i, name in enumerate(names)]
    store = folder("a", *made, *on("t0", {"hashing": 0.1}))
    store.leave_out(absence("quip:/mnt/copy", "t9", reason="no data"))
    c = read(store)
    assert sorted(c.labels) == ["hashing", "quip"]
    assert len(c.of_encoder("quip")) == len(names)
    assert [each.encoder for each in c.absences] == ["quip"]
    assert [read(store, models=[name]).labels for name in ("quip", "quip:copy")] == [["quip"]] * 2
    c = read(folder("b", *(result(f"st:/home/{who}/model", "t", 0.5, **PRINT) for who in "ab")))
    assert (c.labels, c.measured.loc["st:model", "t"].repeats) == (["st:model"], 1)
    assert "/home" not in formats.results_md(tables(c))


def test_a_label_given_later_names_the_encoder(folder):
    one = result("st:model", "t", 0.5, **PRINT, time=OLD)
    two = result("mine", "t", 0.5, **PRINT, time=NEW)
    for name, cells in (("a", (one, two)), ("b", (two, result("st:model", "t", 0.5, **PRINT)))):
        assert read(folder(name, *cells)).labels == ["mine"]


def test_labels_name_the_dtype_that_auto_stands_for(folder):
    made = []
    for dtype in ("bfloat16", "float32"):
        about = {"settings": {"dtype": "auto", "dim": 3}, "card": {"dtype": dtype}}
        made.append(result("a", "t", 0.5, print_=dtype[0] * 16, **about))
    assert sorted(read(folder("a", *made)).labels) == ["a dtype=bfloat16", "a dtype=float32"]
