"""What changed between two folders of results."""

import re

from bench.reporting.comparison import Comparison
from bench.reporting.differences import changes, differences
from tests.bench.reporting.made import on, result


def compared(before, now):
    return changes(Comparison.of(before), Comparison.of(now))


def test_new_gone_and_changed_cells_have_the_paired_difference_and_what_else_changed():
    before = on("same", {"a": 0.5}) + on("gone", {"a": 0.4}) + on("moved", {"a": 200}, commit="c1")
    now = on("same", {"a": 0.5}) + on("fresh", {"a": 0.3})
    now += on("moved", {"a": 240}, commit="c2", version=2)
    made = compared(before, now)
    shown = {row[1].text: [e.text for e in row[2:]] for row in made.rows}
    assert {task: row[:3] for task, row in shown.items()} == {
        "fresh": ["new", "—", "30.0"],
        "gone": ["gone", "40.0", "—"],
        "moved": ["changed", "50.0", "60.0"],
    }
    difference, reason = shown["moved"][3:]
    assert (difference[:7], difference[-1]) == ("+10.0 [", "*")
    assert reason == "commit c1 -> c2; protocol 1 -> 2"
    assert made.notes == ("1 of 2 cells that both have are equal.",)
    assert compared(before, before).rows == ()


def test_other_weights_and_machines_under_the_same_name_are_a_change():
    for one, two, reason in (
        ({"print_": "a" * 16}, {"print_": "b" * 16}, f"encoder {'a' * 16} -> {'b' * 16}"),
        ({"machine": {"cores": 2}}, {"machine": {"cores": 4}}, "machine 2 cores -> 4 cores"),
    ):
        made = compared([result("a", "t", 0.5, **one)], [result("a", "t", 0.6, **two)])
        assert made.rows[0][-1].text == reason


def test_an_own_file_in_another_folder_is_no_change():
    before, now = (
        [result("a", "t", score, data=[{"id": f"/home/{name}/own.csv", "sha256": "1"}])]
        for name, score in (("ann", 0.5), ("bob", 0.6))
    )
    assert compared(before, now).rows[0][-1].text == ""


def test_of_several_protocols_in_one_folder_the_newest_is_compared():
    before, now = on("t", {"a": 0.4}), []
    for v in (1, 2, 3):
        now += on("t", {"a": 0.4 + v / 10}, version=v)
    ((*_, ours, _, reason),) = compared(before, now).rows
    assert (ours.text, reason.text) == ("70.0", "protocol 1 -> 3")


def test_every_score_and_difference_has_the_decimals_asked_for():
    cells = on("t", {"a": 200, "b": 240})
    old, new = (Comparison.of(on("t", {"a": n}), digits=3) for n in (200, 240))
    (row,) = changes(old, new).rows
    before, now, gap = (entry.text for entry in row[3:6])
    (other,) = differences(Comparison.of(cells, digits=3)).rows
    assert (before, now) == ("50.000", "60.000")
    for text in (gap, other[2].text):
        assert re.fullmatch(r"\+10\.000 \[\d+\.\d{3}, \d+\.\d{3}\]\*?", text)


def test_an_encoder_is_compared_with_itself_where_a_namesake_changes_its_label():
    def cell(dim, score):
        return result("a", "t", score, print_=f"{dim}" * 16, settings={"dim": dim})

    for before, now in (
        ([cell(1, 0.5)], [cell(1, 0.6), cell(2, 0.7)]),
        ([cell(1, 0.5), cell(2, 0.7)], [cell(1, 0.6)]),
    ):
        shown = {row[0].text: [e.text for e in row[2:5]] for row in compared(before, now).rows}
        label = "a dim=1" if len(now) > 1 else "a"
        assert shown.pop(label) == ["changed", "50.0", "60.0"]
        assert list(shown) == ["a dim=2"]
