"""Every format prints the same table."""

import csv
import io
import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # which rich brings

from bench.errors import UsageError
from bench.files import escape_formula
from bench.reporting import formats
from bench.reporting.comparison import Comparison
from bench.reporting.table import Entry, Table
from bench.reporting.tables import tables
from tests.bench.reporting.made import on

TIE = Entry("78.0 ± 1.0", 0.78, (0.7, 0.8), "tie")
SEEN = Entry("90.0", 0.9, None, "warning", "seen in training")
ROWS = (
    (Entry("a"), Entry("80.0", 0.8, (0.75, 0.85), "best"), TIE, Entry("—", mark="missing")),
    (Entry("b & c"), Entry("30.0", 0.3), Entry("20.0", 0.2), SEEN),
)
ABOUT = {"words": frozenset({"task"}), "about": "Of 100 %.", "notes": ("Something is mixed.",)}
TABLE = Table("scores", "Scores", ("task", "one", "two", "three"), ROWS, **ABOUT)


def test_markdown_marks_the_best_ties_and_warnings_and_says_what_they_are():
    text = formats.markdown(TABLE)
    lines = [line for line in text.splitlines() if line.startswith("|") and "--" not in line]
    assert [re.split(r" *\| *", line)[1:-1] for line in lines] == [
        ["task", "one", "two", "three"],
        ["a", "**80.0**", "78.0 ± 1.0†", "—"],
        ["b & c", "30.0", "20.0", "90.0‡"],
    ]
    assert text.startswith("## Scores\n\nOf 100 %.\n")
    for note in ("Something is mixed.", "†: not significantly different", "‡ 90.0: seen in"):
        assert f"- {note}" in text


def test_latex_is_booktabs_with_everything_escaped_and_the_notes_in_the_caption():
    text = formats.latex(TABLE)
    for expected in (
        *(r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrr}", "booktabs"),
        r"\label{tab:scores}",
        r"a & \textbf{80.0} & 78.0 $\pm$ 1.0$^\dagger$ & --- \\",
        r"b \& c & 30.0 & 20.0 & 90.0$^\ddagger$ \\",
        r"Of 100 \%. Something is mixed.",
    ):
        assert expected in text
    own = formats.latex(TABLE, caption="Mine & yours", label="tab:own")
    assert r"\caption[Scores]{Mine \& yours}" in own
    assert r"\label{tab:own}" in own


@pytest.mark.parametrize("odd", ["a\\b", "50 %", "a_b", "#1", "{x}", "x^2", "~", "$5", "<a>"])
def test_latex_escapes_commands(odd):
    text = formats.latex(Table("t", "T", ("a",), ((Entry(odd),),)))
    line = next(line for line in text.splitlines() if line.endswith(r" \\") and "a \\" not in line)
    plain = line.replace("{}", "").replace(r"\^", "")
    assert re.search(r"(?<!\\)[%#_]|(?<!\\)\$5|[<>~]", plain) is None


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: apt-get install texlive")
@pytest.mark.parametrize("encoders", [2, 8])
def test_latex_of_twelve_tasks_fits_a_column(tmp_path, encoders):
    cells = []
    for t in range(12):
        scores = {f"an-encoder-{e}": (0.5 + e / 100, 0.6, 0.7 + t / 100) for e in range(encoders)}
        cells += on(f"a-task-of-mteb-{t}", scores, limit=250)
    made = {table.name: table for table in tables(Comparison.of(cells))}
    shown = [formats.latex(formats.for_paper(made[name])) for name in ("by-task", "families")]
    start = r"\documentclass[10pt]{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text("".join([start, *shown, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Output written on t.pdf" in done.stdout


def test_columns_are_selected_by_name():
    assert TABLE.select(["two", "task"]).rows[1][0].text == "20.0"
    with pytest.raises(UsageError, match="three"):
        TABLE.select(["tree"])


def test_json_gives_every_entry_back():
    (back,) = json.loads(formats.text([TABLE], "json"))
    rows = [
        tuple(Entry(**{**e, "interval": tuple(e.get("interval") or ()) or None}) for e in row)
        for row in back.pop("rows")
    ]
    words, notes, columns = (back.pop(name) for name in ("words", "notes", "columns"))
    more = {"words": frozenset(words), "notes": tuple(notes), "columns": tuple(columns)}
    assert Table(**back, **more, rows=tuple(rows)) == TABLE


HOSTILE = ("=1+1", "@SUM(1)", "-2+3", "+x", "\t=1", "-0.5", "<img src=x onerror=alert(1)>")


def test_no_name_is_a_formula_in_csv_or_markup_in_markdown_and_numbers_stay_numbers():
    names = ("![x](http://a.b/c)", "a|b", *HOSTILE)
    rows = (tuple(map(Entry, names)), (Entry("-50.0", -0.5),) * 9)
    table = Table(names[0], names[0], names, rows, notes=names)
    for row in csv.reader(io.StringIO(formats.csv(table))):
        assert not [cell for cell in row if cell[0] in "=+-@\t" and cell != "-0.5"]
        assert "-0.5" in row
    text = formats.markdown(table)
    assert text.count("a\\|b") >= 2
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = {token.type for block in blocks for token in block.children or ()}
    assert inline == {"text"}
    assert "html_block" not in {block.type for block in blocks}


def test_a_table_without_rows_is_its_notes():
    empty = Table("t", "T", ("a",), (), notes=("Nothing matches.",))
    assert formats.markdown(empty) == "## T\n\n- Nothing matches.\n"
    assert all(formats.text([empty], form) for form in ("csv", "tex", "json"))


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_any_word_survives_csv_and_json(text):
    row = (Entry(text), Entry("1", 1.0))
    made = Table("t", "T", ("word", "n"), (row,), words=frozenset({"word"}))
    assert next(csv.DictReader(io.StringIO(formats.csv(made))))["word"] == escape_formula(text)
    assert json.loads(formats.text([made], "json"))[0]["rows"][0][0]["text"] == text


def test_csv_keeps_every_column_where_one_is_called_like_another_one_s_interval():
    columns = ("task", "small", "small low", "task")
    row = (
        Entry("t"),
        Entry("50.0", 0.5, (0.4, 0.6), "tie"),
        Entry("30.0", 0.3),
        Entry("20.0", 0.2),
    )
    (heads, cells) = csv.reader(io.StringIO(formats.csv(Table("t", "T", columns, (row,)))))
    own = [f"small (interval) {part}" for part in ("low", "high", "mark")]
    assert heads == ["task", "small", *own, "small low", "task"]
    assert cells == ["t", "0.5", "0.4", "0.6", "tie", "0.3", "0.2"]


def test_a_carriage_return_in_a_cell_begins_no_row_of_csv():
    text = formats.csv(Table("t", "T", ("a\rb", "n"), ((Entry("c\rd"), Entry("50.0", 0.5)),)))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a\rb", "n"], ["c\rd", "0.5"]]


def test_an_encoder_called_like_a_column_has_its_scores_in_a_table_for_a_paper():
    made = {
        table.name: table
        for table in tables(Comparison.of(on("t", {"task": 0.5, "backbone": 0.25})))
    }
    text = formats.latex(formats.for_paper(made["by-task"]))
    line = next(line for line in text.splitlines() if line.startswith("t &"))
    assert re.findall(r"\d+\.\d", line) == ["50.0", "25.0"]
