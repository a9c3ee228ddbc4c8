"""The page: one file with everything, no code from results, and the origin of every number."""

import json
import re
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
    loaded, links, ids = [], [], []
    for _, attrs in Read(usual).elements:
        loaded += [attrs[k] for k in ("src", "srcset", "action") if k in attrs]
        links += [attrs[k] for k in ("href", "xlink:href") if k in attrs]
        ids += [attrs["id"]] if "id" in attrs else []
    assert all(address.startswith("data:") for address in loaded)
    outside = {link for link in links if not link.startswith(("#", "data:"))}
    assert outside == {"https://arxiv.org/abs/2106.08190"}
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "default-src 'none'" in usual
    assert not re.search(r"@import|url\((?!#)", usual)


def test_the_answer_comes_first_every_figure_is_beside_a_table_and_every_key_has_an_origin(usual):
    elements = Read(usual).elements
    order = [attrs.get("id") for _, attrs in elements]
    shown = ("t-summary", "f-gains", "text", "t-families", "t-by-task", "f-heatmap", "t-ranks")
    places = [order.index(name) for name in shown]
    assert places == sorted(places)
    assert usual.count("95 % intervals: paired bootstrap") == 1  # notes once
    assert "Scores over layers: no task was read at several layers" in usual
    keys = {attrs["data-k"] for _, attrs in elements if "data-k" in attrs}
    assert keys == set(drawers_of(usual)["cells"])
    assert len(keys) == 5


def test_text_from_results_is_text_on_the_page(usual):
    made = []
    for i, name in enumerate(HOSTILE):
        about = {"settings": {"checkpoint": name}, "card": {"backbone": name, "licence": name}}
        made.append(result(name, f"t{i % 2}", 0.5, 0.6, commit=name, **about))
    made.append(result("b", HOSTILE[0], 0.5, family=HOSTILE[1]))
    page = page_of(*made, absences=[absence("b", "t0", reason=name) for name in HOSTILE])
    elements = Read(page).elements
    assert {tag for tag, _ in elements} <= {tag for tag, _ in Read(usual).elements}
    assert not [attrs for _, attrs in elements if any(name.startswith("on") for name in attrs)]
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert drawers_of(page)["cells"][made[0].spec.key][0] == HOSTILE[0]
    assert "49" not in re.findall(r"<th[^>]*>([^<]*)", page)


def test_the_order_of_results_does_not_change_the_page():
    cells = [result("a", "t", 0.5, 0.6), result("b", "t", 0.4, 0.5)]
    compared = [Comparison.of(each) for each in (cells, cells[::-1])]
    first, second = (html.page(c, tables(c)) for c in compared)
    assert first == second


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


def test_cells_have_exact_numbers_and_a_table_too_large_for_a_page_is_named():
    row = (Entry("x"), Entry("33.3", 1 / 3, (0.25, 0.5), "warning", "overlap"))
    small = Table("t", "T", ("task", "a"), (row,), frozenset({"task"}))
    six = tuple(Entry("1", 1.0) for _ in range(6))
    big = Table("big", "Big", tuple("abcdef"), (six,) * 6000)
    page = html.page(Comparison.of([result("a", "x", 1 / 3)]), [small, big])
    (attributes,) = [attrs for tag, attrs in Read(page).elements if tag == "td"]
    expected = {"class": "n x", "data-v": "0.3333333333", "data-i": "0.25 0.5", "data-n": "overlap"}
    assert attributes == expected
    assert "6,000 rows by 6 columns" in page
    assert "bench report --table big --format csv" in page
    assert len(page) < 100_000


def test_thirty_encoders_by_sixty_tasks_are_one_page_of_bearable_size():
    rng, made = np.random.default_rng(0), []
    for cell in range(30 * 60):
        e, t = divmod(cell, 60)
        repeats, family = rng.uniform(0.2, 0.9, 3), f"f-{t % 8}"
        made.append(result(f"encoder-{e:02}", f"task-{t:02}", *repeats, family=family))
    c = Comparison.of(made)
    assert len(html.page(c, tables(c)).encode()) < 1_500_000
