"""The engine on Ray: the numbers of one process, and every cell whatever dies meanwhile.

Ray is started once for all of these tests, as a cluster on this machine.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest

from bench.data import load
from bench.embeddings import CachedEncoder
from bench.encoder import Batch, Card, Item
from bench.engine import Inline, Train, start_engine
from bench.engine.ray import _safe_settings
from bench.engine.ray.driver import _DEATHS
from bench.errors import UsageError
from bench.runner import run
from bench.store import Store
from bench.task import NetworkTask, Score
from bench.trainings import PlannedTraining, plan_trainings
from bench.vectors import Vectors
from tests.bench.commands import call, start_python
from tests.bench.encoders import Norms
from tests.bench.recipes import NOTING, Noting, read_notes

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of Ray
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),
]

TEXTS = tuple(f"text number {i}" + " and more" * (i % 7) for i in range(60))


def die(folder):
    """End this process, as often as there are files in a folder for it."""
    for path in Path(folder).glob("death*") if folder else ():
        path.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def allow_deaths(folder, count):
    folder.mkdir()
    for i in range(count):
        (folder / f"death{i}").touch()
    return folder


@dataclass(frozen=True)
class Letters:
    """Counts letters, slowly; some texts end the process."""

    dim: int = 32
    seconds: float = field(default=0.0, compare=False)
    deaths: str = field(default="", compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def stream(self, items):
        for i, item in enumerate(items):
            time.sleep(self.seconds)
            if "poison" in item.text:
                die(self.deaths)
            row = np.bincount([ord(letter) % 32 for letter in item.text], minlength=self.dim)
            vectors = 1 + row[None].astype(np.float32)
            yield Batch(np.array([i]), vectors, np.ones(1, np.int32), np.zeros(1, bool), 1)

    def encode(self, texts, *, instruction=""):
        items = [Item(text, instruction) for text in texts]
        return np.concatenate([batch.vectors for batch in self.stream(items)])


@dataclass(frozen=True)
class Uneven(Letters):
    """Gives longer vectors of long texts."""

    def stream(self, items):
        for batch in super().stream(items):
            long = len(items[batch.positions[0]].text) > 500
            yield replace(batch, vectors=np.repeat(batch.vectors, 1 + long, axis=1))


@dataclass(frozen=True)
class Here(Letters):
    """Has other weights in another process."""

    def card(self):
        return Card(weights=os.environ.get("TEST_OF_DRIVER", ""))


@dataclass(frozen=True)
class Downloaded(Letters):
    """Has weights in the folder of downloads."""

    def card(self):
        return Card(weights=str(Path(os.environ["BENCH_DOWNLOADS"]).absolute()))


@dataclass(frozen=True)
class Locked(Letters):
    """Cannot be sent to another process."""

    lock: Any = field(default_factory=threading.Lock, compare=False)


@dataclass(frozen=True, kw_only=True)
class States(NetworkTask):
    """The mean length of token states, which needs the network, and of some embeddings."""

    name: str = "states"
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "norm"

    def load(self, seed):
        return TEXTS[:10]

    def measure(self, encoder, *, seed):
        texts = self.load(seed)
        vectors = encoder.encode([f"{text}, asked by a task" for text in texts])
        states = encoder.encode_tokens(texts)
        norms = np.array([np.linalg.norm(each.states, axis=1).mean() for each in states])
        lengths = (norms + np.linalg.norm(vectors, axis=1)).astype(np.float32)
        return {"norm": Score((float(lengths.mean()),), lengths)}


@dataclass(frozen=True)
class Mortal:
    """A training whose process ends while it trains."""

    training: PlannedTraining
    deaths: Path

    @property
    def out(self):
        return self.training.out

    def run(self, load, progress):
        def show(label, done, total):
            if done and label == "crops: training":
                die(self.deaths)
            progress(label, done, total)

        return self.training.run(load, show)


@pytest.fixture(scope="module")
def cluster():
    """A cluster without GPUs: a head that computes nothing, and two nodes of one core."""
    safe = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    safe |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    safe |= {"RAY_worker_niceness": "0"}  # 15 would wait for all else on a busy machine
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory("r", dir="/tmp") as tmp:
        for name, value in safe.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        # A cluster notes its address there in any case.
        Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108 - a name of Ray
        before = set(psutil.Process().children(recursive=True))
        node = {"num_gpus": 0, "object_store_memory": 100 << 20, "temp_dir": tmp}
        made = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
        made.add = lambda: made.add_node(num_cpus=1, **node)
        made.others = [made.add(), made.add()]
        yield made
        started = set(psutil.Process().children(recursive=True)) - before
        made.shutdown()
        _, alive = psutil.wait_procs(started, timeout=20)
        assert not alive


def compute(encoders, tasks, folder, engine, vectors=None, **options):
    """Return the cells of a run by the names of their encoders and tasks."""
    store, options = Store(folder / "results"), {"keep_going": True, **options}
    with engine:
        cells = run(encoders, tasks, store, vectors or Vectors(None), engine=engine, **options)
        return {(cell.encoder, cell.task.name): cell for cell in cells}


def test_two_workers_give_the_scores_and_vectors_of_one_process(cluster, tmp_path):
    from adapters.baseline.pooled import Pooled
    from adapters.dino.encoder import DINO
    from tests.tiny import tiny_folder

    llama, roberta = (str(tiny_folder(kind, tmp_path / kind)) for kind in ("llama", "roberta"))
    encoders = {
        "pooled": Pooled(checkpoint=llama, dtype="float32"),
        "dino": DINO(checkpoint=roberta, dtype="float32"),
    }
    long = tuple(f"{text} {'and on ' * (i % 40)}" for i, text in enumerate(TEXTS * 3))
    tasks = [Norms(texts=TEXTS), States(), Norms(name="long", texts=long)]
    engines = Inline(), start_engine("2", cluster.address)
    folders = [tmp_path / "inline", tmp_path / "ray"]
    caches = [Vectors(folder / "cache") for folder in folders]
    found, other = (
        compute(encoders, tasks, *rest) for rest in zip(folders, engines, caches, strict=True)
    )
    assert len(found) == len(other) == 6
    for key, cell in found.items():
        assert (cell.status, other[key].status) == ("done", "done")
        here, there = cell.result, other[key].result
        assert abs(here.main.mean - there.main.mean) <= 1e-6
        assert np.abs(here.main.examples - there.main.examples).max() <= 1e-5
        assert there.texts == here.texts
        assert there.provenance["workers"]
        if key[1] == "long":
            # Cells share a job, and its cost, if no worker waits for one when they are planned.
            assert 0 < there.cost["tokens"] <= here.cost["tokens"]
    items = [Item(text) for text in long]
    items += [Item(f"{text}, asked by a task") for text in TEXTS[:10]]
    for encoder in encoders.values():
        one, two = (CachedEncoder(encoder, cache, computes=False) for cache in caches)
        assert np.abs(one.embed(items) - two.embed(items)).max() <= 1e-5


def test_what_ends_workers_or_cannot_be_sent_to_them_fails_its_own_cells_alone(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("TEST_OF_DRIVER", "1")
    monkeypatch.setenv("BENCH_DOWNLOADS", "downloads")
    once, always = allow_deaths(tmp_path / "once", 1), allow_deaths(tmp_path / "always", 9)
    encoders = {
        "once": Letters(33, deaths=str(once)),
        "always": Letters(34, deaths=str(always)),
        "uneven": Uneven(),
        "another": Here(),
        "locked": Locked(),
        "downloaded": Downloaded(),
    }
    tasks = [
        Norms(name="fine", texts=tuple(f"fine {text}" for text in TEXTS)),
        Norms(name="poisoned", texts=("poison " * 10_000, *TEXTS)),
    ]
    cells = compute(encoders, tasks, tmp_path, start_engine("2", cluster.address))
    failed = {key: cell.reason for key, cell in cells.items() if cell.status == "failed"}
    failed.pop(("uneven", "fine"), "")  # if it shares a pass with the long text
    assert len(cells) == 12
    assert failed.keys() == {
        ("always", "poisoned"),
        ("uneven", "poisoned"),
        *((name, task.name) for name in ("another", "locked") for task in tasks),
    }
    assert "poison poison" in failed["always", "poisoned"]
    assert "length" in failed["uneven", "poisoned"]
    assert "give --dtype" in failed["another", "fine"]
    assert "cannot pickle" in failed["locked", "fine"]
    assert (len(list(once.iterdir())), len(list(always.iterdir()))) == (0, 9 - _DEATHS)
    assert cells["once", "poisoned"].result.texts["distinct"] == len(TEXTS) + 1


@pytest.mark.parametrize(
    ("workers", "address", "device", "message"),
    [
        ("3", "", "cpu", "got 3: the cluster has 3 nodes with"),
        ("2", "", "cuda", "expected a GPU for --device cuda: there are 3 nodes with"),
        ("2", "", "cuda:1", "expected --device cuda with several workers"),
        ("none", "", "cpu", "--workers takes a number from 1, or auto, got 'none'"),
        ("2", "127.0.0.1:1", "auto", r"cannot connect to Ray at 127\.0\.0\.1:1"),
    ],
)
def test_what_no_node_has_is_refused_at_once(cluster, workers, address, device, message):
    with pytest.raises(UsageError, match=message):
        start_engine(workers, address or cluster.address, device)


def test_a_process_may_start_workers_again(monkeypatch):
    """Ray reads its settings once in a process, so that a new token would shut workers out."""
    first = _safe_settings()
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "ray", sys)
    assert _safe_settings() == first


def test_a_training_whose_worker_ends_gives_the_weights_of_one_process(cluster, tmp_path):
    import ray

    from tests.tiny import SENTENCES, tiny_folder

    tiny_folder("llama", tmp_path / "base", head=True)
    lines = [json.dumps({"text": " ".join(SENTENCES[i : i + 4])}) for i in range(3)] * 2
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    changes = [f"backbone={tmp_path / 'base'}", f"sources={tmp_path / 'texts.jsonl'}", "rank=2"]
    changes += ["batch_size=3", "longest=60", "dtype=float32", "device=cpu"]
    here, there = (
        plan_trainings(["crops"], ["400"], [0], changes=changes, out=tmp_path / name)[0]
        for name in ("here", "there")
    )
    steps, deaths = [], allow_deaths(tmp_path / "deaths", 1)
    jobs = [
        Train(Mortal(there, deaths), lambda *step: steps.append(step)),
        Train(PlannedTraining("noting", Noting(), 7, 1, tmp_path / "noted"), lambda *_: None),
    ]
    for job in jobs:
        job.training.out.mkdir()
    found = {}
    with start_engine(None, cluster.address) as engine:  # a worker for each node with cores
        with pytest.raises(UsageError, match="connected to it already"):
            start_engine("2")
        assert ray.is_initialized()
        for job in jobs:
            assert engine.idle  # though workers still start
            engine.submit(job)
        assert not engine.idle
        while outcome := engine.wait():
            assert outcome.last
            found[outcome.job] = outcome.value
        assert len(engine.provenance()["workers"]) == 1
    here.run(load, lambda *_: None)
    one, other = (folder / "adapter_model.safetensors" for folder in (found[jobs[0]], here.out))
    assert one.read_bytes() == other.read_bytes()
    assert not list(deaths.iterdir())
    assert steps
    assert read_notes(found[jobs[1]]) == {"noted": ["a", 0.5, "auto", 7, 1]}


def test_a_training_that_fails_or_ends_its_worker_is_reported_and_the_others_go_on(
    cluster, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.engine.ray.driver._DEATHS", 1)
    options = "--vary text=failing,deadly,b --budget 7 --out made --keep-going --ray"
    done = call(f"train {NOTING} {options}", cluster.address)
    assert done.exit_code == 1, done.output
    assert sorted(done.stdout.split()) == ["made/base", "made/text=b"]
    assert "made/text=failing: expected another text" in caplog.text
    assert "text=deadly ended the worker that computed it, 1 times" in caplog.text
    noted = {name: note[0] for name, note in read_notes(Path("made")).items()}
    assert noted == {"base": "a", "text=b": "b"}


def test_a_node_may_leave_and_another_come(cluster, tmp_path):
    texts = [tuple(f"{text} of {part}" for text in TEXTS * 2) for part in range(2)]
    tasks = [Norms(name=f"part {i}", texts=part) for i, part in enumerate(texts)]
    left = list(cluster.others)

    def swap_nodes(label, done, total):
        if done and len(left) == 2:
            for node in left[:]:
                with contextlib.suppress(ValueError):  # this process is connected to it
                    cluster.remove_node(node, allow_graceful=False)
                    left.remove(node)
                    break
            cluster.add()

    engine, encoder = start_engine("2", cluster.address), Letters(seconds=0.05)
    cells = compute({"letters": encoder}, tasks, tmp_path, engine, progress=swap_nodes)
    assert len(left) == 1
    assert [cell.status for cell in cells.values()] == ["done"] * 2
    assert [*cells.values()][-1].result.cost["forward_texts"] == len({*texts[0], *texts[1]})


def test_workers_of_one_machine_are_private_and_end_with_it(tmp_path):
    """Ray listens on the loopback alone, in a folder of its own, and nothing is left of it."""
    with start_python(LOCAL, tmp_path) as process:
        assert process.stdout.readline() == "encoding\n"
        children = psutil.Process(process.pid).children(recursive=True)
        for each in children:
            for connection in each.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    assert "127.0.0.1" in connection.laddr.ip
        calls = " ".join(arg for child in children for arg in child.cmdline())
        folder = Path(re.search(r"--temp-dir=(\S+)", calls)[1])
        assert folder.parent.stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.returncode == 130, process.stdout.read()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not folder.exists()


LOCAL = """
import sys
from pathlib import Path
from bench.process import prepare, report_error
prepare()
from bench.engine import start_engine
from tests.bench.test_ray import Letters, Norms, compute

def show(label, done, total):
    if done:
        print("encoding", flush=True)

try:
    encoder, task = Letters(seconds=0.005), Norms(texts=tuple(map(str, range(9999))))
    compute({"letters": encoder}, [task], Path(sys.argv[1]), start_engine("2"), progress=show)
except BaseException as error:
    sys.exit(report_error(error))
"""
