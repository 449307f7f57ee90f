"""Photograph a run's report and the server's page for the docs, with Chromium and playwright.

python -m scripts.draw_screenshots [runs/demo] [docs/images]
"""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

DESKTOP, PHONE = 1280, 390  # pixels wide
REPORT_HEIGHT, REPORT_SCALE, GAP = 1150, 0.75, 24
PAGE_SIZE = (1180, 900)
START = 120  # seconds that the server may take to load the model


def main(argv: Sequence[str]) -> None:
    """Write report.png and page.png."""
    run = Path(argv[0] if argv else "runs/demo")
    out = Path(argv[1] if len(argv) > 1 else "docs/images")
    (report,) = (run / "report").glob("report_*.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        photograph_report(browser, report).save(out / "report.png", optimize=True)
        with serving(run) as url:
            photograph_page(browser, url).save(out / "page.png", optimize=True)
        browser.close()


def photograph_report(browser: Browser, report: Path) -> Image.Image:
    """The report's top on a desktop beside its images on a phone."""
    sheet = Image.new("RGB", (DESKTOP + PHONE + GAP, REPORT_HEIGHT), "#8a8f98")
    for width, left, element in ((DESKTOP, 0, "main"), (PHONE, DESKTOP + GAP, "images")):
        tab = browser.new_page(viewport={"width": width, "height": REPORT_HEIGHT})
        tab.goto(report.absolute().as_uri())
        if element != "main":
            tab.evaluate(f"document.getElementById('{element}').scrollIntoView()")
        sheet.paste(photograph(tab), (left, 0))
    size = (round(sheet.width * REPORT_SCALE), round(REPORT_HEIGHT * REPORT_SCALE))
    return sheet.resize(size, Image.Resampling.LANCZOS)


def photograph_page(browser: Browser, url: str) -> Image.Image:
    """The server's page with all its examples scored, the best quality first."""
    tab = browser.new_page(viewport={"width": PAGE_SIZE[0], "height": PAGE_SIZE[1]})
    tab.goto(url)
    expect(tab.locator("#examples img").first).to_be_visible()
    examples = tab.locator("#examples button").all()
    for example in examples:
        example.click()
    expect(tab.locator("#progress-text")).to_have_text(f"{len(examples)} of {len(examples)} scored", timeout=60_000)
    tab.select_option("#sort", label="by quality")
    tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    return photograph(tab)


def photograph(tab: Page) -> Image.Image:
    """What the tab's window shows."""
    return Image.open(io.BytesIO(tab.screenshot())).convert("RGB")


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """A server of a run's checkpoint, which ends with the context; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mgs", "serve", "--checkpoint", str(run), "--port", str(port)]
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + START
    with subprocess.Popen(words) as server:
        try:
            while server.poll() is None and time.monotonic() < until:
                try:
                    urllib.request.urlopen(url).close()
                    break
                except urllib.error.URLError:
                    time.sleep(0.5)
            yield url
        finally:
            server.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
