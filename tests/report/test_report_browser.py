"""report.html in a real browser, offline and from a file, at 5 to 100,000 servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from html import unescape
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from ddmpi.report.page import COLUMNS, render
from docs.sample_report import sample_report
from tests.whole.browser import console_messages, requested_urls, running_browser, show_as

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DESKTOP = (1280, 900)
SCREENS = (DESKTOP, (360, 800), (320, 568))
"""Width and height in pixels: a desktop, a phone, the smallest phone."""
SIZES = (5, 10_000, 100_000)
MOST_LINES = 150
"""Lines of the table of servers that are in the page at once."""
LINES = "[...document.querySelectorAll('#servers tbody tr:not(.gap)')]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("pages")
    paths = {servers: folder / f"{servers}.html" for servers in SIZES}
    for servers, path in paths.items():
        path.write_text(render(made(servers)), encoding="utf-8")
    return paths


made = cache(sample_report)


def names_of(servers: int) -> list[str]:
    return [line.name for line in made(servers).servers]


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


def shown(browser: Chrome, column: int = 0) -> list[str]:
    """A column of those lines of the table of servers that are in sight."""
    found: list[str] = browser.execute_script(
        f"const box = document.querySelector('#servers .scroll').getBoundingClientRect();"
        f"return {LINES}.filter(row => row.getBoundingClientRect().top < box.bottom - 4"
        f" && row.getBoundingClientRect().bottom > box.top + 4).map(row => row.cells[{column}].textContent)"
    )
    return found


def heads(browser: Chrome) -> list[str]:
    names: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#servers thead th')].map(head => head.textContent)"
    )
    return names


def click(browser: Chrome, column: str) -> str | None:
    """Click on a column's name; returns the order that it says then."""
    at = heads(browser).index(column)
    browser.find_elements(By.CSS_SELECTOR, "#servers thead button")[at].click()
    return browser.find_elements(By.CSS_SELECTOR, "#servers thead th")[at].get_attribute("aria-sort")


def scroll_to(browser: Chrome, part: float) -> None:
    """Scroll the table of servers, 0 = begin, 1 = end, and wait until it is drawn."""
    browser.execute_async_script(
        "const [part, done] = arguments, it = document.querySelector('#servers .scroll');"
        "it.scrollTop = part * it.scrollHeight; requestAnimationFrame(() => requestAnimationFrame(done))",
        part,
    )


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace(",", "").removesuffix(" ms") or 0) for text in texts]


