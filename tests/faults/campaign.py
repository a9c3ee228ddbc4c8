"""The campaign's commands, outcomes and figures."""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WHOLE = os.environ.get("FAULTS") == "whole"
"""Whether all points are tried and the figures are written to a file, or a few of the points."""

LANES = 2
"""Commands of separate folders that run at the same time."""

OUTCOMES = ("equal", "reported", "different", "crashed")
ABOUT = """# Kills, damaged files, several processes, hostile texts

At every point something happens to a command. The outcome is *equal*: in the end the results are
the same; *reported*: a line names the fault, and a result is missing or the command fails;
*different*: other results without a word; or *crashed*: a signal or a traceback. The last two must
be 0. `make test` tries a few of the points; these are all of them:

```
make faults
```
"""

figures: dict[str, Counter[str]] = {}


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code, minus the signal's number where one ended it.
        operations: Number of its file operations; 0 where it was killed.
        output: All that it printed.
    """

    code: int
    operations: int
    output: str

    @property
    def crashed(self) -> bool:
        """Whether it ended by a signal or with a traceback, instead of a line."""
        return self.code < 0 or self.code == 70 or "Traceback (most recent" in self.output


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        folder: The working folder; its cache is there too.
        command: Words after ``bench``.
        die_at: Number of the file operation before which it is killed; 0 for none.
        most: Bytes that a file can have, as if the disk were full; 0 for any.
        env: Further environment variables.
    """

    folder: Path
    command: tuple[str, ...]
    die_at: int = 0
    most: int = 0
    env: Mapping[str, str] = field(default_factory=dict)


class Forks:
    """Runs commands in forks of one process; see ``forks.py``.

    Args:
        modules: What the commands also import.
        environment: Variables that are set before anything is imported.
    """

    _MODULES = ("bench.cli", "bench.runner", "torch", "transformers", "peft", "accelerate")

    def __init__(self, *modules: str, **environment: str) -> None:
        here = Path(__file__)
        paths = {"PYTHONPATH": str(here.parents[2]), "OMP_NUM_THREADS": "1"}
        env = {**os.environ, **paths, **environment}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(here.with_name("forks.py")), *self._MODULES, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )

    def run(self, folder: Path, *command: str, **how: Any) -> Ended:
        """Run one command."""
        return self.run_together(Job(folder, command, **how))[0]

    def run_apart(self, jobs: list[Job]) -> list[Ended]:
        """Run commands in folders of their own, two at a time."""
        ends = []
        for i in range(0, len(jobs), LANES):
            ends += self.run_together(*jobs[i : i + LANES])
        return ends

    def run_together(self, *jobs: Job) -> list[Ended]:
        """Run commands at the same time."""
        logs = [job.folder.with_name(f"{job.folder.name}.{i}.log") for i, job in enumerate(jobs)]
        line = json.dumps([_as_json(job, log) for job, log in zip(jobs, logs, strict=True)])
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        ends = json.loads(self._process.stdout.readline())
        outputs = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
        return [Ended(*end, output) for end, output in zip(ends, outputs, strict=True)]

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


def _as_json(job: Job, log: Path) -> dict[str, Any]:
    env = {"BENCH_CACHE": str(job.folder / "cache"), **job.env}
    return {
        "command": job.command,
        "folder": str(job.folder),
        "log": str(log),
        "env": env,
        "die_at": job.die_at,
        "most": job.most,
    }


class Tally:
    """Counts the outcomes of one part of the campaign."""

    def __init__(self, part: str) -> None:
        self._counts = figures.setdefault(part, Counter())
        self._faults: list[str] = []

    def add(self, outcome: str, case: str) -> None:
        """Count an outcome, and keep the case where it is a fault."""
        assert outcome in OUTCOMES
        self._counts[outcome] += 1
        if outcome in {"different", "crashed"}:
            self._faults.append(f"{outcome}: {case}")

    def add_repeated(self, end: Ended, equal: bool, case: str) -> None:
        """Count a command that was repeated, and must have succeeded with equal results."""
        good = equal and end.code == 0
        outcome = "crashed" if end.crashed else "equal" if good else "different"
        self.add(outcome, f"{case}: {end.output[-1500:]}")

    def add_damaged(self, end: Ended, equal: bool, path: Path, case: str) -> None:
        """Count a command that met a damaged file: it has equal results, names it, or fails."""
        outcome = "crashed" if end.crashed else "equal" if equal else "different"
        if outcome == "different" and (path.name in end.output or end.code == 1):
            outcome = "reported"
        self.add(outcome, f"{case} of {path}: {end.output[-1500:]}")

    def check(self) -> None:
        """Check that there are points, and no faults."""
        assert self._counts
        assert not self._faults, "\n".join([f"{len(self._faults)} faults", *self._faults[:20]])


def sample(last: int, n: int) -> list[int]:
    """Return n of the numbers from 1 to ``last``, evenly spaced; all where there are no more."""
    if last <= n:
        return list(range(1, last + 1))
    step = last / n
    return [round(step * (i + 0.5)) or 1 for i in range(n)]


def as_table() -> list[str]:
    """Return the figures as lines of a Markdown table."""
    header = ["what happens", "points", *OUTCOMES]
    rows = [
        [part, counts.total(), *(counts[name] for name in OUTCOMES)]
        for part, counts in figures.items()
    ]
    sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    lines = [header, ["---", *["---:"] * len(sums)], *rows, ["**all**", *sums]]
    return [f"| {' | '.join(map(_as_cell, line))} |" for line in lines]


def _as_cell(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def as_page() -> str:
    """Return the figures as a page of Markdown."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    machine = f"{platform.system()}, Python {platform.python_version()}, {today}"
    return "\n".join([ABOUT, *as_table(), "", f"{machine}.", ""])
