"""What changed between two folders of results."""

import pytest

from bench.reporting import read
from bench.reporting.differences import changes
from bench.store import Store
from tests.bench.reporting.made import result, right


@pytest.fixture
def compared(tmp_path):
    def _compared(before, now):
        stores = []
        for name, results in (("before", before), ("now", now)):
            store = Store(tmp_path / name)
            for r in results:
                store[r.spec] = r
            stores.append(read(store))
        return changes(*stores)

    return _compared


def test_new_gone_and_changed_cells_are_told_with_the_paired_difference_and_what_else_changed(
    compared,
):
    before = [
        result("a", "same", 0.5),
        result("a", "gone", 0.4),
        result("a", "moved", examples=right(200), commit="c1"),
    ]
    now = [
        result("a", "same", 0.5),
        result("a", "fresh", 0.3),
        result("a", "moved", examples=right(240), commit="c2", version=2),
    ]
    made = compared(before, now)
    shown = {row[1].text: [e.text for e in row[2:]] for row in made.rows}
    assert shown["fresh"][:3] == ["new", "—", "30.0"]
    assert shown["gone"][:3] == ["gone", "40.0", "—"]
    assert shown["moved"][:3] == ["changed", "50.0", "60.0"]
    assert shown["moved"][3].startswith("+10.0 [")
    assert shown["moved"][3].endswith("*")
    assert shown["moved"][4] == "commit c1 -> c2; protocol 1 -> 2"
    assert "same" not in shown
    assert made.notes == ("1 of 2 cells that both have are equal.",)


def test_other_weights_under_the_same_name_are_a_change(compared):
    made = compared(
        [result("a", "t", 0.5, print_="a" * 16)], [result("a", "t", 0.6, print_="b" * 16)]
    )
    assert made.rows[0][-1].text == f"encoder {'a' * 16} -> {'b' * 16}"


def test_of_several_protocols_in_one_folder_the_newest_is_compared(compared):
    tasks = [f"t{i}" for i in range(6)]
    made = compared(
        [result("a", task, 0.4) for task in tasks],
        [
            result("a", task, score, version=version)
            for task in tasks
            for version, score in ((1, 0.5), (2, 0.6), (3, 0.7))
        ],
    )
    assert {(row[4].text, row[6].text) for row in made.rows} == {("70.0", "protocol 1 -> 3")}


def test_machines_are_told_in_words_and_the_correction_by_what_it_is_over(compared):
    machines = [{"processor": "P", "cores": cores} for cores in (2, 4)]
    made = compared(
        *(
            [result("a", "t", score, machine=machine)]
            for score, machine in zip((0.5, 0.6), machines, strict=True)
        )
    )
    assert made.rows[0][-1].text == "machine P, 2 cores -> P, 4 cores"
    assert "corrected over the cells that changed" in made.about


def test_equal_folders_have_no_changes(compared):
    made = compared([result("a", "t", 0.5)], [result("a", "t", 0.5)])
    assert made.rows == ()
