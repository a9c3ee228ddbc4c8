"""The page: one file that holds everything, lets nothing from the results in as code, and tells where numbers come from."""

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from bench.reporting import contents, html
from bench.reporting.comparison import Comparison
from bench.reporting.html.origin import origins
from bench.reporting.html.summary import summary
from bench.reporting.table import Entry, Table
from bench.reporting.tables import tables
from bench.result import Absence
from tests.bench.reporting.made import result

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--",
    "{{ 7 * 7 }}",
    "a' onmouseover='alert(1)",
    "${alert(1)}",
]


class Read(HTMLParser):
    """Every element's name and attributes, and the text of scripts."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)


def page_of(*results, absences=()):
    cells = Comparison.of(results, absences)
    return html.page(cells, *contents(cells))


def data_of(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


def told(drawn, key):
    """What a cell's drawer says, as {heading: {what: value}}."""
    found = {}
    for block in drawn["cells"][key][2]:
        shape, *values = drawn["blocks"][block] if isinstance(block, int) else block
        heading, *whats = drawn["shapes"][shape]
        found[heading] = dict(zip(whats, values, strict=True))
    return found


@pytest.fixture(scope="module")
def usual():
    return page_of(
        result("good", "t1", 0.8, time="2030-01-02T03:04:05+00:00"), result("good", "t2", 0.6, 0.7, family="ner"),
        result("poor", "t1", 0.4, trained=False), result("poor", "t2", 0.2, 0.4, family="ner", trained=False), result("floor", "t1", 0.1),
        absences=[Absence("floor", "ner", "t2", "embedding", 42, None, "skipped", "floor is no TokenEncoder, which t2 reads")],
    )  # fmt: skip


def test_the_page_names_nothing_outside_itself(usual):
    addresses = [
        v
        for _, attrs in Read(usual).elements
        for name, v in attrs.items()
        if name in {"src", "href", "xlink:href", "action", "srcset"}
    ]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "default-src 'none'" in usual
    assert not re.search(r"@import|url\((?!#)", usual)


def test_every_id_is_there_once_and_every_link_leads_somewhere(usual):
    elements = Read(usual).elements
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {
        attrs[name][1:]
        for _, attrs in elements
        for name in ("href", "xlink:href")
        if attrs.get(name, "").startswith("#")
    }
    assert links <= set(ids)


@pytest.mark.parametrize("name", HOSTILE)
def test_text_from_results_is_text_on_the_page(name):
    made = result(
        name,
        "t",
        0.5,
        0.6,
        settings={"checkpoint": name},
        card={"backbone": name, "licence": name},
        command="bench run",
        commit=name,
    )
    page = page_of(
        made,
        result("b", name, 0.5, family=name),
        absences=[Absence("b", "f", "t", "embedding", 42, None, "failed", name)],
    )
    read = Read(page)
    allowed = Read(page_of(result("a", "t", 0.5, 0.6), result("b", "u", 0.5, family="f")))
    assert {tag for tag, _ in read.elements} <= {tag for tag, _ in allowed.elements}
    assert not [
        attrs
        for _, attrs in read.elements
        if any(attribute.startswith("on") for attribute in attrs)
    ]
    assert sum(tag == "script" for tag, _ in read.elements) == 2
    assert data_of(page)["drawers"]["cells"][made.spec.key][0] == name
    assert "49" not in re.findall(r"<th[^>]*>([^<]*)", page)


def test_the_same_results_give_the_same_page(usual):
    again = [result("a", "t", 0.5, 0.6), result("b", "t", 0.4, 0.5)]
    assert page_of(*again) == page_of(*reversed(again))


def test_the_summary_counts_names_the_best_and_says_why_cells_are_missing():
    cells = Comparison.of(
        [
            result("good", "t1", 0.8),
            result("poor", "t1", 0.4),
            result("good", "t2", 0.7, family="ner"),
            result("floor", "t1", 0.1),
        ],
        [
            Absence(
                e,
                "ner",
                "t2",
                "embedding",
                42,
                None,
                "skipped",
                f"{e} is no TokenEncoder, which t2 reads",
            )
            for e in ("floor", "poor")
        ],
    )
    found = summary(cells, tables(cells))
    counts = [found[name] for name in ("encoders", "tasks", "families", "have", "whole")]
    assert counts == [3, 2, 2, 4, 6]
    assert {leader.family: leader.encoders for leader in found["leaders"]}["sts"] == ("good",)
    assert found["missing"] == [
        ("skipped: the encoder is no TokenEncoder, which the task reads", 2, ["t2: poor, floor"]),
    ]
    assert found["days"] == "2030-01-02"


