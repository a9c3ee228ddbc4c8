"""The engine on Ray: the numbers of one process, and every cell whatever dies meanwhile.

Ray is started once for all of these tests, as a cluster on this machine.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.data import load
from bench.embeddings import CachedEncoder
from bench.encoder import Card, Embeddings, Item
from bench.engine import Engine, Inline, Measure, Train, Training, start_engine
from bench.engine.ray import _safe_settings
from bench.errors import UsageError
from bench.runner import Cell, run
from bench.store import Store
from bench.task import NetworkTask, Score, Task
from bench.trainings import plan_trainings
from bench.vectors import Vectors

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of Ray
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),
]

TEXTS = tuple(f"text number {i}" + " and more" * (i % 7) for i in range(60))


@dataclass(frozen=True)
class Letters:
    """Counts letters, slowly; some texts end the process, as often as there are files for it."""

    seconds: float = field(default=0.0, compare=False)
    deaths: str = field(default="", compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def stream(self, items: Sequence[Item]) -> Iterator[Any]:
        from bench.encoder import Batch

        for i, item in enumerate(items):
            time.sleep(self.seconds)
            if "poison" in item.text:
                self._die()
            row = np.zeros((1, 32), np.float32)
            row[0, 0] = 1
            for letter in item.text:
                row[0, ord(letter) % 32] += 1
            yield Batch(np.array([i]), row, np.ones(1, np.int32), np.zeros(1, bool), 1)

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        items = [Item(text, instruction) for text in texts]
        return np.concatenate([batch.vectors for batch in self.stream(items)])

    def _die(self) -> None:
        for path in sorted(Path(self.deaths).glob("*")):
            path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Uneven(Letters):
    """Gives longer vectors of long texts."""

    def stream(self, items: Sequence[Item]) -> Iterator[Any]:
        for batch in super().stream(items):
            long = len(items[batch.positions[0]].text) > 500
            yield replace(batch, vectors=np.repeat(batch.vectors, 1 + long, axis=1))


@dataclass(frozen=True)
class Here(Letters):
    """Has other weights in another process."""

    def card(self) -> Card:
        return Card(weights=os.environ.get("TEST_OF_DRIVER", ""))


@dataclass(frozen=True)
class Downloaded(Letters):
    """Has weights in the folder of downloads."""

    def card(self) -> Card:
        return Card(weights=str(Path(os.environ["BENCH_DOWNLOADS"]).absolute()))


@dataclass(frozen=True)
class Locked(Letters):
    """Cannot be sent to another process."""

    lock: Any = field(default_factory=threading.Lock, compare=False)


@dataclass(frozen=True, kw_only=True)
class Norms(Task):
    """The lengths of some vectors."""

    texts: tuple[str, ...] = TEXTS
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "norm"

    def items(self, *, seed: int) -> list[Item]:
        return [Item(text) for text in self.texts]

    def score(self, vectors: Embeddings, *, seed: int) -> dict[str, Score]:
        lengths = np.linalg.norm(vectors, axis=1)
        return {"norm": Score((float(lengths.mean()),), lengths)}


@dataclass(frozen=True, kw_only=True)
class States(NetworkTask):
    """The mean length of token states, which needs the network, and of some embeddings."""

    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "norm"

    def load(self, seed: int) -> tuple[str, ...]:
        return TEXTS[:10]

    def measure(self, encoder: CachedEncoder, *, seed: int) -> dict[str, Score]:
        texts = self.load(seed)
        vectors = encoder.encode([f"{text}, asked by a task" for text in texts])
        states = encoder.encode_tokens(texts)
        norms = np.array([np.linalg.norm(each.states, axis=1).mean() for each in states])
        lengths = (norms + np.linalg.norm(vectors, axis=1)).astype(np.float32)
        return {"norm": Score((float(lengths.mean()),), lengths)}


@dataclass(frozen=True)
class Mortal:
    """A training whose process ends at a stage, as often as there are files for it."""

    training: Training
    deaths: Path
    stage: str

    @property
    def out(self) -> Path:
        return self.training.out

    def run(self, load: Any, progress: Any) -> Path:
        def show(label: str, done: int, total: int) -> None:
            if done and label == self.stage:
                Letters(deaths=str(self.deaths)).encode(["poison"])
            progress(label, done, total)

        return self.training.run(load, show)


@dataclass(frozen=True)
class Writing:
    """A recipe that writes its text into a file."""

    text: str = "a"

    def check(self) -> None:
        pass

    def train(self, out: Path, *, budget: int, seed: int, load: Any, progress: Any) -> Path:
        progress("writing", 1, 1)
        if self.text == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.text == "z":
            raise UsageError(f"expected a text other than z, got {self.text!r}")
        (out / "text").write_text(f"{self.text} {budget} {seed}")
        return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster without GPUs: a head that computes nothing, and two nodes of one core."""
    safe = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    safe |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory("r", dir="/tmp") as tmp:
        for name, value in safe.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        # A cluster notes its address there in any case.
        Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108 - a name of Ray
        before = set(psutil.Process().children(recursive=True))
        head = {"num_cpus": 0, "num_gpus": 0, "object_store_memory": 100 << 20, "temp_dir": tmp}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.folder = tmp
        made.others = [_add_node(made), _add_node(made)]
        yield made
        started = set(psutil.Process().children(recursive=True)) - before
        made.shutdown()
        _, alive = psutil.wait_procs(started, timeout=20)
        assert not alive


