"""Make the pictures of the documentation from a running demonstration.

Start ``make run``, then ``python -m tests.clients.screenshots``.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.support.chromium import Tab, open_tab

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LARGEST = 300_000
"""Bytes of a file."""
ITEM = "collections/tessera-synthetic/items/grid_0.15_52.15_2024"
PAGES = {
    "browser": ("/browser/", 1280, 1000, 4000),
    "browser-collection": ("/browser/#/collections/tessera-synthetic", 1280, 900, 9000),
    "browser-item": (f"/browser/#/{ITEM}", 1280, 900, 9000),
    "coverage": ("/coverage#collection=tessera-v1&year=2024", 1180, 760, 3000),
}
"""Name to address, width, height, and milliseconds until all is drawn."""


def save(name: str, png: bytes) -> None:
    """Write a picture with as many colours as fit into the largest size."""
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            out, "PNG", optimize=True
        )
        if len(out.getvalue()) < LARGEST:
            break
    (IMAGES / f"{name}.png").write_bytes(out.getvalue())
    print(f"{name}.png: {len(out.getvalue()):,} bytes, {colours} colours")


def search(tab: Tab, url: str) -> None:
    """Fill in the search form: a box on the map, and a year."""
    tab.page.goto(f"{url}/browser/#/search")
    tab.page.get_by_role("tab", name="Search for Items").click()
    form = tab.page.get_by_role("tabpanel", name="Search for Items")
    date = form.locator(".filter-datetime input")
    date.fill("2024-01-01 00:00:00 ~ 2024-12-31 23:59:59")
    date.press("Enter")
    form.get_by_label("Filter by spatial extent").check(force=True)
    map_ = form.locator(".filter-bbox .map")
    map_.locator("canvas").first.wait_for()
    tab.page.wait_for_timeout(1500)
    box = map_.bounding_box() or {"x": 0, "y": 0, "width": 0, "height": 0}
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.34)
    tab.page.wait_for_timeout(1000)
    form.get_by_role("button", name="Submit").click()
    tab.page.wait_for_timeout(5000)
    tab.page.evaluate("scrollTo(0, 0)")
    tab.page.wait_for_timeout(500)


def main() -> None:
    """Make them all."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    catalog = sys.argv[2] if len(sys.argv) > 2 else ".run/catalog"
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, (path, width, height, wait) in PAGES.items():
        with open_tab(width, height) as tab:
            tab.page.goto(url + path)
            tab.page.wait_for_timeout(wait)
            if name == "coverage":
                tab.page.mouse.click(480, 560)
                tab.page.locator("#details h2").wait_for()
                tab.page.wait_for_timeout(500)
            save(name, tab.page.screenshot())
    with open_tab(1280, 1150) as tab:
        search(tab, url)
        save("browser-search", tab.page.screenshot())
    page = Path(".cache") / "preview.html"
    command = [sys.executable, "-m", "catalog_builder.cli", "preview", catalog, "--dataset", "synthetic"]
    subprocess.run(
        [*command, "--region", "0,52.1,0.2,52.3", "--size", "1024", "--out", page, "--quiet"], check=True
    )
    with open_tab(1000, 640) as tab:
        tab.page.goto(page.absolute().as_uri())
        tab.page.wait_for_timeout(1500)
        save("preview", tab.page.screenshot())


if __name__ == "__main__":
    main()
