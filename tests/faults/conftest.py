"""The campaign: commands that are killed, damaged files, crowds, hostile texts; every point is counted."""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

WHOLE = os.environ.get("FAULTS") == "whole"
"""Whether every point is tried, and the figures are written down, or a sample of them."""

OUTCOMES = ("equal", "told", "differing", "crashed")
ABOUT = """# Kills, damage, crowds, hostile texts

Every point is a command that something happens to, and what came of it: *equal* results in the end; a fault that is *told* in one line, so
that a cell is missing or a file refused; *differing* results without a word; or a command that *crashed*, with a signal or a traceback.
The last two must be 0. `make test` tries a sample of the points; these are all of them:

```
make faults
```
"""

figures: dict[str, Counter[str]] = {}

BASE = (
    "bench.cli",
    "bench.runner",
    "bench.reporting.figures",
    "bench.reporting.html",
    "bench.testing",
)
HEAVY = (
    *BASE,
    "sklearn.linear_model",
    "sklearn.cluster",
    "pandas",
    "matplotlib.pyplot",
    "datasets",
)
TORCH = (*BASE, "torch", "transformers", "peft", "accelerate", "adapters.dino.train")


class Forks:
    """Runs commands in forks of a process that has imported everything."""

    def __init__(self, modules: tuple[str, ...], **environment: str) -> None:
        here = Path(__file__)
        env = os.environ | {"PYTHONPATH": str(here.parents[2]), "OMP_NUM_THREADS": "1"}
        env |= environment
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(here.with_name("forks.py")), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )

    def together(self, folder: Path, commands: list[list[str]], **how: Any) -> list["Ended"]:
        """Run commands side by side in a folder; ``seconds`` and ``most`` end them before their time,
        and ``die_at`` the first of them."""
        jobs = [
            {
                "command": command,
                "folder": str(folder),
                "log": str(folder.with_name(f"{folder.name}.{i}.log")),
                "env": {"BENCH_CACHE": str(folder / "cache")} | how.get("env", {}),
                "die_at": how.get("die_at", 0) if i == 0 else 0,
                "seconds": how.get("seconds", 0),
                "most": how.get("most", 0),
            }
            for i, command in enumerate(commands)
        ]
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        ends = json.loads(self.process.stdout.readline())
        return [
            Ended(code, count, Path(job["log"]).read_text(encoding="utf-8", errors="replace"))
            for (code, count), job in zip(ends, jobs, strict=True)
        ]

    def run(self, folder: Path, *command: str, **how: Any) -> "Ended":
        """Run one command."""
        return self.together(folder, [list(command)], **how)[0]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


class Ended:
    """How a command ended: its exit code, the number of its file operations, and all that it printed."""

    def __init__(self, code: int, operations: int, said: str) -> None:
        self.code, self.operations, self.said = code, operations, said

    @property
    def crashed(self) -> bool:
        """Whether it ended by a signal or with a traceback, instead of a line."""
        return self.code < 0 or self.code == 70 or "Traceback (most recent" in self.said


class Tally:
    """Counts the outcomes of one part of the campaign, and keeps the cases that must not be."""

    def __init__(self, part: str) -> None:
        self.counts, self.faults = figures.setdefault(part, Counter()), []

    def count(self, outcome: str, case: str) -> None:
        assert outcome in OUTCOMES
        self.counts[outcome] += 1
        if outcome in {"differing", "crashed"}:
            self.faults.append(f"{outcome}: {case}")

    def check(self) -> None:
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:20]])


def sampled(points: range, few: int) -> list[int]:
    """Return every point, or a few of them, evenly spread, in the short form."""
    if WHOLE or len(points) <= few:
        return list(points)
    if few == 1:
        return [points[len(points) // 2]]
    return [points[round(i * (len(points) - 1) / (few - 1))] for i in range(few)]


@pytest.fixture(scope="session")
def forks():
    made = Forks(HEAVY, HF_HUB_OFFLINE="1")
    yield made
    made.close()


@pytest.fixture(scope="session")
def torch_forks():
    made = Forks(TORCH, HF_HUB_OFFLINE="1")
    yield made
    made.close()


def pytest_terminal_summary(terminalreporter):
    from tests.faults.conftest import figures, table  # the module that the tests import

    if not figures:
        return
    lines = table()
    terminalreporter.write_line("\n".join(lines))
    if WHOLE:
        Path("reports/faults.md").write_text(page(lines), encoding="utf-8")


def table() -> list[str]:
    rows = [
        (part, sum(counts.values()), *(counts[o] for o in OUTCOMES))
        for part, counts in figures.items()
    ]
    total = ["**all**", *(sum(row[i] for row in rows) for i in range(1, len(OUTCOMES) + 2))]
    return [
        "| what is done | points | " + " | ".join(OUTCOMES) + " |",
        "|---|" + "---:|" * (len(OUTCOMES) + 1),
        *(
            "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) + " |"
            for row in [*rows, total]
        ),
    ]


def page(lines: list[str]) -> str:
    machine = (
        f"{platform.system()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    )
    return "\n".join([ABOUT, *lines, "", f"{machine}.", ""])
