"""The report as PDF, printed by a Chromium browser without a window.

Chromium, Chrome and Edge print a page by the same options. The browser gets a profile folder of its
own, which is removed afterwards, and no network; a report needs none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cvsct.core import platform
from cvsct.core.errors import BrowserError
from cvsct.core.files import write_atomic

PROGRAMS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *("microsoft-edge", "microsoft-edge-stable", "msedge"),
)
"""Names of browsers on PATH, in the order in which they are tried."""

MACOS = (
    *("Chromium.app/Contents/MacOS/Chromium", "Google Chrome.app/Contents/MacOS/Google Chrome"),
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
"""Programs below `/Applications` and `~/Applications`."""

WINDOWS = (
    *("Chromium/Application/chrome.exe", "Google/Chrome/Application/chrome.exe"),
    "Microsoft/Edge/Application/msedge.exe",
)
"""Programs below the folders that the variables `WINDOWS_FOLDERS` name."""

WINDOWS_FOLDERS = ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")

TIME_LIMIT_S = 120.0
"""Longest time that a browser may take to print."""

OPTIONS = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions"),
    *("--no-first-run", "--no-default-browser-check", "--disable-sync", "--disable-default-apps"),
    *("--disable-background-networking", "--disable-component-update", "--disable-crash-reporter"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--no-proxy-server"),
    *("--no-pdf-header-footer", "--print-to-pdf-no-header"),
)
"""Options of every browser; the last two are one option under its new and its old name."""


def find_browser() -> Path:
    """A browser that can print: on PATH, or where its installer puts it.

    Raises:
        BrowserError: if there is none.
    """
    for name in PROGRAMS:
        found = shutil.which(name)
        if found:
            return Path(found)
    for path in _usual_places():
        if path.is_file():
            return path
    raise BrowserError(
        "--pdf: no Chromium, Chrome or Edge on PATH or where they are usually installed; install "
        "one of them, or leave --pdf out and print report.html from any browser"
    )


def write_pdf(page: Path, pdf: Path, browser: Path, time_limit_s: float = TIME_LIMIT_S) -> None:
    """Print a page to a PDF file, which is complete or does not exist.

    Args:
        page: the HTML file.
        pdf: the file to write.
        browser: program of the browser.
        time_limit_s: longest time that it may take.

    Raises:
        BrowserError: if the browser fails, takes too long or writes no PDF.
    """
    # Beside the page: a browser in a sandbox of its own, such as a snap, sees no other /tmp.
    with tempfile.TemporaryDirectory(
        prefix="pdf-", dir=pdf.parent, ignore_cleanup_errors=True
    ) as name:
        printed = Path(name) / "page.pdf"
        command = [
            str(browser), *OPTIONS, *(["--no-sandbox"] if platform.is_superuser() else []),
            f"--user-data-dir={Path(name) / 'profile'}", f"--print-to-pdf={printed}",
            page.absolute().as_uri(),
        ]  # fmt: skip
        reason = _run(command, time_limit_s)
        content = printed.read_bytes() if printed.is_file() else b""
        if not reason and not content.startswith(b"%PDF"):
            reason = "it wrote no PDF"
        if reason:
            raise BrowserError(
                f"{pdf.name}: {browser.name} could not print the report: {reason}; {page.name} and "
                "all other files are written, print it from a browser"
            )
        write_atomic(pdf, content)


def _run(command: list[str], time_limit_s: float) -> str:
    """Run a browser; returns why it failed, empty where it did not."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=time_limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it did not end within {time_limit_s:g} s"
    except OSError as error:
        return f"it did not start ({error.strerror})"
    return f"exit code {done.returncode}" if done.returncode else ""


def _usual_places() -> Iterator[Path]:
    """Where installers of the browsers put their programs on this system."""
    if sys.platform == "darwin":
        for folder in (Path("/Applications"), Path("~/Applications").expanduser()):
            yield from (folder / program for program in MACOS)
    elif sys.platform == "win32":
        for variable in WINDOWS_FOLDERS:
            if folder_name := os.environ.get(variable):
                yield from (Path(folder_name) / program for program in WINDOWS)
    else:
        yield from (Path("/snap/bin/chromium"), Path("/opt/google/chrome/chrome"))
        yield Path("/opt/microsoft/msedge/msedge")
