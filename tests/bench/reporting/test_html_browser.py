"""The page in a browser: it loads silently, fits any width, sorts, filters, works by keyboard."""

import os
import re
import shutil

import numpy as np
import pytest

from bench.reporting import contents, html
from bench.reporting.comparison import Comparison
from bench.result import Absence
from tests.bench.reporting.made import result, right

BROWSER = next(
    filter(
        None,
        map(
            shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        ),
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine: apt-get install chromium"
)

HOSTILE = "</script><img src=x onerror=alert(1)>"


def cells():
    rng = np.random.default_rng(0)
    long = "a-name-without-any-place-to-break-it-that-is-far-too-long-for-a-narrow-screen"
    encoders = {"good": 0.8, "fair": 0.6, "poor": 0.4, HOSTILE: 0.5, long: 0.3}
    made = []
    for label, quality in encoders.items():
        more = {
            "trained": label != "poor",
            "card": {"training_tokens": None if label == "poor" else 1000},
            "command": f"bench run --model {label!r}",
            "machine": {"processor": "A processor", "cores": 2},
        }
        counts = [int(400 * quality) + i for i in range(3)]
        made += [result(label, f"sts-{i}", examples=right(n), **more) for i, n in enumerate(counts)]
        if label != "poor":
            repeats = quality + rng.normal(0, 0.01, 5)
            made.append(result(label, "names", *repeats, family="ner", **more))
    why = "poor has no token states, which names reads"
    return Comparison.of(
        made, [Absence("poor", "ner", "names", "embedding", 42, None, "skipped", why)]
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    found = cells()
    path.write_text(html.page(found, *contents(found)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    # The sandbox of Chromium needs rights that root in a container does not have.
    with sync_playwright() as play:
        opened = play.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, address):
    """Open the page, and check that it logs nothing and requests nothing but itself."""
    pages, said, asked = [], [], []

    def _opened(width=1400, **settings):
        page = browser.new_page(viewport={"width": width, "height": 900}, **settings)
        pages.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield _opened
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def unfold(page):
    page.evaluate(
        "document.querySelectorAll('details:not(.menu)').forEach((d) => { d.open = true; })"
    )


def column(page, table, heading):
    """The contents texts of a table's column."""
    return page.evaluate(
        """([id, heading]) => {
            const heads = [...document.querySelectorAll(`#${id} thead th`)];
            const at = heads.findIndex((head) => head.textContent.trim() === heading);
            const contents = (element) => element.getClientRects().length > 0;
            const rows = [...document.querySelectorAll(`#${id} tbody tr`)].filter(contents);
            const cells = rows.map((row) => row.cells[at]).filter(contents);
            return cells.map((cell) => cell.textContent.trim());
        }""",
        [table, heading],
    )


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_it_loads_in_silence_and_fits_the_width(opened, width):
    page = opened(width)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        unfold(page)
    hanging = page.evaluate(
        """() => [...document.querySelectorAll('body *')]
            .filter((e) => !e.closest('.scroll, .hidden, .skip, dialog, #tip, fieldset'))
            .filter((e) => e.getClientRects().length)
            .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
            .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert hanging == []


def test_a_heading_sorts_down_up_and_back_with_missing_below(opened):
    page = opened()
    before = column(page, "t-families", "ner")
    head = page.locator("#t-families thead th", has_text=re.compile(r"^ner$"))
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = column(page, "t-families", "ner")
    numbers = [float(text.split()[0]) for text in down[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    assert down[-1] == "0 of 1 tasks"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "t-families", "ner") == [*reversed(down[:-1]), down[-1]]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, "t-families", "ner") == before


def test_text_family_and_encoders_filter_rows_and_columns_of_every_table(opened):
    page = opened()
    page.fill("#text", "sts-1")
    assert column(page, "t-by-task", "task") == ["sts-1"]
    page.fill("#text", "good")
    assert column(page, "t-families", "encoder") == ["good"]
    assert len(column(page, "t-by-task", "good")) == 4
    assert column(page, "t-by-task", "fair") == []
    page.fill("#text", "nothing like it")
    assert page.locator("#t-families .none").is_visible()
    page.click("#reset")
    page.select_option("#family", "ner")
    assert column(page, "t-by-task", "task") == ["names"]
    assert column(page, "t-families", "sts") == []
    page.click("#encoders > summary")
    page.click("#encoders [data-set='']")
    page.check("#encoders label:has-text('fair') input")
    page.check("#encoders label:has-text('good') input")
    assert sorted(column(page, "t-families", "encoder")) == ["fair", "good"]
    assert page.locator("#encoders > summary").inner_text().startswith("2 of 5")
    page.keyboard.press("Escape")
    assert not page.locator("#encoders fieldset").is_visible()
    page.click("#reset")
    assert len(column(page, "t-families", "encoder")) == 5
    assert len(column(page, "t-by-task", "fair")) == 4


def test_the_drawer_opens_and_closes_by_keyboard_and_gives_the_focus_back(opened):
    page = opened()
    page.locator("#t-by-task thead button").first.focus()
    for key in ("ArrowDown", "End", "Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert "95 % interval" in page.locator("#tip").inner_text()
    page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    assert drawer.is_visible()
    assert page.locator("#drawer-title").inner_text() == "good on names"
    words = drawer.inner_text()
    for expected in (
        "command",
        "bench run --model good",
        "commit",
        "c1",
        "seconds of this cell",
        "A processor",
        "device",
        "95 % interval",
        "Settings",
    ):
        assert expected in words
    page.keyboard.press("Escape")
    assert not drawer.is_visible()
    assert page.evaluate("document.activeElement.dataset.k") is not None


def test_a_table_is_one_stop_of_the_tab_key(opened):
    page = opened()
    unfold(page)
    stops = page.evaluate(
        """[...document.querySelectorAll('[role=grid]')]
            .map((table) => table.querySelectorAll('[tabindex="0"]').length)"""
    )
    assert set(stops) == {1}
    page.locator("#t-by-task tbody td").nth(8).click()
    page.keyboard.press("Escape")
    stops = page.evaluate("document.querySelectorAll('#t-by-task table [tabindex=\"0\"]').length")
    assert stops == 1


def test_numbers_tell_their_exact_value_and_missing_ones_why(opened):
    page = opened()
    page.locator("#t-by-task tbody td.b").first.hover()
    assert re.match(r"0\.\d+", page.locator("#tip").inner_text())
    page.locator("#t-by-task tbody td.m").first.hover()
    assert "poor has no token states" in page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()


def test_figures_tell_their_numbers_to_pointer_and_keyboard(opened):
    page = opened()
    mark = page.locator("#f-gains g.tip").first
    mark.hover()
    assert re.match(
        r"good minus poor, sts: [\d.]+, 95 % interval",
        page.locator("#tip").inner_text(),
    )
    mark.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != mark.get_attribute(
        "aria-label"
    )


def test_the_switch_turns_the_colours_round_and_is_remembered(opened):
    page = opened(color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    dark = page.evaluate(ground)
    assert dark != light
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.reload()
    assert page.evaluate(ground) == dark
    page.emulate_media(media="print")
    assert page.evaluate(ground) == light


def test_the_colours_follow_the_system(opened):
    grounds = [
        opened(color_scheme=s).evaluate(
            "getComputedStyle(document.documentElement).backgroundColor"
        )
        for s in ("light", "dark")
    ]
    assert grounds[0] == "rgb(255, 255, 255)" != grounds[1]


def test_on_paper_open_sections_fit_at_most_eight_pages(opened):
    page = opened(1031)  # A4 on its side, within its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1031
    assert not page.locator(".filter").is_visible()
    assert not page.locator("#t-differences").is_visible()
    figures = page.evaluate(
        "[...document.querySelectorAll('figure')].map((f) => f.getBoundingClientRect().height)"
    )
    assert max(figures) < 700  # one page
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))
    assert 2 <= len(pages) <= 8


def test_a_link_in_the_contents_unfolds_what_it_leads_to(opened):
    page = opened()
    assert not page.locator("#t-missing table").is_visible()
    page.click("header a[href='#t-missing']")
    assert page.locator("#t-missing table").is_visible()
