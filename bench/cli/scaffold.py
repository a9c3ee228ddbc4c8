"""``bench new``: a new adapter in one file, which passes ``bench check`` as written."""

import keyword
import re
from pathlib import Path
from string import Template

from bench.errors import UsageError
from bench.files import write_atomic

_ADAPTER = Template('''"""$title: what the method is, and where it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.encoder import Embeddings


@dataclass(frozen=True)
class $title:
    """$title: one line for `bench list`.

    The fields are the settings: plain values, recorded with every result. A field that changes
    speed but not vectors is ``field(compare=False)``. Load weights on the first call, not here.

    Attributes:
        dim: Length of a vector.
    """

    dim: int = 256

    version: ClassVar[int] = 1  # raise it when the same settings give different vectors
    follows_instructions: ClassVar[bool] = False  # True if the instruction can change a vector

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:  # noqa: ARG002
        """Return character counts, float32 (n, dim): an example to replace with the method."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            vector[0] = 1.0  # so that the empty text has a vector too
            np.add.at(vector, [1 + ord(letter) % (self.dim - 1) for letter in text], 1.0)
        return vectors
''')

_GROUP = '[project.entry-points."bench.encoders"]'
_DEFAULT_GROUP = '[project.entry-points."bench.encoders.default"]'


def write_adapter(name: str, root: Path) -> list[str]:
    """Write ``adapters/<name>.py`` and its entry point in a checkout, and return what to do next.

    Args:
        name: Of the method, a Python name in lower case.
        root: Folder of the checkout.

    Raises:
        UsageError: The name is not a Python name, it is taken, or the folder is not a checkout.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"a method's name has lower-case letters, digits and underscores, got {name!r}"
        )
    project, target = root / "pyproject.toml", root / "adapters" / f"{name}.py"
    text = project.read_text(encoding="utf-8") if project.exists() else ""
    if _GROUP not in text or not target.parent.is_dir():
        raise UsageError(
            f"expected a checkout with adapters/ and {_GROUP} in pyproject.toml, "
            f"got {root.resolve()}; change into one"
        )
    title = "".join(part.capitalize() for part in name.split("_"))
    public = name.replace("_", "-")
    registered = re.search(rf"^{public} =", text, re.MULTILINE)
    if target.exists() or target.with_suffix("").exists() or registered:
        raise UsageError(f"there is already a method named {name!r}; choose another name")
    write_atomic(target, _ADAPTER.substitute(title=title))
    entry = f'{public} = "adapters.{name}:{title}"'
    write_atomic(project, text.replace(_GROUP, f"{_GROUP}\n{entry}", 1))
    return [
        f"wrote {target} and its line in {project}",
        f"try it now:       bench check --model adapters.{name}:{title}",
        f"register its name: pip install --no-deps -e .   (then `--model {public}` works)",
        f"to have it in `--model all`, move its line to {_DEFAULT_GROUP} first",
    ]