def _add_node(cluster: Any) -> Any:
    return cluster.add_node(
        num_cpus=1, num_gpus=0, object_store_memory=100 << 20, temp_dir=cluster.folder
    )


def _run(
    encoders: Any, tasks: Sequence[Task], folder: Path, engine: Engine, **options: Any
) -> list[Cell]:
    store, vectors = Store(folder / "results"), options.pop("vectors", None) or Vectors(None)
    with engine:
        return list(run(encoders, tasks, store, vectors, engine=engine, keep_going=True, **options))


def test_two_workers_give_the_scores_and_vectors_of_one_process(cluster, tmp_path):
    from adapters.baseline.pooled import Pooled
    from adapters.dino.encoder import DINO
    from tests.tiny import tiny_folder

    llama, roberta = (str(tiny_folder(kind, tmp_path / kind)) for kind in ("llama", "roberta"))
    encoders = {
        "pooled": Pooled(checkpoint=llama, dtype="float32"),
        "dino": DINO(checkpoint=roberta, dtype="float32"),
    }
    long = tuple(f"{text} {'and on ' * (i % 40)}" for i, text in enumerate(TEXTS * 6))
    tasks = [Norms(name="norms"), States(name="states"), Norms(name="long", texts=long)]
    found, caches = {}, {}
    for name in ("inline", "ray"):
        engine = Inline() if name == "inline" else start_engine("2", cluster.address)
        caches[name] = Vectors(tmp_path / name / "cache")
        cells = _run(encoders, tasks, tmp_path / name, engine, vectors=caches[name])
        assert [cell.status for cell in cells] == ["done"] * 6
        found[name] = {(cell.encoder, cell.task.name): cell.result for cell in cells}
    assert len(found["ray"]) == 6
    for key, result in found["inline"].items():
        other = found["ray"][key]
        assert abs(result.main.mean - other.main.mean) <= 1e-6
        assert np.abs(result.main.examples - other.main.examples).max() <= 1e-5
        assert other.texts == result.texts
        assert other.provenance["workers"]
        if key[1] == "long":
            # Cells share a job, and its cost, if no worker waits for one when they are planned.
            assert 0 < other.cost["tokens"] <= result.cost["tokens"]
    asked = [Item(f"{text}, asked by a task") for text in TEXTS[:10]]
    items = [Item(text) for text in long] + asked
    for encoder in encoders.values():
        one, two = (CachedEncoder(encoder, cache, computes=False) for cache in caches.values())
        assert np.abs(one.embed(items) - two.embed(items)).max() <= 1e-5


def test_a_killed_worker_costs_no_cell(cluster, tmp_path):
    (tmp_path / "deaths").mkdir()
    (tmp_path / "deaths" / "1").touch()
    encoder = Letters(deaths=str(tmp_path / "deaths"))
    tasks = [Norms(name="fine"), Norms(name="poisoned", texts=("poison", *TEXTS))]
    cells = _run({"letters": encoder}, tasks, tmp_path, start_engine("2", cluster.address))
    assert sorted((c.task.name, c.status) for c in cells) == [
        ("fine", "done"),
        ("poisoned", "done"),
    ]
    assert not list((tmp_path / "deaths").iterdir())
    assert cells[-1].result.cost["forward_texts"] == len(TEXTS) + 1


