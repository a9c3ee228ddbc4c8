"""The scripts in examples, without a cluster: a stand-in for Slurm starts processes here."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml

from tests.faults.commands import write_data

EXAMPLES = Path(__file__).parent.parent / "examples"

SLURM = {
    "hostname": "echo 127.0.0.1",
    "scontrol": "printf '%s\\n' node1 node2",
    # without its options, which come first, a command is run on this machine
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
}
"""Commands of a cluster of two nodes, in bash: both are this machine."""


def start(folder: Path, script: str, *words: str, **env: str) -> subprocess.Popen[str]:
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BENCH_CACHE": str(folder / "cache"),
        "MODEL": "hashing",
        "TASK": "stsb",
        **env,
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = ["bash", str(EXAMPLES / script), *words]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **settings}, text=True, **pipes)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_valid(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_manifest_has_the_fields_of_a_ray_job(path):
    """By ray-operator/apis/ray/v1 of KubeRay, which has no schema that a test could carry."""
    manifest = yaml.safe_load(path.read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    job = manifest["spec"]
    assert job.keys() <= {"entrypoint", "shutdownAfterJobFinishes", "rayClusterSpec"}
    cluster = job["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}  # needs the version
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        replicas = {"groupName", "replicas", "minReplicas", "maxReplicas"}
        assert group.keys() - replicas == {"rayStartParams", "template"}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert {"BENCH_DATA", "BENCH_CACHE"} <= {entry["name"] for entry in container["env"]}


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_a_slurm_job_runs_on_both_of_its_nodes(tmp_path):
    folder, bin_ = write_data(tmp_path / "job"), tmp_path / "bin"
    bin_.mkdir()
    for name, code in SLURM.items():
        (bin_ / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (bin_ / name).chmod(0o755)
    number = str(os.getpid())  # from which its port follows
    with tempfile.TemporaryDirectory("r", dir="/tmp") as short:
        job = start(
            folder,
            "slurm_ray.sh",
            *("--model", "hashing", "--task", "stsb", "--device", "cpu"),
            PATH=f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            BENCH_DATA=str(folder / "data"),
            SLURM_JOB_ID=number,
            SLURM_JOB_NODELIST="node[1-2]",
            RAY_TMPDIR=short,
        )
        try:
            job.wait(timeout=240)
        finally:
            _end_slurm_job(number)  # as Slurm ends what a job leaves behind
        output = job.communicate()[0]
    assert job.returncode == 0, output
    (result,) = (folder / "results").glob("*/*.json")
    assert json.loads(result.read_text())["provenance"]["workers"], output


def _end_slurm_job(number: str) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == number:
                process.kill()


def test_an_array_of_two_processes_runs_each_cell_once(tmp_path):
    folder = write_data(tmp_path / "job")
    env = {"BENCH_DATA": str(folder / "data"), "MODEL": "a=hashing,b=hashing"}
    jobs = [start(folder, "slurm_array.sh", **env) for _ in range(2)]
    outputs = [job.communicate(timeout=120)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    done = [line for output in outputs for line in output.splitlines() if line.startswith("done")]
    assert len(done) == 2
    assert len(list((folder / "results").glob("*/*.json"))) == 2


def test_a_mirror_is_filled_checked_and_used_by_the_script(tmp_path):
    folder = write_data(tmp_path / "job")
    for step, data in (("fetch", str(folder / "data")), ("run", "")):
        job = start(folder, "offline.sh", step, str(folder / "mirror"), BENCH_DATA=data)
        output = job.communicate(timeout=120)[0]
        assert job.returncode == 0, output
    (result,) = (folder / "results").glob("*/*.json")
    assert json.loads(result.read_text())["provenance"]["data"][0]["source"] == "local"
