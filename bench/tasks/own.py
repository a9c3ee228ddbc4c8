"""One's own data as a task: a folder of files with a word and its tag a line, in the layouts that ``bench.conll`` reads.

A folder holds ``test.conll``, ``train.conll`` for what is trained, and maybe ``questions.json`` with a question for each type.
Run: ``bench run --model quip --task ner:FOLDER,ner-question:FOLDER,ner-start-question:FOLDER``.
Protocol: that of the tasks of the same names; training sentences are drawn, 5 a type, five times.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.encoder import digest
from bench.errors import UsageError
from bench.task import Task
from bench.tasks.ner import NER, NERByQuestions, Tagged
from bench.tasks.tuned import StartedNER

Make = Callable[[str, Tagged, tuple[Tagged, ...], str], NER | NERByQuestions | StartedNER]

KINDS: Mapping[str, Make] = {
    "ner": lambda name, test, train, _: NER(name, test, train),
    "ner-prototype": lambda name, test, train, _: NER(name, test, train, tagger="prototype"),
    "ner-question": lambda name, test, _, questions: NERByQuestions(name, test, questions),
    "ner-start-question": lambda name, test, train, questions: StartedNER(
        name, test, train, questions=questions
    ),
    "ner-start-standard": lambda name, test, train, _: StartedNER(
        name, test, train, initial="standard"
    ),
    "ner-tuned-question": lambda name, test, train, questions: StartedNER(
        name, test, train, epochs=200, questions=questions
    ),
    "ner-tuned-standard": lambda name, test, train, _: StartedNER(
        name, test, train, initial="standard", epochs=200
    ),
}
"""What makes a task of a folder, by the word before the colon."""


def own_task(kind: str, folder: str) -> Task:
    """Return the task of a folder; its name tells the folder's and the content's, so that results of other data are other results.

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
            f"expected {' and '.join(missing)} in {place} for {kind}: a word and its tag a line, an empty line after a sentence"
        )
    questions = place / "questions.json"
    files = [place / name for name in names] + ([questions] if questions.is_file() else [])
    name = (
        f"{kind}:{place.resolve().name}-{digest([path.read_bytes().hex() for path in files])[:6]}"
    )
    train = (Tagged(str(place / "train.conll")),)
    return KINDS[kind](
        name,
        Tagged(str(place / "test.conll")),
        train,
        str(questions) if questions.is_file() else "",
    )
