"""What the rooms of the house may not do."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
HEAVY = {"torch", "transformers", "mteb", "matplotlib", "pandas", "datasets", "sklearn", "scipy"}


def _loaded(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def _quickest(*commands: list[object]) -> list[float]:
    """Return the seconds of the quickest of ten runs of each command, in turns: others share the machine, for seconds on end."""
    seconds = []
    for _ in range(10):
        for command in commands:
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True, timeout=60)
            seconds.append(time.perf_counter() - start)
    return [min(seconds[k :: len(commands)]) for k in range(len(commands))]


def test_listing_is_quick_and_loads_nothing_heavy():
    assert not HEAVY & _loaded(
        "from typer.testing import CliRunner; from bench.cli import app; CliRunner().invoke(app, ['list'])"
    )
    command = "import numpy, typer; app = typer.Typer(); app.command()(lambda: None); app()"
    listing, nothing = _quickest([BIN / "bench", "list"], [sys.executable, "-c", command])
    assert listing < max(
        0.5, 2.5 * nothing
    )  # half a second, and on a machine too slow for that what it is beside a command without work


@pytest.mark.parametrize(
    "name", ["quip", "dino", "inbedder", "llm2comp", "backbone-mean", "st", "hashing"]
)
def test_making_an_encoder_loads_nothing_heavy(name):
    assert not HEAVY & _loaded(f"from bench.registry import load_encoder; load_encoder({name!r})")


_BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "mteb", "datasets", "transformers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_the_harness_runs_without_torch_and_mteb():
    code = (
        _BLOCK
        + "from bench.registry import load_encoder\nassert load_encoder('hashing').encode(['a', 'b']).shape == (2, 1024)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_imports_go_down_only():
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def _undocumented(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    inside = [
        node
        for outer in tree.body
        if isinstance(outer, ast.ClassDef) and not outer.name.startswith("_")
        for node in outer.body
    ]
    public = [
        node
        for node in (*tree.body, *inside)
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]
    return [f"{path.name}: {node.name}" for node in public if not ast.get_docstring(node)]


def test_every_public_name_says_what_it_is_for():
    root = Path(__file__).parents[1]
    files = [path for room in ("bench", "adapters") for path in (root / room).rglob("*.py")]
    assert len(files) > 40
    assert [name for path in files for name in _undocumented(path)] == []
