"""The scripts in examples: an array without Slurm, a mirror without a network, a cluster's file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.faults.commands import write_data

EXAMPLES = Path(__file__).parent.parent / "examples"


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
def test_a_manifest_names_what_its_containers_are(path):
    cluster = yaml.safe_load(path.read_text())["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        variables = {entry["name"] for entry in container["env"]}
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "BENCH_DATA"} <= variables


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
