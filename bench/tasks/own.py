"""A user's own entities as a task: a folder of files that ``bench.conll`` reads.

A folder holds ``test.conll``, ``train.conll`` for what is trained, and maybe ``questions.json``
with a question for each type.
Run: ``bench run --model quip --task ner:FOLDER,ner-question:FOLDER,ner-start-question:FOLDER``.
Protocol: that of the tasks of the same names; training sentences are drawn, 5 a type, five times.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.encoder import digest
from bench.errors import UsageError
from bench.task import Task
from bench.tasks.ner import NER, NERByQuestions, Tagged
from bench.tasks.tuned import StartedNER

KINDS: Mapping[str, tuple[type[Task], dict[str, Any]]] = {
    "ner": (NER, {}),
    "ner-prototype": (NER, {"tagger": "prototype"}),
    "ner-question": (NERByQuestions, {}),
    "ner-start-question": (StartedNER, {}),
    "ner-start-standard": (StartedNER, {"initial": "standard"}),
    "ner-tuned-question": (StartedNER, {"epochs": 200}),
    "ner-tuned-standard": (StartedNER, {"initial": "standard", "epochs": 200}),
}
"""The class and the settings of a task on a folder, by the word before the colon."""


def own_task(kind: str, folder: str) -> Task:
    """Return the task of a folder; its name has a hash of the content.

    Args:
        kind: One of ``KINDS``.
        folder: Holds the files.

    Raises:
        UsageError: A file is missing.
    """
    place = Path(folder).expanduser()
    names = ["test.conll", *([] if kind == "ner-question" else ["train.conll"])]
    if missing := [name for name in names if not (place / name).is_file()]:
        raise UsageError(
            f"expected {' and '.join(missing)} in {place} for {kind}: a word and its tag a line, "
            "an empty line after a sentence"
        )
    questions = place / "questions.json"
    files = [place / name for name in names] + ([questions] if questions.is_file() else [])
    name = (
        f"{kind}:{place.resolve().name}-{digest([path.read_bytes().hex() for path in files])[:6]}"
    )
    make, settings = KINDS[kind]
    given = {field.name for field in fields(make)}
    sources: dict[str, Any] = {
        "test": Tagged(str(place / "test.conll")),
        "train": (Tagged(str(place / "train.conll")),),
        "questions": str(questions) if questions.is_file() else "",
    }
    taken = {field: value for field, value in sources.items() if field in given}
    return make(name, **taken, **settings)
