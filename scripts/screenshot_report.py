"""The docs' picture of a report, by playwright: `python -m scripts.screenshot_report PAGE.html OUT.png`."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HEIGHT = 1150
DESKTOP, PHONE = 1280, 390  # pixels wide
GAP = 24
SCALE = 0.75


def main(argv: Sequence[str]) -> None:
    """Put the page's top on a desktop beside its images on a phone."""
    page, out = Path(argv[0]), Path(argv[1])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        views = [photograph(browser, page, DESKTOP, "main"), photograph(browser, page, PHONE, "images")]
        browser.close()
    sheet = Image.new("RGB", (DESKTOP + PHONE + GAP, HEIGHT), "#8a8f98")
    sheet.paste(views[0], (0, 0))
    sheet.paste(views[1], (DESKTOP + GAP, 0))
    small = sheet.resize((round(sheet.width * SCALE), round(HEIGHT * SCALE)), Image.Resampling.LANCZOS)
    small.save(out, optimize=True)


def photograph(browser: Browser, page: Path, width: int, element: str) -> Image.Image:
    """A window of this width on the page; from the top for the main part, else from the element's heading on."""
    tab = browser.new_page(viewport={"width": width, "height": HEIGHT})
    tab.goto(page.absolute().as_uri())
    if element != "main":
        tab.evaluate(f"document.getElementById('{element}').scrollIntoView()")
    return Image.open(io.BytesIO(tab.screenshot()))


if __name__ == "__main__":
    main(sys.argv[1:])
