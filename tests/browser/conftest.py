"""A real browser before a real gateway. Both are started once and shared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from export.console import PublishedVersion

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "model_repository"


# Not of the session: while Playwright is started, its loop runs in this thread, and no other can.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; tests are skipped where it is not installed."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=[*as_root, *camera])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def page_repository(built_resnet18: PublishedVersion, session_path: Path) -> Path:
    """The shipped digit networks, and ResNet-18 with random weights, which has heat-maps."""
    path = session_path / "page" / "model_repository"
    if not path.exists():
        shutil.copytree(SHIPPED, path)
        shutil.copytree(built_resnet18.folder, path / built_resnet18.folder.name)
    return path


class Visit:
    """A page and what it did: errors on its console, and whom it asked."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.addresses: set[str] = set()
        self._listeners: dict[Any, Callable[[Any], None]] = {
            "console": self._note_message,
            "pageerror": lambda error: self.errors.append(str(error)),
            "request": lambda request: self.addresses.add(request.url),
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)

    def _note_message(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def leave(self) -> None:
        """The page is as new for the next visit."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        if self.page.url.startswith(self.url):
            self.page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
        self.page.goto("about:blank")

    def show(self, view: str) -> Page:
        is_loaded = self.page.url.startswith(self.url)
        self.page.goto(f"{self.url}/#/{view}")
        if is_loaded:  # what follows # loads nothing
            self.page.reload()
        self.page.locator("h1").wait_for()
        return self.page

    def check(self) -> None:
        assert self.errors == []
        own = (self.url, "blob:", "data:")
        assert [it for it in self.addresses if not it.startswith(own)] == []


Visits = Callable[..., Visit]


@pytest.fixture(scope="module")
def shared_page(browser: Browser) -> Page:
    """A page of a new context takes three times as long to load."""
    return browser.new_context(locale="en-US").new_page()


@pytest.fixture
def visit(browser: Browser, shared_page: Page) -> Iterator[Visits]:
    """Opens a page, of a context of its own with options such as `viewport` and `permissions`, or
    for a second visitor.
    """
    contexts: list[BrowserContext] = []
    sharing: list[Visit] = []

    def begin(url: str, **options: Any) -> Visit:
        if not options and not sharing:
            sharing.append(Visit(shared_page, url))
            return sharing[0]
        contexts.append(browser.new_context(**{"locale": "en-US", **options}))
        return Visit(contexts[-1].new_page(), url)

    yield begin
    for context in contexts:
        context.close()
    for visitor in sharing:
        visitor.leave()
