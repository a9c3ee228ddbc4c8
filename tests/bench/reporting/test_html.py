"""The page: one file with everything, no code from results, and the origin of every number."""

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
from bench.reporting.table import Entry, Table
from bench.reporting.tables import tables
from tests.bench.reporting.made import absence, result

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--",
    "{{ 7 * 7 }}",
    "a' onmouseover='alert(1)",
    "${alert(1)}",
]


class Read(HTMLParser):
    """The name and attributes of every element."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def page_of(*results, absences=()):
    c = Comparison.of(results, absences)
    return html.page(c, *contents(c))


def drawers_of(page):
    data = '<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(data, page, re.DOTALL)[1])["drawers"]


def origin(*results):
    """The drawer of the first cell, as {heading: {what: value}}."""
    drawers = origins(Comparison.of(results), {r.spec.key for r in results})
    (_, _, numbers), *_ = drawers["cells"].values()
    return {heading: dict(pairs) for heading, pairs in (drawers["blocks"][n] for n in numbers)}


@pytest.fixture(scope="module")
def usual():
    trained = {"card": {"training_tokens": 9}}
    return page_of(
        result("good", "t1", 0.8, **trained),
        result("good", "t2", 0.6, 0.7, family="ner", **trained),
        result("quip:poor", "t1", 0.4, trained=False),
        result("quip:poor", "t2", 0.2, 0.4, family="ner", trained=False),
        result("floor", "t1", 0.1),
        absences=[absence("floor", "t2", reason="floor has no token states")],
    )


def test_the_page_loads_nothing_and_links_only_to_itself_and_to_papers(usual):
    elements = Read(usual).elements
    loaded = [
        v for _, attrs in elements for k, v in attrs.items() if k in {"src", "srcset", "action"}
    ]
    assert all(address.startswith("data:") for address in loaded)
    links = [
        (tag, attrs[k]) for tag, attrs in elements for k in ("href", "xlink:href") if k in attrs
    ]
    outside = {link for tag, link in links if not link.startswith(("#", "data:"))}
    assert outside == {"https://arxiv.org/abs/2106.08190"}
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link[1:] for _, link in links if link.startswith("#")} <= set(ids)
    assert "default-src 'none'" in usual
    assert not re.search(r"@import|url\((?!#)", usual)


def test_the_answer_comes_first_with_its_figure_and_every_figure_is_beside_a_table(usual):
    order = [attrs.get("id") for _, attrs in Read(usual).elements]
    places = {name: order.index(name) for name in order if name}
    assert places["t-summary"] < places["f-gains"] < places["text"] < places["t-families"]
    assert places["t-by-task"] < places["f-heatmap"] < places["t-ranks"]
    assert usual.count("95 % intervals: paired bootstrap") == 1  # notes once


def test_text_from_results_is_text_on_the_page():
    made = []
    for i, name in enumerate(HOSTILE):
        card = {"backbone": name, "licence": name}
        settings = {"checkpoint": name}
        more = {"settings": settings, "card": card, "commit": name}
        made.append(result(name, f"t{i % 2}", 0.5, 0.6, **more))
    made.append(result("b", HOSTILE[0], 0.5, family=HOSTILE[1]))
    page = page_of(*made, absences=[absence("b", "t0", reason=name) for name in HOSTILE])
    elements = Read(page).elements
    plain = Read(page_of(result("a", "t", 0.5, 0.6), result("b", "u", 0.5, family="f"))).elements
    assert {tag for tag, _ in elements} <= {tag for tag, _ in plain}
    assert not [attrs for _, attrs in elements if any(name.startswith("on") for name in attrs)]
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert drawers_of(page)["cells"][made[0].spec.key][0] == HOSTILE[0]
    assert "49" not in re.findall(r"<th[^>]*>([^<]*)", page)


def test_the_order_of_results_does_not_change_the_page():
    cells = [result("a", "t", 0.5, 0.6), result("b", "t", 0.4, 0.5)]
    pages = []
    for each in (cells, cells[::-1]):
        c = Comparison.of(each)
        pages.append(html.page(c, tables(c)))
    assert pages[0] == pages[1]


def test_the_origin_of_a_number():
    found = origin(
        result(
            "a", "t", 0.5, 0.7,
            command="bench run --data '/srv/my data/all' --model a",
            machine={"processor": "P", "cores": 2},
            versions={"numpy": "2.0"},
            settings={"checkpoint": "/srv/secret/model", "normalise": True, "rate": 0.05},
            data=[{"id": "org/set", "split": "test", "source": "hub", "revision": "abc123"}],
        )
    )  # fmt: skip
    assert found["Score"]["metric"] == "0.600000 ± 0.1414 over 2 repeats"
    assert found["Score"]["seconds of this cell"] == "1.0"
    assert found["Score"]["finished"] == "2030-01-02T03:04:05+00:00"
    assert found["Provenance"] == {
        "command": "bench run --data all --model a",
        "commit": "c1",
        "seed": "42",
        "machine": "P, 2 cores",
        "device": "cpu",
        "versions": "numpy 2.0",
    }
    assert found["Data"] == {"org/set/test": "hub, revision abc123"}
    assert found["Settings"] == {"checkpoint": "model", "normalise": "yes", "rate": "0.05"}
    assert found["Encoding, up to this cell"]["seconds"] == "2.0"
    assert found["Texts"]["duplicates"] == "20.0 %"


def test_the_origin_of_several_seeds_and_of_what_was_not_recorded():
    found = origin(result("a", "t", 0.4, seed=1), result("a", "t", 0.6, seed=2))
    assert found["Score with seed 1"]["metric"] == "0.400000"
    assert found["Score with seed 2"]["metric"] == "0.600000"
    bare = replace(result("a", "t", 0.5), cost={}, texts={}, card={}, provenance={})
    found = origin(bare)
    assert found["Score"] == {"metric": "0.500000", "key": bare.spec.key}
    assert found["Provenance"] == {"seed": "42"}
    assert "Texts" not in found


def test_every_key_in_a_table_has_an_origin(usual):
    keys = {attrs["data-k"] for _, attrs in Read(usual).elements if "data-k" in attrs}
    assert keys == set(drawers_of(usual)["cells"])
    assert len(keys) == 5


def test_cells_have_exact_numbers_intervals_marks_and_notes():
    row = (Entry("x"), Entry("33.3", 1 / 3, (0.25, 0.5), "warning", "overlap"))
    made = Table("t", "T", ("task", "a"), (row,), frozenset({"task"}))
    page = html.page(Comparison.of([result("a", "x", 1 / 3)]), [made])
    (attributes,) = [attrs for tag, attrs in Read(page).elements if tag == "td"]
    assert attributes == {
        "class": "n x",
        "data-v": "0.3333333333",
        "data-i": "0.25 0.5",
        "data-n": "overlap",
    }


def test_a_figure_without_data_is_a_line_with_its_reason(usual):
    assert "Scores over layers: no task was read at several layers" in usual


def test_a_table_too_large_for_a_page_is_named():
    big = Table("big", "Big", tuple("abcdef"), (tuple(Entry("1", 1.0) for _ in range(6)),) * 6000)
    page = html.page(Comparison.of([result("a", "t", 0.5)]), [big])
    assert "6,000 rows by 6 columns" in page
    assert "bench report --table big --format csv" in page
    assert len(page) < 100_000


def test_thirty_encoders_by_sixty_tasks_are_one_page_of_bearable_size():
    rng = np.random.default_rng(0)
    c = Comparison.of(
        result(f"encoder-{e:02}", f"task-{t:02}", *rng.uniform(0.2, 0.9, 3), family=f"f-{t % 8}")
        for e in range(30)
        for t in range(60)
    )
    made = tables(c)
    start = time.process_time()
    page = html.page(c, made)
    assert time.process_time() - start < 3
    assert len(page.encode()) < 1_500_000
