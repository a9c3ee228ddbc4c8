"""The page in a browser: it loads silently, fits any width, sorts, filters, works by keyboard."""

import os
import re
import shutil

import numpy as np
import pytest

from bench.reporting import contents, html
from bench.reporting.comparison import Comparison
from tests.bench.reporting.made import absence, on

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine: apt-get install chromium"
)
HOSTILE = "</script><img src=x onerror=alert(1)>"
LONG = "a-name-without-any-place-to-break-it-that-is-far-too-long-for-a-narrow-screen"
GROUND = "getComputedStyle(document.documentElement).backgroundColor"
UNFOLD = "document.querySelectorAll('details:not(.menu)').forEach((d) => { d.open = true; })"
HANGING = """() => [...document.querySelectorAll('body *')]
    .filter((e) => !e.closest('.scroll, .hidden, .skip, dialog, #tip, fieldset'))
    .filter((e) => e.getClientRects().length)
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
    .map((e) => e.outerHTML.slice(0, 80))"""
STOPS = """[...document.querySelectorAll('[role=grid]')].map(
    (table) => table.querySelectorAll('[tabindex="0"]').length)"""
HEIGHTS = "[...document.querySelectorAll('figure')].map((f) => f.getBoundingClientRect().height)"
HEADS = "getComputedStyle(document.querySelector('thead button')).display"
COLUMN = """([id, heading]) => {
    const heads = [...document.querySelectorAll(`#${id} thead th`)];
    const at = heads.findIndex((head) => head.textContent.trim() === heading);
    const visible = (element) => element.getClientRects().length > 0;
    const rows = [...document.querySelectorAll(`#${id} tbody tr`)].filter(visible);
    const cells = rows.map((row) => row.cells[at]).filter(visible);
    return cells.map((cell) => cell.textContent.trim());
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of five encoders, one of which lacks a task."""
    made, noise = [], np.random.default_rng(0)
    for label, right in {"good": 320, "fair": 240, "poor": 160, HOSTILE: 200, LONG: 120}.items():
        tokens = None if label == "poor" else 1000
        more = {
            "trained": label != "poor",
            "card": {"training_tokens": tokens},
            "command": f"bench run --model {label!r}",
            "machine": {"processor": "A processor", "cores": 2},
        }
        for i in range(3):
            made += on(f"sts-{i}", {label: right + i}, **more)
        if tokens:
            made += on(
                "names", {label: right / 400 + noise.normal(0, 0.01, 5)}, family="ner", **more
            )
    c = Comparison.of(made, [absence("poor", "names", reason="poor has no token states")])
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(html.page(c, *contents(c)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    # The sandbox of Chromium needs rights that root in a container does not have.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """The page; it may log nothing and request nothing but itself."""
    said, asked = [], []
    page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="light")
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def column(page, table, heading):
    """The visible texts of a table's column."""
    return page.evaluate(COLUMN, [table, heading])


def test_it_fits_any_width_folded_and_unfolded(page):
    for width in (400, 800, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        page.reload()
        for _ in range(2):
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.evaluate(UNFOLD)
        assert page.evaluate(HANGING) == []


def test_a_heading_sorts_down_up_and_back_with_missing_below(page):
    before = column(page, "t-families", "ner")
    head = page.locator("#t-families thead th", has_text=re.compile(r"^ner$"))
    shown = {}
    for order in ("descending", "ascending", None):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        shown[order] = column(page, "t-families", "ner")
    *numbers, missing = shown["descending"]
    values = [float(text.split()[0]) for text in numbers]
    assert values == sorted(values, reverse=True)
    assert missing == "0 of 1 tasks"
    assert shown["ascending"] == [*reversed(numbers), missing]
    assert shown[None] == before


def test_text_family_and_encoders_filter_rows_and_columns_of_every_table(page):
    page.fill("#text", "sts-1")
    assert column(page, "t-by-task", "task") == ["sts-1"]
    page.fill("#text", "good")
    assert column(page, "t-families", "encoder") == ["good"]
    shown = [len(column(page, "t-by-task", name)) for name in ("good", "fair")]
    assert shown == [4, 0]
    page.fill("#text", "nothing like it")
    assert page.locator("#t-families .none").is_visible()
    page.click("#reset")
    page.select_option("#family", "ner")
    assert column(page, "t-by-task", "task") == ["names"]
    assert column(page, "t-families", "sts") == []
    page.click("#encoders > summary")
    page.click("#encoders [data-set='']")
    for name in ("fair", "good"):
        page.check(f"#encoders label:has-text('{name}') input")
    assert sorted(column(page, "t-families", "encoder")) == ["fair", "good"]
    assert page.locator("#encoders > summary").inner_text().startswith("2 of 5")
    page.keyboard.press("Escape")
    assert not page.locator("#encoders fieldset").is_visible()
    page.click("#reset")
    assert len(column(page, "t-families", "encoder")) == 5


def test_the_drawer_opens_and_closes_by_keyboard_and_gives_the_focus_back(page):
    page.locator("#t-by-task thead button").first.focus()
    for key in ("ArrowDown", "End", "Home", *["ArrowRight"] * 4):
        page.keyboard.press(key)
    assert "95 % interval" in page.locator("#tip").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("#drawer-title").inner_text() == "good on names"
    words = page.locator("#drawer").inner_text()
    expected = ("bench run --model good", "c1", "seconds", "A processor", "Settings")
    assert all(each in words for each in expected)
    page.keyboard.press("Escape")
    assert not page.locator("#drawer").is_visible()
    assert page.evaluate("document.activeElement.dataset.k") is not None


def test_a_table_is_one_stop_of_the_tab_key(page):
    page.evaluate(UNFOLD)
    assert set(page.evaluate(STOPS)) == {1}
    page.locator("#t-by-task tbody td").nth(8).click()
    page.keyboard.press("Escape")
    assert set(page.evaluate(STOPS)) == {1}


def test_numbers_and_figures_tell_their_exact_values_and_missing_ones_why(page):
    tip = page.locator("#tip")
    page.locator("#t-by-task tbody td.b").first.hover()
    assert re.match(r"0\.\d+", tip.inner_text())
    page.locator("#t-by-task tbody td.m").first.hover()
    assert "poor has no token states" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    mark = page.locator("#f-gains g.tip").first
    mark.hover()
    assert re.match(r"good minus poor, sts: [\d.]+, 95 % interval", tip.inner_text())
    mark.focus()
    page.keyboard.press("ArrowRight")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused != mark.get_attribute("aria-label")


def test_the_colours_follow_the_system_and_the_switch_which_is_remembered(page):
    light = page.evaluate(GROUND)
    assert light == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(GROUND) != light
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    dark = page.evaluate(GROUND)
    assert dark != light
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.reload()
    assert page.evaluate(GROUND) == dark
    page.emulate_media(media="print")
    assert page.evaluate(GROUND) == light


def test_on_paper_open_sections_fit_at_most_eight_pages(page):
    page.set_viewport_size({"width": 1031, "height": 900})  # A4 on its side, within its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1031
    assert not page.locator(".filter").is_visible()
    assert not page.locator("#t-differences").is_visible()
    assert max(page.evaluate(HEIGHTS)) < 700  # one page
    assert page.evaluate(HEADS) == "contents"  # else further pages have no headings
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))
    assert 2 <= len(pages) <= 8


def test_a_link_in_the_contents_unfolds_what_it_leads_to(page):
    assert not page.locator("#t-missing table").is_visible()
    page.click("header a[href='#t-missing']")
    assert page.locator("#t-missing table").is_visible()
