"""What the packages may not do."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HEAVY = {"torch", "transformers", "mteb", "matplotlib", "pandas", "datasets", "sklearn", "scipy"}


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr


def measure(*commands: list[object]) -> list[float]:
    """Return the shortest of three times of each command, measured in turns."""
    seconds: list[list[float]] = [[] for _ in commands]
    for _ in range(3):
        for command, times in zip(commands, seconds, strict=True):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True, timeout=60)
            times.append(time.perf_counter() - start)
    return list(map(min, seconds))


def test_listing_is_quick():
    command = "import numpy, typer; app = typer.Typer(); app.command()(lambda: None); app()"
    listing, nothing = measure([BIN / "bench", "list"], [sys.executable, "-c", command])
    # On a slow machine, in proportion to a command that does nothing.
    assert listing < max(0.5, 2.5 * nothing)


def test_listing_and_making_an_encoder_without_a_network_load_nothing_heavy():
    code = (
        "import json, sys; from typer.testing import CliRunner; from bench.cli import app\n"
        "from bench.registry import load_encoder\n"
        "assert CliRunner().invoke(app, ['list']).exit_code == 0\n"
        "load_encoder('hashing')\n"
        "print(json.dumps([name.partition('.')[0] for name in sys.modules]), file=sys.stderr)"
    )
    assert not HEAVY & set(json.loads(run(code)))


def test_the_harness_runs_without_torch_and_mteb():
    run("""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "mteb", "datasets", "transformers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from bench.registry import load_encoder
assert load_encoder('hashing').encode(['a', 'b']).shape == (2, 1024)
""")


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
    files = [path for package in ("bench", "adapters") for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 40
    assert [name for path in files for name in undocumented(path)] == []
