"""A real Chromium without a window. What a page asks of anything but this machine is refused, and noted."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

HERE = {"127.0.0.1", "localhost", ""}  # "" is of file: and data:
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def chromium() -> str | None:
    """Return where Debian's chromium is, or another's."""
    return next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")  # no longer: while it is open, an event loop runs in this thread, and other tests start their own
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = chromium()
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        # root may not use Chromium's sandbox, and containers have a small /dev/shm
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Watched:
    """A page, the requests that it made to other machines (refused), and what its console complained of."""

    def __init__(self, browser: Any, size: str) -> None:
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, has_touch=size == "phone")
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def _route(self, route: Any) -> None:
        if (urlsplit(route.request.url).hostname or "") in HERE:
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def overflows(self) -> bool:
        """Return whether the page is wider than the window, so that a phone scrolls sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def screenshot(self, path: Path) -> Path:
        """Keep a picture of the whole page, to be looked at."""
        self.page.screenshot(path=str(path), full_page=True)
        return path


@pytest.fixture(params=list(SIZES))
def watched(browser: Any, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A new page at each of the sizes."""
    made = Watched(browser, request.param)
    yield made
    made.context.close()
