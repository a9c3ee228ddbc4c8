"""Where a number comes from: the command, the code, the versions and the machine."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

DISTRIBUTION = "encoder-recipes-bench"
_PACKAGES = (
    DISTRIBUTION,
    "mteb",
    "numpy",
    "scikit-learn",
    "sentence-transformers",
    "torch",
    "transformers",
)


def record_provenance() -> dict[str, Any]:
    """Return the time, command, commit, versions and machine, as plain JSON values; the command is as it was typed."""
    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), **_of_process()}


@cache
def _of_process() -> dict[str, Any]:
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: v for name in _PACKAGES if (v := _version(name))},
        },
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
            "memory_gb": round(psutil.virtual_memory().total / 2**30),
        },
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the commit of the checkout this code lies in, with ``+`` when it was changed since; "" without one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    calls = (
        ["rev-parse", "--short=12", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no", "--", "bench", "adapters"],
    )
    try:
        answers = [
            subprocess.run(  # noqa: S603
                ["git", *call],  # noqa: S607
                cwd=root,
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            for call in calls
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    commit, changes = (answer.stdout.strip() for answer in answers)
    return commit + ("+" if changes else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
