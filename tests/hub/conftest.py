"""A hub on loopback, and commands that ask it."""

import shutil
from pathlib import Path

import pytest

from tests.faults.campaign import Ended, Forks
from tests.hub.server import hub

TASKS = str(Path(__file__).parent)


@pytest.fixture(scope="session")
def server():
    with hub() as state:
        yield state


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The folder of the hub's caches."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def emptied(home):
    """The caches are empty for as long as the test lasts."""
    aside = home.with_name("aside")
    home.rename(aside)
    yield
    shutil.rmtree(home, ignore_errors=True)
    aside.rename(home)


@pytest.fixture(scope="session")
def bench(server, home, tmp_path_factory):
    """Runs commands in a new folder, or in ``folder`` for a second command on the same results."""
    environment = {
        "HF_ENDPOINT": server.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    forks = Forks("datasets", "mteb", "transformers.models.llama.modeling_llama", **environment)

    def run(*command: str, folder: Path | None = None, **env: str) -> Ended:
        folder = folder or tmp_path_factory.mktemp("work")
        folder.mkdir(exist_ok=True)
        shutil.copy(Path(TASKS, "tasks.py"), folder)
        return forks.run(folder, *command, env=env)

    yield run
    forks.close()
