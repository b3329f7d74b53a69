"""The page on the narrow screens of phones: nothing is wider than the screen, and what can be pressed can be reached."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.api.console import FOLDER
from tests.api.console.browser import Browser, browser
from tests.api.live_server import LiveServer

PHONES = (320, 360, 390, 430)
WIDER = """
  [...document.querySelectorAll('body *')]
    .filter((one) => !one.closest('thead') && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map((one) => `${one.tagName} ${one.className}`)
"""


def rules() -> dict[str, str]:
    """What the style sheet says of each selector, outside of @media."""
    css = re.sub(r"/\*.*?\*/", "", (FOLDER / "page.css").read_text(), flags=re.DOTALL)
    return dict(re.findall(r"([^{}]+?)\s*\{([^{}]*)\}", css.partition("@media")[0].replace("\n", " ")))


def said_of(selector: str) -> str:
    return next(said for name, said in rules().items() if name.strip() == selector)


class Unseen(HTMLParser):
    """Which parts of the page are around each `.unseen`."""

    def __init__(self) -> None:
        super().__init__()
        self.around: list[list[str]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "link", "input", "br"):
            return
        self._open.append(dict(given).get("class") or "")
        if self._open[-1] == "unseen":
            self.around.append(self._open[:-1])

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()


def test_text_for_screen_readers_takes_no_space_and_stays_in_its_table() -> None:
    page = Unseen()
    page.feed((FOLDER / "index.html").read_text())

    assert page.around and all("wide" in around for around in page.around)
    assert "position: relative" in said_of(".wide") and "overflow-x: auto" in said_of(".wide")
    assert "width: 1px" in said_of(".unseen") and "overflow: hidden" in said_of(".unseen")


def test_no_column_of_the_page_must_be_wider_than_the_smallest_phone() -> None:
    css = (FOLDER / "page.css").read_text()

    assert all("100%" in least for least in re.findall(r"minmax\((min\([^)]*\)|[^,]*)", css))


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def shown(phone: Browser, server: LiveServer, width: int, *, rows: int) -> None:
    phone.open(f"http://127.0.0.1:{server.port}/", width=width)
    phone.wait_for(f"document.querySelectorAll('#versions tr').length === {rows}")


def check_fits(phone: Browser, width: int) -> None:
    assert phone.evaluate("document.documentElement.scrollWidth") == width
    assert phone.evaluate(WIDER) == []


def test_an_empty_page_is_as_wide_as_the_phone(fresh: LiveServer, phone: Browser) -> None:
    for width in PHONES:
        shown(phone, fresh, width, rows=1)

        check_fits(phone, width)


def test_a_page_with_edits_versions_and_jobs_is_as_wide_as_the_phone(fresh: LiveServer, phone: Browser) -> None:
    fresh.edit("The colour of a stone that lies in the garden of the neighbour is", "green")
    fresh.edit("x" * 30, "y" * 10)
    asked = fresh.client.post("/admin/retrain", json={"reason": "test"})
    fresh.follow(asked.headers["location"], lambda job: job["finished_at"] is not None)
    fresh.client.post("/admin/rollback", json={"to": 1, "reason": "test"})
    versions = len(fresh.client.get("/versions").json()["items"])

    for width in PHONES:
        shown(phone, fresh, width, rows=versions)
        phone.wait_for("document.querySelectorAll('#edits tr').length === 2")
        phone.wait_for("document.querySelectorAll('#jobs tr').length >= 1")

        check_fits(phone, width)
        assert phone.evaluate("document.body.scrollHeight") < 6 * 844  # no column of one letter a line
    buttons = phone.evaluate("[...document.querySelectorAll('td button')].map((one) => one.textContent)")
    assert "take back" in buttons and "roll back" in buttons


def test_a_cell_says_on_a_phone_which_column_it_is_of(fresh: LiveServer, phone: Browser, tmp_path: Path) -> None:
    shown(phone, fresh, 390, rows=1)

    said = phone.evaluate("getComputedStyle(document.querySelector('#versions td'), '::before').content")

    assert said == '"version"'