def test_a_text_that_always_kills_its_worker_fails_its_cells_and_is_named(cluster, tmp_path):
    (tmp_path / "deaths").mkdir()
    for i in range(9):
        (tmp_path / "deaths" / str(i)).touch()
    encoder = Letters(deaths=str(tmp_path / "deaths"))
    poisoned = Norms(name="poisoned", texts=("poison " * 10_000, *TEXTS))
    other = Norms(name="other", texts=tuple(f"other {text}" for text in TEXTS))
    engine = start_engine("1", cluster.address)
    cells = _run({"letters": encoder}, [poisoned, other], tmp_path, engine)
    ended = {cell.task.name: cell for cell in cells}
    assert {name: cell.status for name, cell in ended.items()} == {
        "poisoned": "failed",
        "other": "done",
    }
    assert "poison poison" in ended["poisoned"].reason
    assert len(list((tmp_path / "deaths").iterdir())) == 6  # three workers, not more


def test_vectors_of_another_length_fail_their_cells_and_not_the_run(cluster, tmp_path):
    long = tuple(f"{i} " + "a" * 1000 for i in range(17))  # a window of their own
    encoders = {"uneven": Uneven(), "fine": Letters()}
    task = Norms(name="norms", texts=(*long, *TEXTS))
    cells = _run(encoders, [task], tmp_path, start_engine("1", cluster.address))
    assert [(cell.encoder, cell.status) for cell in cells] == [
        ("uneven", "failed"),
        ("fine", "done"),
    ]
    assert "length" in cells[0].reason


def test_an_encoder_that_a_worker_cannot_have_is_refused(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_OF_DRIVER", "1")
    monkeypatch.setenv("BENCH_DOWNLOADS", "downloads")
    encoders = {"another there": Here(), "locked": Locked(), "fine": Downloaded()}
    cells = _run(encoders, [Norms(name="norms")], tmp_path, start_engine("1", cluster.address))
    found = {cell.encoder: (cell.status, cell.reason) for cell in cells}
    assert found["fine"] == ("done", "")
    for name, advice in {"another there": "give --dtype", "locked": "cannot pickle"}.items():
        assert found[name][0] == "failed"
        assert advice in found[name][1]


def test_each_worker_gets_a_cell_that_needs_the_network_while_workers_start(cluster):
    encoder = CachedEncoder(Letters(), Vectors(None))
    with start_engine(address=cluster.address) as engine:  # one on each node that computes
        engine.submit(Measure(encoder, States(name="states"), 0))
        assert engine.idle
        engine.submit(Measure(encoder, States(name="states"), 1))
        assert not engine.idle


@pytest.mark.parametrize(
    ("workers", "device", "message"),
    [
        ("3", "cpu", "got 3: the cluster has 3 nodes with"),
        ("2", "cuda", "expected a GPU, as --device says: there are 3 nodes with"),
        ("2", "cuda:1", "expected --device cuda with several workers"),
        ("none", "cpu", "--workers takes a number from 1, or auto, got 'none'"),
    ],
)
def test_what_no_node_has_is_refused_at_once(cluster, workers, device, message):
    with pytest.raises(UsageError, match=message):
        start_engine(workers, cluster.address, device)


def test_a_cluster_that_is_not_there_is_an_error_of_the_call():
    with pytest.raises(UsageError, match=r"cannot connect to Ray at 127\.0\.0\.1:1"):
        start_engine("2", "127.0.0.1:1")


def test_a_node_may_leave_and_another_come(cluster, tmp_path):
    encoder = Letters(seconds=0.02)
    texts = [tuple(f"{text} of {part}" for text in TEXTS * 3) for part in range(3)]
    tasks = [Norms(name=f"part {i}", texts=part) for i, part in enumerate(texts)]
    left = list(cluster.others)

    def swap_nodes(label: str, done: int, total: int) -> None:
        if done and len(left) == 2:
            _remove_one(cluster, left)
            _add_node(cluster)

    engine = start_engine("2", cluster.address)
    cells = _run({"letters": encoder}, tasks, tmp_path, engine, progress=swap_nodes)
    assert len(left) == 1
    assert [cell.status for cell in cells] == ["done"] * 3
    assert cells[-1].result.cost["forward_texts"] == len({t for part in texts for t in part})


def _remove_one(cluster: Any, nodes: list[Any]) -> None:
    """Remove the node that this process is not connected to."""
    for node in nodes:
        with contextlib.suppress(ValueError):
            cluster.remove_node(node, allow_graceful=False)
            nodes.remove(node)
            return


def test_workers_do_not_end_the_cluster_that_a_process_is_connected_to(cluster):
    import ray

    with start_engine("1", cluster.address):
        with pytest.raises(UsageError, match="connected to it already"):
            start_engine("2")
        assert ray.is_initialized()


def test_a_process_may_start_workers_again(monkeypatch):
    """Ray reads its settings once in a process, so that a new token would shut workers out."""
    first = _safe_settings()
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "ray", sys)
    assert _safe_settings() == first


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """A function that plans two tiny trainings into a folder."""
    from tests.tiny import SENTENCES, tiny_folder

    place = tmp_path_factory.mktemp("training")
    tiny_folder("llama", place / "base", head=True)
    lines = [json.dumps({"text": " ".join(SENTENCES[i : i + 4])}) for i in range(3)] * 2
    (place / "texts.jsonl").write_text("\n".join(lines))
    changes = [f"backbone={place / 'base'}", f"sources={place / 'texts.jsonl'}", "rank=2"]
    changes += ["batch_size=3", "longest=60"]
    settings = {"device": "cpu", "dtype": "float32"}

    def plan(out: Path) -> list[Training]:
        return plan_trainings(
            ["crops"], ["400"], [0, 1], settings=settings, changes=changes, out=out
        )

    return plan


