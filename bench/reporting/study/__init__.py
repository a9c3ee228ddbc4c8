"""A study of training budgets: methods over their trainings, at each budget, and what they cost.

Its rows are methods at a budget, not encoders: encoders that differ only in the seed of their
training are one row (``bench.reporting.trainings``). Means are over the tasks of these results.
"""

from pathlib import Path

from bench.errors import UsageError
from bench.reporting import write
from bench.reporting.study.answer import answer
from bench.reporting.study.grid import Study
from bench.reporting.study.tables import tables

__all__ = ["Study", "answer", "build", "tables"]


def build(study: Study, out: Path) -> list[Path]:
    """Write the study, and return the paths.

    Args:
        study: What to write.
        out: Folder for ``index.html``, ``study.md``, a CSV file per table, and the figures.

    Raises:
        UsageError: There is no training among the results.
        ResultError: The folder cannot be written.
    """
    from bench.reporting import figures, formats, html
    from bench.reporting.figures import study as drawn

    if not study.methods:
        raise UsageError(
            "expected results of trained encoders on every task that most have, got none: run "
            "`bench run --model trained:FOLDER,backbone-mean` on the --out of `bench train`"
        )
    write(out, {})  # fails before the work, not after it
    made, drawings = tables(study), drawn.draw(study)
    pictures = figures.pictures(made, drawings)
    title, words = "A study of training budgets", answer(study)
    methods = [*study.curves, *(m.name for m in study.beside)]
    files = {
        "index.html": html.page(
            study.c, made, drawings, title=title, answer=words, methods=methods
        ),
        "study.md": formats.results_md(made, pictures, title=title, opening=words),
    }
    files |= {f"{table.name}.csv": formats.csv(table) for table in made}
    return write(out, {**files, **figures.files(drawings)})
