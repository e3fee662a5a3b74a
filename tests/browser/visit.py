"""A browser that cannot reach the network, and what must not happen in its pages."""

import mimetypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Route

SERVER = "http://localhost"  # answered from the disk, by the browser's own routing
TIMEOUT = 20_000  # milliseconds; for what never comes
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    # Chromium on its own asks its maker for news at every start.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-quic", "--disable-gpu", "--no-first-run"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


class MissingError(Exception):
    """There is no browser, or nothing to drive it with; the message begins with "needs"."""


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Start the browser that is installed, and end it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MissingError("needs the Python package playwright") from None
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise MissingError("needs Chromium")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # where its sandbox refuses to work
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, chromium_sandbox=not as_root, args=list(ARGUMENTS)
        )
        yield browser
        browser.close()


@dataclass
class Tab:
    """A tab of the browser, and the directory of the site that is open in it."""

    page: "Page"
    options: dict[str, Any]
    site: Path


class Visits:
    """The pages that a test opens.

    A tab is used again after `close`: its process has compiled the scripts already.

    Attributes
    ----------
    problems : list of str
        What went wrong in them: requests to the network or for files that are not there,
        errors on the console, uncaught exceptions, dialogs. A test fails that leaves any.
    """

    def __init__(self, browser: "Browser") -> None:
        self.browser = browser
        self.tabs: list[Tab] = []
        self.idle: list[Tab] = []
        self.problems: list[str] = []
        self._opened = 0

    def open(self, site: Path, address: str, *, served: bool = False, **options: Any) -> "Page":
        """Open a page of a site.

        Parameters
        ----------
        site : Path
            The directory of the site.
        address : str
            The page in it, with query and fragment.
        served : bool
            From a server, as asv's own pages need it, and not as a file.
        **options
            What the browser is like: "viewport", "color_scheme" and so on.
        """
        alike = [tab for tab in self.idle if tab.options == options]
        if alike:
            tab = alike[0]
            self.idle.remove(tab)
            tab.site = site
        else:
            tab = self._tab(site, options)
        self.tabs.append(tab)
        # Another query, because a browser does not load an address again for another fragment.
        self._opened += 1
        name, mark, fragment = address.partition("#")
        server = SERVER if served else site.as_uri()
        tab.page.goto(f"{server}/{name}?{self._opened}{mark}{fragment}")
        return tab.page

    def close(self) -> None:
        """Let all tabs be used for other pages."""
        self.idle += self.tabs
        self.tabs.clear()

    def _tab(self, site: Path, options: dict[str, Any]) -> Tab:
        context = self.browser.new_context(**options)
        context.set_default_timeout(TIMEOUT)
        tab = Tab(context.new_page(), options, site)
        context.route("**/*", lambda route: self._answer(route, tab.site))
        tab.page.on("console", self._console)
        tab.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        tab.page.on("dialog", self._dialog)
        return tab

    def _answer(self, route: "Route", site: Path) -> None:
        url = urlsplit(route.request.url)
        if url.scheme == "file":
            route.continue_()
        elif f"{url.scheme}://{url.netloc}" != SERVER:
            self.problems.append(f"a request to the network: {route.request.url}")
            route.abort()
        else:
            path = site / unquote(url.path).lstrip("/")
            if path.is_file():
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                route.fulfill(body=path.read_bytes(), content_type=kind)
            else:
                self.problems.append(f"no such file: {url.path}")
                route.fulfill(status=404)

    def _console(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _dialog(self, dialog: "Dialog") -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()
