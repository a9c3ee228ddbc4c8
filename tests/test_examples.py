"""The scripts of examples/ that need a cluster: they are read, since there is none here."""

import subprocess
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_of_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_manifest_names_what_its_containers_are(path):
    cluster = yaml.safe_load(path.read_text())["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        variables = {entry["name"] for entry in container["env"]}
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "BENCH_DATA"} <= variables
