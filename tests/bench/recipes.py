"""A recipe that only notes how it was called: what the tests of ``bench train`` run."""

import json
import os
import signal
from dataclasses import dataclass, field

from bench.errors import UsageError
from bench.recipe import track

NOTING = f"{__name__}:Noting"


@dataclass(frozen=True)
class Noting:
    """Writes its options into the card; the texts "wrong", "failing" and "deadly" end it."""

    text: str = "a"
    rate: float = 0.5
    device: str = field(default="auto", compare=False)
    dtype: str = field(default="auto", compare=False)

    def check(self):
        if self.text == "wrong":
            raise UsageError("expected another text than wrong")

    def train(self, out, *, budget, seed, load, progress):
        for step in range(1, 4):
            progress("noting", step, 3)
            track(progress, "noting", step, loss=1 / step)
        if self.text == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.text == "failing":
            raise UsageError("expected another text than failing")
        out.mkdir(parents=True, exist_ok=True)
        noted = [self.text, self.rate, self.device, budget, seed]
        (out / "card.json").write_text(json.dumps({"method": "noting", "noted": noted}))
        return out


def read_notes(folder):
    """Return the options of a training, and those of each in a folder of several, by name."""
    return {
        path.parent.name: json.loads(path.read_text())["noted"]
        for path in folder.rglob("card.json")
    }