def test_the_browser_tells_of_requests_and_of_errors(browser: Chrome, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<script src='http://127.0.0.1:9/x.js'></script><script>missing()</script>")
    requested_urls(browser), console_messages(browser)
    browser.get(page.as_uri())
    assert "http://127.0.0.1:9/x.js" in requested_urls(browser)
    assert any("missing is not defined" in message for message in console_messages(browser))


def test_what_a_page_holds_is_seen(browser: Chrome, page: Path) -> None:
    charts = browser.find_elements(By.CSS_SELECTOR, ".pair svg[role=img]")
    assert [chart.accessible_name.split(":")[0] for chart in charts] == [
        "Rows with an outcome", "Bytes received", "Rows per second", "Errors over time",
    ]  # fmt: skip
    for chart in charts:
        drawn = chart.find_elements(By.CSS_SELECTOR, "polygon, polyline")
        assert drawn
        assert all(it.rect["width"] > 100 and it.rect["height"] > 10 for it in drawn), chart.accessible_name
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert widths == [48] * 24
    servers = int(page.stem)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#slowest svg")) == min(servers, 20)
    assert f"Servers ({servers:,})" in browser.find_element(By.ID, "servers").text


def test_the_script_shows_what_stood_there_without_it(browser: Chrome, page: Path) -> None:
    static = re.findall(r"<tr><th scope=\"row\" title=.*?</tr>", page.read_text(encoding="utf-8"))
    cells = [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in static
    ]
    drawn = browser.execute_script(f"return {LINES}.map(row => [...row.cells].map(cell => cell.textContent))")
    assert min(len(cells), len(drawn)) == min(int(page.stem), 50)
    assert cells == drawn[: len(cells)]


def test_every_server_can_be_reached_by_scrolling(browser: Chrome, page: Path) -> None:
    servers = int(page.stem)
    rows: list[float] = []
    for part in (0.0, 0.3, 0.7, 0.9999, 1.0):
        scroll_to(browser, part)
        in_sight = shown(browser)
        height = browser.execute_script("return document.querySelector('#servers .scroll').clientHeight")
        assert len(in_sight) >= min(servers, int(height / 40)), f"blank at {part}"
        rows += numbers(shown(browser, 1))[:1]
    assert rows == sorted(rows, reverse=True)
    places = browser.execute_script(f"return {LINES}.map(row => +row.getAttribute('aria-rowindex'))")
    assert places[-1] == servers + 1, "the end is the last server; the first line is the head"
    assert len(places) <= MOST_LINES


@pytest.mark.parametrize("column", ["errors", "most errors", "429s", "median file"])
def test_all_lines_are_sorted_both_ways(browser: Chrome, page: Path, column: str) -> None:
    it = next(it for it in COLUMNS if it.name == column)
    browser.find_element(By.XPATH, f"//span[@class='views']/button[.='{it.view}']").click()
    ends = []
    for order in ("descending", "ascending"):
        assert click(browser, column) == order
        scroll_to(browser, 0.0)
        first = shown(browser, heads(browser).index(column))
        scroll_to(browser, 1.0)
        ends.append((first[0], shown(browser, heads(browser).index(column))[-1]))
        if it.form in {"count", "figure"}:
            assert numbers(first) == sorted(numbers(first), reverse=order == "descending")
    assert ends[0] == ends[1][::-1]
    assert ends[0][0] != ends[0][1]
    sorted_heads = browser.find_elements(By.CSS_SELECTOR, "#servers thead th[aria-sort]")
    assert [head.text.split(" \u25b4")[0] for head in sorted_heads] == [column], (
        "only one column says that it is sorted"
    )


def test_names_are_sorted_with_the_numbers_in_them(browser: Chrome, page: Path) -> None:
    assert click(browser, "server") == "ascending"
    hosts = [name.split(".")[0] for name in shown(browser)]
    keys = [(host.rstrip("0123456789"), int(host.removeprefix(host.rstrip("0123456789")) or 0)) for host in hosts]
    assert keys == sorted(keys)


def test_every_server_can_be_found(browser: Chrome, page: Path) -> None:
    names = names_of(int(page.stem))
    box = browser.find_element(By.CSS_SELECTOR, "#servers input")
    for name in (names[0], names[len(names) // 2], names[-1]):
        box.clear()
        box.send_keys(" " + name.upper())
        assert shown(browser) == [name]
    box.clear()
    box.send_keys("museum.")
    found = [name for name in names if "museum." in name]
    assert len(found) < len(names)
    assert f"{len(found):,} of {len(names):,}" in browser.find_element(By.CSS_SELECTOR, "#servers [role=status]").text
    click(browser, "rows")
    assert shown(browser) == found[::-1][: len(shown(browser))], "what is hidden stays hidden when the table is sorted"


def test_a_print_has_lines_from_the_beginning(browser: Chrome, page: Path) -> None:
    scroll_to(browser, 1.0)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    lines = browser.execute_script(f"return {LINES}.map(row => row.cells[0].textContent)")
    assert lines == names_of(int(page.stem))[:500]
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert shown(browser)[-1] != lines[0] or len(lines) < 50


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
for (const selector of ["h1", ".ending", "header p", "header a", ".places span", "dt", "dd", "dd small",
                        ".bars span", ".legend", "td", "td a", "tbody th", "thead th", "figcaption", ".lines small",
                        ".tools button", ".tools button[aria-pressed=true]", "input"]) {
  const it = document.querySelector(selector);
  const [one, other] = [getComputedStyle(it).color, behind(it)].map(luminance).sort((a, b) => b - a);
  contrasts[selector] = (one + .05) / (other + .05);
}
return [contrasts, luminance(getComputedStyle(document.body).backgroundColor)];
"""
"""WCAG 2.2's contrast of texts with what is behind them, by selector; and the luminance of the page."""