def test_trainings_on_workers_that_end_give_the_weights_of_one_process(
    cluster, trainings, tmp_path
):
    (tmp_path / "deaths").mkdir()
    (tmp_path / "deaths" / "1").touch()
    here, there = trainings(tmp_path / "here"), trainings(tmp_path / "there")
    mortal = Mortal(there[0], tmp_path / "deaths", "crops: training")
    steps: dict[str, list[tuple[str, int, int]]] = {"first": [], "second": []}
    jobs = [
        Train(mortal, lambda *step: steps["first"].append(step)),
        Train(there[1], lambda *step: steps["second"].append(step)),
    ]
    found = {}
    with start_engine(None, cluster.address) as engine:  # a worker for each node with cores
        for job in jobs:
            engine.submit(job)
        while outcome := engine.wait():
            assert outcome.last
            found[outcome.job] = outcome.value
        assert len(engine.provenance()["workers"]) == 1
    for job, planned in zip(jobs, here, strict=True):
        planned.run(load, lambda *_: None)
        weights = "adapter_model.safetensors"
        assert (found[job] / weights).read_bytes() == (planned.out / weights).read_bytes()
    assert not list((tmp_path / "deaths").iterdir())
    assert all(steps.values())


WRITING = f"{__name__}:Writing"


def test_a_failed_training_is_reported_and_the_others_go_on_if_they_are_to(
    cluster, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.engine.ray._DEATHS", 1)
    options = ["--vary", "text=z,deadly,b", "--budget", "7", "--out", "made"]
    command = ["train", WRITING, *options, "--ray", cluster.address, "--keep-going"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert sorted(done.stdout.split()) == ["made/base", "made/text=b"]
    assert "made/text=z: expected a text other than z, got 'z'" in caplog.messages
    assert "text=deadly ended the worker that computed it, 1 times" in caplog.text
    assert [Path(f"made/{name}/text").read_text() for name in ("base", "text=b")] == [
        "a 7 42",
        "b 7 42",
    ]


def test_workers_of_one_machine_are_private_and_end_with_it(tmp_path):
    """Ray listens on the loopback alone, in a folder of its own, and nothing is left of it."""
    with subprocess.Popen(
        [sys.executable, "-c", _LOCAL, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout.readline() == "encoding\n"
        children = psutil.Process(process.pid).children(recursive=True)
        for each in children:
            for connection in each.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    assert "127.0.0.1" in connection.laddr.ip
        calls = " ".join(arg for child in children for arg in child.cmdline())
        folder = Path(re.search(r"--temp-dir=(\S+)", calls)[1])
        assert folder.parent.stat().st_mode & 0o077 == 0
        assert children
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.returncode == 130, process.stdout.read()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not folder.exists()


_LOCAL = """
import sys
from pathlib import Path
from bench.process import prepare, report_error
prepare()
from bench.engine import start_engine
from bench.runner import run
from bench.store import Store
from bench.vectors import Vectors
from tests.bench.test_ray import Letters, Norms

def show(label, done, total):
    if done:
        print("encoding", flush=True)

try:
    encoder, task = Letters(seconds=0.005), Norms(name="norms", texts=tuple(map(str, range(9999))))
    with start_engine("2") as engine:
        store = Store(Path(sys.argv[1]))
        list(run({"letters": encoder}, [task], store, Vectors(None), engine=engine, progress=show))
except BaseException as error:
    sys.exit(report_error(error))
"""
