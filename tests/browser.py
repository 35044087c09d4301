"""A real browser for tests: the Chromium that is there, else Debian's, driven by playwright without a network."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# As root in a container it has no sandbox of its own; the rest keeps it from asking its maker for anything.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
INSTALL = (["apt-get", "update", "-q"], ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"])


def chromium() -> str:
    """The path of a Chromium; installs Debian's where there is none and this user may."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        for command in INSTALL:
            made = subprocess.run(
                command, capture_output=True, text=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            )
            if made.returncode:
                pytest.fail(f"{' '.join(command)}: {made.stderr.strip()[-300:]}", pytrace=False)
        found = shutil.which("chromium")
    if found is None:
        pytest.fail(f"no browser: put one of {', '.join(NAMES)} on the PATH (apt-get install chromium)", pytrace=False)
    return found


# Not for the session: while playwright is open its loop runs in this thread, and asyncio.run() of a later file fails.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file, each of which opens a context of its own."""
    path = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()