def test_a_drawer_tells_where_a_number_comes_from():
    made = result(
        "a", "t", 0.5, 0.7, command="bench run --data '/srv/my data/all' --model a", machine={"processor": "P", "cores": 2},
        versions={"numpy": "2.0"}, settings={"checkpoint": "/srv/secret/model", "normalise": True},
        data=[{"id": "org/set", "config": "", "split": "test", "source": "hub", "revision": "abc123"}],
    )  # fmt: skip
    found = told(origins(Comparison.of([made]), {made.spec.key}), made.spec.key)
    assert found["Score"]["metric"] == "0.600000 ± 0.1414 over 2 repeats"
    assert found["Score"]["seconds of this cell"] == "1.0"
    assert found["Score"]["finished"] == "2030-01-02T03:04:05+00:00"
    made_how = {
        "command": "bench run --data all --model a",
        "commit": "c1",
        "seed": "42",
        "machine": "P, 2 cores",
        "device": "cpu",
        "versions": "numpy 2.0",
    }
    assert found["How it was made"] == made_how
    assert found["Data"] == {"org/set/test": "hub, revision abc123"}
    assert found["Settings"] == {"checkpoint": "model", "normalise": "yes"}


def test_a_drawer_says_that_costs_add_up_to_its_cell():
    made = result("a", "t", 0.5)
    assert (
        told(origins(Comparison.of([made]), {made.spec.key}), made.spec.key)[
            "Encoding, up to this cell"
        ]["seconds"]
        == "2.0"
    )


def test_a_drawer_tells_of_every_seed():
    made = [result("a", "t", 0.4, seed=1), result("a", "t", 0.6, seed=2)]
    (key,) = {r.spec.key for r in made} & set(
        origins(Comparison.of(made), {r.spec.key for r in made})["cells"]
    )
    found = told(origins(Comparison.of(made), {key}), key)
    assert (found["Score with seed 1"]["metric"], found["Score with seed 2"]["metric"]) == (
        "0.400000",
        "0.600000",
    )


def test_what_was_not_recorded_is_left_out_of_a_drawer():
    made = replace(result("a", "t", 0.5), cost={}, texts={}, card={}, provenance={})
    found = told(origins(Comparison.of([made]), {made.spec.key}), made.spec.key)
    assert found["Score"] == {"metric": "0.500000", "key": made.spec.key}
    assert found["How it was made"] == {"seed": "42"}


def test_every_key_in_a_table_has_a_drawer(usual):
    keys = {attrs["data-k"] for _, attrs in Read(usual).elements if "data-k" in attrs}
    assert keys == set(data_of(usual)["drawers"]["cells"])
    assert len(keys) == 5


def test_entries_carry_exact_numbers_intervals_marks_and_notes():
    made = Table(
        "t",
        "T",
        ("task", "a"),
        ((Entry("x"), Entry("33.3", 1 / 3, (0.25, 0.5), "warning", "overlap")),),
        frozenset({"task"}),
    )
    cells = Comparison.of([result("a", "x", 1 / 3)])
    (attributes,) = [attrs for tag, attrs in Read(html.page(cells, [made])).elements if tag == "td"]
    assert attributes == {
        "class": "n x",
        "data-v": "0.3333333333",
        "data-i": "0.25 0.5",
        "data-n": "overlap",
    }


def test_a_figure_without_data_is_a_line_with_its_reason(usual):
    assert "Scores over layers: no task was read at more than one layer" in usual


def test_a_table_too_large_for_a_page_is_named():
    big = Table("big", "Big", tuple("abcdef"), (tuple(Entry("1", 1.0) for _ in range(6)),) * 6000)
    page = html.page(Comparison.of([result("a", "t", 0.5)]), [big])
    assert "6,000 rows by 6 columns" in page
    assert "bench report --table big --format csv" in page
    assert len(page) < 100_000


def test_fifty_encoders_by_a_hundred_tasks_are_one_page_of_bearable_size():
    rng = np.random.default_rng(0)
    grid = [
        (f"encoder-{e:02}", f"task-{t:02}", f"family-{t % 8}")
        for e in range(50)
        for t in range(100)
    ]
    cells = Comparison.of([result(e, t, *rng.uniform(0.2, 0.9, 3), family=f) for e, t, f in grid])
    made = tables(cells)
    start = time.process_time()
    page = html.page(cells, made)
    assert time.process_time() - start < 5
    assert len(page.encode()) < 3_000_000
