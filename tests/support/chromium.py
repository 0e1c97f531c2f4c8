"""A real Chromium, without a screen, driven by Playwright; everything but the loopback is cut off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Route, expect, sync_playwright

from tests.support.needs import lacks

# WebGL in software, as a machine without a graphics card needs it; nothing that phones home.
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 60_000
"""Milliseconds that a page has for anything a test waits for: other tests share the machine."""
expect.set_options(timeout=PATIENCE)


@dataclass(slots=True)
class Tab:
    """A page, and what went wrong on it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    """Errors of scripts and in the console, and failed requests to the loopback."""
    elsewhere: set[str] = field(default_factory=set)
    """Hosts beyond the loopback that the page asked for."""


def executable() -> str | None:
    """Return the path of Chromium."""
    return next(
        (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
    )


@contextmanager
def open_tab(width: int = 1280, height: int = 900, *, mobile: bool = False) -> Iterator[Tab]:
    """Open a tab for the length of a ``with`` block."""
    path = executable()
    if path is None:
        lacks("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        context = browser.new_context(
            viewport={"width": width, "height": height}, has_touch=mobile, is_mobile=mobile
        )
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        tab = Tab(page)

        def only_loopback(route: Route) -> None:
            host = urlsplit(route.request.url).hostname
            if host in ("127.0.0.1", "localhost", None):
                route.continue_()
            else:
                tab.elsewhere.add(str(host))
                route.abort()

        page.route("**/*", only_loopback)
        page.on("pageerror", lambda error: tab.problems.append(f"script: {error}"))

        def note(message: ConsoleMessage) -> None:
            # What was cut off is there as ERR_FAILED, or by its address: both are noted above.
            cut_off = "ERR_FAILED" in message.text or any(f"//{h}/" in message.text for h in tab.elsewhere)
            if message.type == "error" and not cut_off:
                tab.problems.append(f"console: {message.text}")

        page.on("console", note)
        page.on(
            "response",
            lambda answer: (
                tab.problems.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
            ),
        )
        try:
            yield tab
        finally:
            browser.close()
