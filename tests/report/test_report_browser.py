"""report.html in a real browser, offline and from a file, at 5 to 100,000 servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from ddmpi.report.data import MOST_SERVERS
from ddmpi.report.page import COLUMNS, render
from docs.sample_report import sample_report
from tests.whole.browser import console_messages, requested_urls, running_browser, show_as

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DESKTOP = (1280, 900)
SCREENS = (DESKTOP, (390, 844), (320, 568))
"""Width and height in pixels: a desktop, a phone, the smallest phone."""
SIZES = (5, 10_000, 100_000)
CELLS = "return [...document.querySelectorAll('#servers tbody tr')].filter(row => !row.hidden).map(row => "
"""An expression on ``row`` and a bracket follow."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("pages")
    paths = {servers: folder / f"{servers}.html" for servers in SIZES}
    for servers, path in paths.items():
        path.write_text(render(sample_report(servers)), encoding="utf-8")
    return paths


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: Chrome, pages: dict[int, Path]) -> Iterator[Path]:
    """A page that is shown; nobody has complained and nothing was asked for when the test is over."""
    path = pages[request.param]
    show_as(browser, *DESKTOP)
    browser.get("about:blank")
    requested_urls(browser), console_messages(browser)
    browser.get(path.as_uri())
    yield path
    urls = requested_urls(browser)
    assert [url for url in urls if not url.startswith("data:image/")] == [path.as_uri()]
    assert console_messages(browser) == []


def shown(browser: Chrome, value: str = "row.cells[0].textContent") -> list[Any]:
    """``value`` of each row of the table of servers that can be seen."""
    found: list[Any] = browser.execute_script(f"{CELLS}{value})")
    return found


def click(browser: Chrome, column: str) -> str | None:
    """Click on a column's name; gives the order that it says."""
    head = browser.find_elements(By.CSS_SELECTOR, "#servers thead th")[COLUMNS.index(column)]
    head.find_element(By.TAG_NAME, "button").click()
    return head.get_attribute("aria-sort")


def test_the_browser_tells_of_requests_and_of_errors(browser: Chrome, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<script src='http://127.0.0.1:9/x.js'></script><script>missing()</script>")
    requested_urls(browser), console_messages(browser)
    browser.get(page.as_uri())
    assert "http://127.0.0.1:9/x.js" in requested_urls(browser)
    assert any("missing is not defined" in message for message in console_messages(browser))


def test_what_a_page_holds_is_seen(browser: Chrome, page: Path) -> None:
    charts = browser.find_elements(By.CSS_SELECTOR, "svg[role=img]")
    assert [chart.accessible_name.split(":")[0] for chart in charts] == [
        "Rows fetched", "Bytes received", "Rows per second", "Errors by kind",
    ]  # fmt: skip
    for chart in charts:
        drawn = chart.find_elements(By.CSS_SELECTOR, "polygon, polyline")
        assert drawn
        assert all(it.rect["width"] > 100 and it.rect["height"] > 10 for it in drawn), chart.accessible_name
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert widths == [48] * 24
    servers = int(page.stem)
    assert len(shown(browser)) == min(servers, MOST_SERVERS)
    rest = f"{servers - MOST_SERVERS:,} more servers have"
    assert (rest in browser.find_element(By.ID, "servers").text) == (servers > MOST_SERVERS)


@pytest.mark.parametrize("column", ["429s", "size"])
def test_numbers_are_sorted_as_numbers_both_ways(browser: Chrome, page: Path, column: str) -> None:
    value = f"+row.cells[{COLUMNS.index(column)}].dataset.v"
    before = shown(browser)
    assert click(browser, column) == "descending"
    values = shown(browser, value)
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1
    assert click(browser, column) == "ascending"
    assert shown(browser, value) == sorted(values)
    assert sorted(shown(browser)) == sorted(before)
    heads = browser.find_elements(By.CSS_SELECTOR, "#servers thead th[aria-sort]")
    assert [head.text.partition(" ")[0] for head in heads] == [column], "only one column says that it is sorted"


def test_names_are_sorted_with_the_numbers_in_them(browser: Chrome, page: Path) -> None:
    assert click(browser, "server") == "ascending"
    hosts = [name for name in shown(browser) if name.startswith(("cdn", "media"))]
    keys = [(name.rstrip("0123456789"), int(name.removeprefix(name.rstrip("0123456789")) or 0))
            for name in (host.split(".")[0] for host in hosts)]  # fmt: skip
    assert keys == sorted(keys)
    ascending = shown(browser)
    assert click(browser, "server") == "descending"
    assert shown(browser) == ascending[::-1]


def test_the_filter_shows_what_has_the_text_in_its_name(browser: Chrome, page: Path) -> None:
    boxes = browser.find_elements(By.CSS_SELECTOR, "#servers input")
    names = shown(browser)
    assert len(boxes) == (len(names) > 10), "a few lines need no filter"
    for box in boxes:
        box.send_keys(" Museum.")
        found = [name for name in names if "museum." in name]
        assert 0 < len(found) < len(names)
        assert shown(browser) == found
        click(browser, "errors")
        assert set(shown(browser)) == set(found), "what is hidden stays hidden when the table is sorted"
        box.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
        assert sorted(shown(browser)) == sorted(names)


def test_no_screen_is_too_narrow(browser: Chrome, page: Path) -> None:
    for width, height in SCREENS:
        show_as(browser, width, height)
        inner, outer = browser.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert inner == outer == width
        beyond = browser.execute_script(
            "return [...document.querySelectorAll('main *')].filter(it => !it.closest('.scroll, svg') &&"
            " it.getBoundingClientRect().right > innerWidth).map(it => it.outerHTML)"
        )
        assert beyond == [], f"cut off at {width}"


def test_text_can_be_read_by_day_and_by_night(browser: Chrome, page: Path) -> None:
    lightness = []
    for dark in (False, True):
        show_as(browser, *DESKTOP, dark=dark)
        contrasts, page_lightness = browser.execute_script(CONTRASTS)
        assert min(contrasts.values()) >= 4.5, contrasts
        lightness.append(page_lightness)
    assert lightness[0] > 0.8
    assert lightness[1] < 0.05


CONTRASTS = """
const luminance = color => color.match(/[\\d.]+/g).slice(0, 3).map(it => it / 255)
  .map(it => it <= .03928 ? it / 12.92 : ((it + .055) / 1.055) ** 2.4)
  .reduce((sum, it, index) => sum + it * [.2126, .7152, .0722][index], 0);
const behind = it => {
  const color = getComputedStyle(it).backgroundColor;
  return color === "rgba(0, 0, 0, 0)" ? behind(it.parentElement) : color;
};
const contrasts = {};
for (const selector of ["h1", ".ending", "header p", "a", ".places span", "dt", "dd", "dd small", ".bars span",
                        ".legend", "td", "tbody th", "thead th", "figcaption"]) {
  const it = document.querySelector(selector);
  const [one, other] = [getComputedStyle(it).color, behind(it)].map(luminance).sort((a, b) => b - a);
  contrasts[selector] = (one + .05) / (other + .05);
}
return [contrasts, luminance(getComputedStyle(document.body).backgroundColor)];
"""
"""WCAG 2.2's contrast of texts with what is behind them, by selector; and the luminance of the page."""
