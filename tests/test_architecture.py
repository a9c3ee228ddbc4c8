"""What the packages may not do."""

import ast
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HEAVY = {"torch", "transformers", "mteb", "matplotlib", "pandas", "datasets", "sklearn", "scipy"}


def cpu_seconds(*command):
    """Return the CPU seconds of a command."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, env=env, capture_output=True, check=True, timeout=60)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_listing_is_quick():
    parsing = """
import numpy, typer
app = typer.Typer()
@app.command()
def show(name: str = "", as_json: bool = False): pass
app()
"""
    # In proportion to a command that does nothing but parse its options, since machines differ;
    # in turns, since the load of one changes; the least of five, since the first compiles.
    ratios = [
        cpu_seconds(BIN / "bench", "list") / cpu_seconds(sys.executable, "-c", parsing)
        for _ in range(5)
    ]
    assert min(ratios) < 3


def test_listing_and_naming_what_there_is_loads_nothing_heavy():
    code = """
import json, sys
from importlib.util import find_spec
import bench.reporting, bench.data.supply
from bench.cli import app
from bench.registry import load_encoder
from bench.tasks.mteb import MtebTask
from typer.testing import CliRunner
assert CliRunner().invoke(app, ["list"]).exit_code == 0
wrong = CliRunner().invoke(app, ["run", "-t", "STSBenchmarc"])
assert "STSBenchmark" in wrong.stderr or not find_spec("mteb"), wrong.stderr
load_encoder("hashing")
MtebTask("STS13").version
print(json.dumps([name.partition(".")[0] for name in sys.modules]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(done.stdout)
    assert "numpy" in loaded
    assert not (HEAVY | {"yaml", "tabulate", "seqeval", "huggingface_hub"}) & {*loaded}


def test_imports_follow_the_contracts():
    command = [BIN / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def undocumented(path: Path) -> list[str]:
    nodes = list(ast.parse(path.read_text(encoding="utf-8")).body)
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    for outer in classes:
        nodes += outer.body if not outer.name.startswith("_") else []
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    public = [n for n in nodes if isinstance(n, kinds) and not n.name.startswith("_")]
    return [f"{path.name}: {node.name}" for node in public if not ast.get_docstring(node)]


def test_every_public_name_has_a_docstring():
    files = [*(ROOT / "bench").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]
    assert len(files) > 40
    assert [name for path in files for name in undocumented(path)] == []
