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
from tests.bench.reporting.made import absence, on, result

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

    def values(self, *names):
        """The values of some attributes, in order."""
        return [attrs[name] for _, attrs in self.elements for name in names if name in attrs]


def page_of(*results, absences=()):
    c = Comparison.of(results, absences)
    return html.page(c, *contents(c))


def cells_of(page):
    data = '<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(data, page, re.DOTALL)[1])["drawers"]["cells"]


def origin(*results):
    """The drawer of the first cell, as {heading: {what: value}}."""
    drawers = origins(Comparison.of(results), {r.spec.key for r in results})
    (_, _, numbers), *_ = drawers["cells"].values()
    return {heading: dict(pairs) for heading, pairs in (drawers["blocks"][n] for n in numbers)}


@pytest.fixture(scope="module")
def usual():
    made = on("t1", {"good": 0.8}, card={"training_tokens": 9}) + on("t1", {"floor": 0.1})
    made += on("t2", {"good": (0.6, 0.7)}, family="ner", card={"training_tokens": 9})
    made += on("t1", {"quip:poor": 0.4}, trained=False)
    made += on("t2", {"quip:poor": (0.2, 0.4)}, family="ner", trained=False)
    return page_of(*made, absences=[absence("floor", "t2", reason="no token states")])


def test_the_page_loads_nothing_and_links_only_to_itself_and_to_papers(usual):
    page = Read(usual)
    loaded, links, ids = (
        page.values(*names)
        for names in (("src", "srcset", "action"), ("href", "xlink:href"), ["id"])
    )
    assert all(address.startswith("data:") for address in loaded)
    outside = {link for link in links if not link.startswith(("#", "data:"))}
    assert outside == {"https://arxiv.org/abs/2106.08190"}
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "default-src 'none'" in usual
    assert not re.search(r"@import|url\((?!#)", usual)


def test_the_answer_comes_first_every_figure_is_beside_a_table_and_every_key_has_an_origin(usual):
    page = Read(usual)
    shown = ("t-summary", "f-gains", "text", "t-families", "t-by-task", "f-heatmap", "t-ranks")
    assert sorted(shown, key=page.values("id").index) == [*shown]
    assert usual.count("95 % intervals: paired bootstrap") == 1  # notes once
    assert "Scores over layers: no task was read at several layers" in usual
    keys = {*page.values("data-k")}
    assert keys == cells_of(usual).keys()
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
    assert cells_of(page)[made[0].spec.key][0] == HOSTILE[0]
    assert "49" not in re.findall(r"<th[^>]*>([^<]*)", page)


def test_the_order_of_results_does_not_change_the_page():
    cells = on("t", {"a": (0.5, 0.6), "b": (0.4, 0.5)})
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
    score = {"metric": "0.600000 ± 0.1414 over 2 repeats", "seconds of this cell": "1.0"}
    assert found["Score"].items() >= {**score, "finished": "2030-01-02T03:04:05+00:00"}.items()
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
    found = origin(*(result("a", "t", seed / 5, seed=seed) for seed in (1, 2)))
    scores = [found[f"Score with seed {seed}"]["metric"] for seed in (1, 2)]
    assert scores == ["0.200000", "0.400000"]
    bare = replace(result("a", "t", 0.5), cost={}, texts={}, card={}, provenance={})
    found = origin(bare)
    assert found["Score"] == {"metric": "0.500000", "key": bare.spec.key}
    assert found["Provenance"] == {"seed": "42"}
    assert "Texts" not in found


def test_cells_have_exact_numbers_and_a_table_too_large_for_a_page_is_named():
    row = (Entry("x"), Entry("33.3", 1 / 3, (0.25, 0.5), "warning", "overlap"))
    small = Table("t", "T", ("task", "a"), (row,), frozenset({"task"}))
    big = Table("big", "Big", tuple("abcdef"), ((Entry("1", 1.0),) * 6,) * 6000)
    page = html.page(Comparison.of([result("a", "x", 1 / 3)]), [small, big])
    read = Read(page)
    assert read.values("data-v", "data-i", "data-n") == ["0.3333333333", "0.25 0.5", "overlap"]
    assert "6,000 rows by 6 columns" in page
    assert "bench report --table big --format csv" in page
    assert len(page) < 100_000


def test_thirty_encoders_by_sixty_tasks_are_one_page_of_bearable_size():
    rng, encoders, made = np.random.default_rng(0), [f"encoder-{e:02}" for e in range(30)], []
    for t in range(60):
        scores = {encoder: rng.uniform(0.2, 0.9, 3) for encoder in encoders}
        made += on(f"task-{t:02}", scores, family=f"f-{t % 8}")
    c = Comparison.of(made)
    assert len(html.page(c, tables(c)).encode()) < 1_500_000
