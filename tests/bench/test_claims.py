"""Processes on one folder of results share its cells; those of dead processes are taken over."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from itertools import chain

import psutil
import pytest

from bench import runner
from bench.errors import EncodingError
from bench.runner import run
from bench.store import Store, claims
from bench.store.claims import EXPIRY, Claims, Owner
from bench.vectors import Vectors
from tests.bench.encoders import Norms, Plain

TASKS = [Norms(name=f"norms{i}", texts=(str(i), "b", "cc")) for i in range(4)]


def claim(folder, **changes):
    """Write the claim of another process on the first task, and return its file."""
    store = Store(folder)
    (cell,) = runner.survey("letters", Plain(), TASKS[:1], store, seeds=[42])
    path = store.claim_path(cell.spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(replace(Owner.here(), **changes))))
    return path


def start(folder, tasks=TASKS, **options):
    return run({"letters": Plain()}, tasks, Store(folder), Vectors(None), **options)


def statuses(cells):
    return [cell.status for cell in cells]


@pytest.fixture
def alone(monkeypatch):
    """Cells are taken one at a time, and looked at often."""
    monkeypatch.setattr(runner, "CHUNK", 1)
    monkeypatch.setattr(runner, "_SHORT", 0.01)
    monkeypatch.setattr(runner, "_LONG", 0.01)


@pytest.fixture(scope="module")
def living():
    """Another process of this machine."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield {"pid": process.pid, "began": psutil.Process(process.pid).create_time()}
    process.communicate(b"\n")


def test_two_runs_share_the_cells_and_each_is_run_once(tmp_path, alone, monkeypatch):
    first, second = start(tmp_path), start(tmp_path)
    # In one process a claim is one's own, so each of the two gets an owner.
    owners = iter([Owner("elsewhere", 1, 0.0), Owner("elsewhere", 2, 0.0)])
    monkeypatch.setattr(Owner, "here", classmethod(lambda _: next(owners)))
    ended = {"a": [next(first)], "b": []}
    thread = threading.Thread(target=lambda: ended["b"].extend(second))
    thread.start()
    ended["a"] += first
    thread.join()
    done = [cell.task.name for cell in chain(*ended.values()) if cell.status == "done"]
    assert sorted(done) == [task.name for task in TASKS]
    assert len(ended["a"]) == len(ended["b"]) == len(TASKS)
    assert all(cell.result for cell in chain(*ended.values()))
    assert not list(tmp_path.rglob("*.claim"))


def test_a_cell_that_another_process_runs_is_left_to_it(tmp_path, living):
    path = claim(tmp_path, **living)
    cells = list(start(tmp_path, wait=False))
    assert statuses(cells) == ["done"] * 3 + ["running"]
    assert f"process {living['pid']} on" in cells[-1].reason
    assert path.exists()


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"began": 1.0}], ids=["gone", "pid reused"])
def test_the_claim_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path, change):
    path = claim(tmp_path, **change)
    assert statuses(start(tmp_path, wait=False)) == ["done"] * 4
    assert not path.exists()


@pytest.mark.parametrize("cut", [False, True])
def test_a_claim_of_another_machine_or_cut_in_mid_write_counts_until_it_is_old(tmp_path, cut):
    path = claim(tmp_path, host="elsewhere")
    path.write_text("" if cut else path.read_text())
    assert statuses(start(tmp_path, wait=False)) == ["done"] * 3 + ["running"]
    old = time.time() - EXPIRY - 1
    os.utime(path, (old, old))
    assert "running" not in statuses(start(tmp_path, wait=False))
    assert not path.exists()


def test_a_claim_for_which_the_disk_has_no_room_fails_in_words(tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(claims.json, "dump", fill)
    cells = list(start(tmp_path, TASKS[:1]))
    assert statuses(cells) == ["failed"]
    assert "No space left on device; free space or choose another --results" in cells[0].reason
    assert not list(tmp_path.rglob("*.claim"))


def test_a_waiting_run_takes_over_when_the_other_dies(tmp_path, alone, living):
    path = claim(tmp_path, **living)
    cells = start(tmp_path)
    assert statuses(next(cells) for _ in range(3)) == ["done"] * 3
    path.write_text(json.dumps(asdict(replace(Owner.here(), began=1.0))))
    assert statuses(cells) == ["done"]


@dataclass(frozen=True)
class Counted(Norms):
    calls: list[int] = field(default_factory=list, compare=False)

    def score(self, vectors, *, seed):
        self.calls.append(seed)
        raise EncodingError("this is why")


def test_a_failure_of_another_process_is_reported_and_not_repeated(tmp_path, living, alone):
    tasks = [Counted(name="norms0"), *TASKS[1:]]
    path = claim(tmp_path, **living)
    cells = start(tmp_path, tasks, keep_going=True)
    assert statuses(next(cells) for _ in range(3)) == ["done"] * 3
    path.unlink()
    list(start(tmp_path, tasks[:1]))
    (last,) = cells
    assert (last.status, last.reason) == ("failed", "this is why")
    assert len(tasks[0].calls) == 1


def test_claims_are_touched_while_they_are_held_and_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.01)
    path = tmp_path / "a.claim"
    with Claims(tmp_path) as held:
        assert held.take(path)
        os.utime(path, (1.0, 1.0))
        while path.stat().st_mtime == 1.0:
            time.sleep(0.01)
    assert not path.exists()
    cells = start(tmp_path)
    next(cells)
    assert len(list(tmp_path.rglob("*.claim"))) == 3
    cells.close()  # as by Ctrl-C
    assert not list(tmp_path.rglob("*.claim"))


def test_a_result_that_was_written_before_the_run_and_named_during_it_is_kept(
    tmp_path, monkeypatch
):
    list(start(tmp_path, TASKS[:1]))
    (path,) = tmp_path.glob("*/*.json")
    part, take = path.rename(tmp_path / "part"), Claims.take

    def take_after_the_other(self, claim):
        part.rename(path)
        return take(self, claim)

    monkeypatch.setattr(Claims, "take", take_after_the_other)
    (cell,) = start(tmp_path, TASKS[:1])
    assert (cell.status, cell.reason) == ("cached", "another process has run it")
