"""``bench new``: a new adapter in one file, which passes the contract as written."""

import keyword
import re
from pathlib import Path
from string import Template

from bench.errors import UsageError
from bench.files import write_atomic

_ADAPTER = Template('''"""$title: one paragraph that says what the method is and where it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.encoder import Embeddings


@dataclass(frozen=True)
class $title:
    """$title: one line for `bench list`.

    The fields are the settings. They are plain values and are recorded with every result; a field that changes speed but
    not vectors is ``field(compare=False)``. Load weights on the first call, not here.

    Attributes:
        dim: Length of a vector.
    """

    dim: int = 256

    version: ClassVar[int] = 1  # raise it when the same settings begin to give other vectors
    follows_instructions: ClassVar[bool] = False  # True when the instruction can change a vector

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:  # noqa: ARG002
        """Return float32 (n, dim): counts of the characters, a stand-in that works until the real method is written."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row, 0] = 1.0  # so that the empty text has a vector too
            np.add.at(vectors[row], [1 + ord(character) % (self.dim - 1) for character in text], 1.0)
        return vectors
''')

_GROUP = '[project.entry-points."bench.encoders"]'
_DEFAULT_GROUP = '[project.entry-points."bench.encoders.default"]'


def write_adapter(name: str, root: Path) -> list[str]:
    """Write ``adapters/<name>.py`` and its entry point line under a checkout's root, and return what to do next.

    Raises:
        UsageError: The name is no Python name, it is taken, or the folder is no checkout.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"a method's name has lower-case letters, digits and underscores, got {name!r}"
        )
    project, target = root / "pyproject.toml", root / "adapters" / f"{name}.py"
    text = project.read_text(encoding="utf-8") if project.exists() else ""
    if _GROUP not in text or not target.parent.is_dir():
        raise UsageError(
            f"expected a checkout with adapters/ and {_GROUP} in pyproject.toml, got {root.resolve()}; change into one"
        )
    title = "".join(part.capitalize() for part in name.split("_"))
    public = name.replace("_", "-")
    if (
        target.exists()
        or target.with_suffix("").exists()
        or re.search(rf"^{public} =", text, re.MULTILINE)
    ):
        raise UsageError(f"there is a method named {name!r} already; choose another name")
    write_atomic(target, _ADAPTER.substitute(title=title))
    entry = f'{public} = "adapters.{name}:{title}"'
    write_atomic(project, text.replace(_GROUP, f"{_GROUP}\n{entry}", 1))
    return [
        f"wrote {target} and its line in {project}",
        f"try it now:       bench check --model adapters.{name}:{title}",
        f"register its name: pip install --no-deps -e .   (then `--model {public}` works)",
        f"to have it in `--model all`, move its line to {_DEFAULT_GROUP} first",
    ]
