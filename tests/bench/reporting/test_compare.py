"""What changed between two folders of results."""

from bench.reporting.comparison import Comparison
from bench.reporting.differences import changes
from tests.bench.reporting.made import result, right


def compared(before, now):
    return changes(Comparison.of(before), Comparison.of(now))


def test_new_gone_and_changed_cells_have_the_paired_difference_and_what_else_changed():
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
    assert shown.keys() == {"fresh", "gone", "moved"}
    assert shown["fresh"][:3] == ["new", "—", "30.0"]
    assert shown["gone"][:3] == ["gone", "40.0", "—"]
    assert shown["moved"][:3] == ["changed", "50.0", "60.0"]
    assert shown["moved"][3].startswith("+10.0 [")
    assert shown["moved"][3].endswith("*")
    assert shown["moved"][4] == "commit c1 -> c2; protocol 1 -> 2"
    assert made.notes == ("1 of 2 cells that both have are equal.",)
    assert compared(before, before).rows == ()


def test_other_weights_and_machines_under_the_same_name_are_a_change():
    prints = [result("a", "t", 0.5 + i / 10, print_=p * 16) for i, p in enumerate("ab")]
    made = compared(prints[:1], prints[1:])
    assert made.rows[0][-1].text == f"encoder {'a' * 16} -> {'b' * 16}"
    machines = [{"processor": "P", "cores": cores} for cores in (2, 4)]
    cells = [result("a", "t", 0.5 + i / 10, machine=m) for i, m in enumerate(machines)]
    made = compared(cells[:1], cells[1:])
    assert made.rows[0][-1].text == "machine P, 2 cores -> P, 4 cores"
    assert "corrected over the cells that changed" in made.about


def test_of_several_protocols_in_one_folder_the_newest_is_compared():
    before, now = [], []
    for task in (f"t{i}" for i in range(6)):
        before.append(result("a", task, 0.4))
        now += [result("a", task, 0.4 + v / 10, version=v) for v in (1, 2, 3)]
    made = compared(before, now)
    assert {(row[4].text, row[6].text) for row in made.rows} == {("70.0", "protocol 1 -> 3")}
