"""The list of files of a mirror: what it may name."""

import json

import pytest

from bench.errors import DataError, UsageError
from bench.mirroring import Wanted, check, mirror


@pytest.mark.parametrize("path", ["../beside", "{root}/beside", ".", "a/../../beside"])
def test_a_list_of_files_removes_nothing_outside_its_mirror(tmp_path, path):
    beside, folder = tmp_path / "beside", tmp_path / "mirror"
    beside.mkdir()
    folder.mkdir()
    path = path.format(root=tmp_path)
    (folder / "mirror.json").write_text(json.dumps({path: {"gone": "00"}}))
    for act in (mirror, check):
        with pytest.raises(DataError, match="delete it, and make the mirror again"):
            list(act(folder, Wanted()))
    assert beside.is_dir()


@pytest.mark.parametrize("text", ["[]", '{"a": 5}', "{", '{"a": {"/b": "00"}}'])
def test_a_broken_list_of_files_is_refused(tmp_path, text):
    (tmp_path / "mirror.json").write_text(text)
    with pytest.raises(DataError, match=r"mirror\.json is no list of files"):
        list(check(tmp_path, Wanted()))


def test_a_folder_without_a_list_of_files_is_no_mirror_without_damage(tmp_path):
    with pytest.raises(UsageError, match=r"without mirror\.json: name what it is for"):
        list(check(tmp_path, Wanted()))
