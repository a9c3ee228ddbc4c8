"""Archives of results: read like the folder that they were made from, and safe to open."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

import bench
from bench.errors import ResultError
from bench.export import export_archive
from bench.store import Store, archive
from tests.bench.reporting.made import absence, result, right

PLACE = "/somewhere/secret"


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "results")
    used = {"id": f"{PLACE}/own.csv", "config": "", "split": "test", "source": "local"}
    training = {"recipe": {"backbone": f"{PLACE}/base", "lr": 0.1}, "loss": [[1, 2.0]]}
    training |= {"data": [used], "command": f"bench train crops --out {PLACE}/grid"}
    training |= {"teacher": {"name": f"st:{PLACE}/teacher", "labels": True}}
    training |= {"postprocessing": {"texts": f"{PLACE}/own.csv", "data": [used], "count": 9}}
    for name, count in ("good", 300), ("poor", 200):
        each = result(
            name,
            "t1",
            examples=right(count),
            settings={"checkpoint": f"{PLACE}/{name}"},
            card={"training": training, "changed": {"texts": f"{PLACE}/own.csv", "count": 9}},
            command=f"bench run --model trained:{PLACE}/grid",
            data=[used],
        )
        made[each.spec] = each
    made.leave_out(absence("good", "t2", reason=f"{PLACE}/t2.jsonl: it has no rows"))
    return made


def test_an_archive_is_read_like_its_folder_and_names_no_folder_of_the_machine(store, tmp_path):
    path = tmp_path / "made.zip"
    export_archive([store], path)
    found, kept = [sorted(s.results(), key=lambda r: r.spec.key) for s in (Store(path), store)]
    assert [r.spec for r in found] == [r.spec for r in kept]
    for one, other in zip(found, kept, strict=True):
        np.testing.assert_array_equal(one.main.examples, other.main.examples)
        assert one.card["training"]["recipe"] == {"backbone": "base", "lr": 0.1}
        assert one.spec.settings == {"checkpoint": one.spec.encoder}
        assert one.provenance["command"] == "bench run --model trained:grid"
        assert [each["id"] for each in one.provenance["data"]] == ["own.csv"]
        assert one.card["training"]["data"] == one.provenance["data"]
        assert one.card["training"]["teacher"] == {"name": "st:teacher", "labels": True}
        assert one.card["changed"] == {"texts": "own.csv", "count": 9}
        assert replace(one.cost == other.cost and one, archive="").texts == other.texts
    (reason,) = [each.reason for each in Store(path).absences()]
    assert reason == "t2.jsonl: it has no rows"
    assert len(Store(path)) == 2
    folder, packed = bench.results(store.root), bench.results(path)
    assert packed.drop(columns="reason").equals(folder.drop(columns="reason"))
    assert b"secret" not in b"".join(
        zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()
    )


def test_an_archive_without_texts_has_all_but_the_examples_that_tasks_show(store, tmp_path):
    for one in store.results():
        store[one.spec] = replace(one, samples=[{"text": "a private review"}])
    whole, without = tmp_path / "whole.zip", tmp_path / "without.zip"
    export_archive([store], whole)
    export_archive([store], without, texts=False)
    assert {len(one.samples) for one in Store(whole).results()} == {1}
    assert {len(one.samples) for one in Store(without).results()} == {0}
    scores = [bench.results(each).drop(columns="reason") for each in (whole, without)]
    assert scores[0].equals(scores[1])


def test_equal_results_give_equal_bytes_and_an_archive_can_be_packed_again(store, tmp_path):
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    export_archive([store], first)
    export_archive([Store(first)], second)
    assert first.read_bytes() == second.read_bytes()


def write_zip(path, **files):
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return Store(path)


@pytest.mark.parametrize(
    "name",
    ["../t.json", "/t/t.json", "a/../../t.json", "a\\..\\t.json", "t.json", "a/b/t.json",
     "a/t.pkl", "../a/t.json", "a/..json", "a/.t.json"],
)  # fmt: skip
def test_a_file_that_no_results_have_is_refused_and_written_nowhere(tmp_path, name):
    place = tmp_path / "place" / "inside"
    place.mkdir(parents=True)
    archive_ = write_zip(tmp_path / "evil.zip", **{name: "{}"})
    with pytest.raises(ResultError, match="expected only results"):
        archive.unpack(archive_.root, place)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["evil.zip"]


def test_an_archive_that_would_fill_the_disk_or_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 100_000)
    large = write_zip(tmp_path / "large.zip", **{"a/t.json": b"0" * 100_001})
    arrays = io.BytesIO()
    np.savez_compressed(arrays, metric=np.zeros(100_000))
    assert len(arrays.getvalue()) < 2_000
    bomb = write_zip(tmp_path / "bomb.zip", **{"a/t.npz": arrays.getvalue()})
    many = write_zip(tmp_path / "many.zip", **{f"a/{i}.json": "" for i in range(9)})
    for each in large, bomb:
        with pytest.raises(ResultError, match="at most 100,000 bytes"):
            list(each.results())
    monkeypatch.setattr(archive, "MOST_FILES", 8)
    with pytest.raises(ResultError, match="at most 8 files"):
        many.absences()


def test_a_damaged_archive_is_an_error_that_names_it(store, tmp_path):
    path = tmp_path / "made.zip"
    export_archive([store], path)
    whole = path.read_bytes()
    for damaged in (whole[:-50], whole[: len(whole) // 2], b"", b"no zip file"):
        path.write_bytes(damaged)
        with pytest.raises(ResultError, match=r"made\.zip to be a whole archive"):
            list(Store(path).results())
    flipped = bytearray(whole)
    flipped[60] ^= 255
    path.write_bytes(bytes(flipped))
    with pytest.raises(ResultError, match=r"made\.zip"):
        list(Store(path).results())


def test_results_are_not_written_into_an_archive(store, tmp_path):
    path = tmp_path / "made.zip"
    export_archive([store], path)
    before = path.read_bytes()
    one = result("new", "t1", 0.5)
    with pytest.raises(ResultError, match="choose another --results"):
        Store(path)[one.spec] = one
    assert path.read_bytes() == before


def test_an_archive_that_cannot_be_written_is_one_line_with_what_to_do(store, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ResultError, match=r"cannot write .*/a\.zip: .*; free space or name another"
    ):
        export_archive([store], tmp_path / "file" / "a.zip")
