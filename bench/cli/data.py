"""``bench data``: what is needed, get it now, carry it to a machine without internet."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import console
from bench.errors import BenchError

app = typer.Typer(help="Data sets and weights: list, fetch, mirror.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="Data sets or archives; all when none is given.")]
