"""A headless Chromium for tests of pages, with a record of what a page says and asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""What distributions call it; Debian's package is `chromium`."""


def executable() -> str | None:
    """The browser of this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def missing() -> str:
    """Why pages cannot be looked at here; "" if they can."""
    if executable() is None:
        return "no Chromium is on the path: install Debian's package chromium"
    if find_spec("playwright") is None:
        return "the package playwright, which drives Chromium, is not installed: pip install playwright"
    return ""


@dataclass
class Seen:
    """What happened while a page was open: messages of the console and exceptions, addresses that it asked for, and
    why some of them were not fetched.
    """

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@contextmanager
def browser() -> Iterator[Any]:
    """A running Chromium, without profile and sandbox (containers have none)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def opened(chromium: Any, path: Path, *, dark: bool = False, width: int = 1200) -> Iterator[tuple[Any, Seen]]:
    """A page of a file, from before the first byte is read."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        offline=True,
        reduced_motion="reduce",
    )
    page, seen = context.new_page(), Seen()
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("requestfailed", lambda request: seen.failed.update({request.url: request.failure}))
    page.goto(path.as_uri())
    yield page, seen
    context.close()
