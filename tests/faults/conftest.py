"""Fixtures of the campaign of faults, and its figures at the end."""

from pathlib import Path

import pytest

from tests.faults.campaign import WHOLE, Forks, as_page, as_table, figures
from tests.faults.commands import Command, Prepared, prepare


@pytest.fixture(scope="session")
def forks():
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, forks):
    """Return a function that gives a command's folder and results; each is made once."""
    made: dict[Command, Prepared] = {}

    def get(command: Command) -> Prepared:
        if command not in made:
            made[command] = prepare(command, tmp_path_factory.mktemp("prepared"), forks)
        return made[command]

    return get


def pytest_terminal_summary(terminalreporter):
    if not figures:
        return
    terminalreporter.write_line("\n".join(as_table()))
    if WHOLE:
        Path("reports/faults.md").write_text(as_page(), encoding="utf-8")
