"""Provenance of a result: the command, the code, the versions and the machine."""

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

_ROOT = Path(__file__).parents[2]

DISTRIBUTION = "encoder-recipes-bench"
_PACKAGES = (
    DISTRIBUTION,
    "flash-attn",
    "mteb",
    "numpy",
    "scikit-learn",
    "sentence-transformers",
    "torch",
    "transformers",
)


def record_provenance() -> dict[str, Any]:
    """Return the time, command, commit, versions and machine, as plain JSON values."""
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **_describe_process()}


@cache
def _describe_process() -> dict[str, Any]:
    return {
        "command": shlex.join([*_program(Path(sys.argv[0])), *sys.argv[1:]]),
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


def _program(path: Path) -> list[str]:
    """Return how one calls a program: by its name, or as the module that it is."""
    is_module = path.name == "__main__.py"
    return ["python", "-m", path.parent.name] if is_module else [path.name]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the commit of this code, with ``+`` if files changed since; "" outside a checkout."""
    if not (_ROOT / ".git").exists():
        return ""
    try:
        commit = _run_git("rev-parse", "--short=12", "HEAD")
        changes = _run_git("status", "--porcelain", "-uno", "--", "bench", "adapters")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}+" if changes else commit


def _run_git(*arguments: str) -> str:
    call = ["git", *arguments]
    done = subprocess.run(  # noqa: S603 - a fixed command
        call, cwd=_ROOT, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
