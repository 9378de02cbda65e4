"""Screenshots of the dashboard for the README, of a study that was run.

    python experiments/screenshots.py results/quickstart --select 0 4    # results/recorded/dashboard/*.webp

A headless Chromium (Debian's chromium and chromium-driver) opens the page as a user would: by day at its figures, by
night where two adapters are compared.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 1280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--select", type=int, nargs=2, required=True, help="two trials that are compared by night")
    parser.add_argument("--address", default="", help="what follows # by day, such as margin=0.05")
    parser.add_argument("--out", type=Path, default=ROOT / "results/recorded/dashboard")
    arguments = parser.parse_args()
    one, other = arguments.select
    arguments.out.mkdir(parents=True, exist_ok=True)
    with _dashboard(arguments.study) as address, _browser() as browser:
        page = f"{address}/studies/{arguments.study.resolve().name}"
        _open(browser, f"{page}#{arguments.address}", "light", 1480)
        _save(browser, arguments.out / "study.webp")
        _open(browser, f"{page}#selected={one},{other}", "dark", 900)
        while not browser.execute_script("return document.querySelector('td.said')?.textContent"):
            time.sleep(0.5)  # the texts are read from the study's source
        browser.execute_script("document.querySelector('.confusion').scrollIntoView(); scrollBy(0, -110)")
        time.sleep(1)
        _save(browser, arguments.out / "adapters.webp")


@contextmanager
def _dashboard(study: Path) -> Iterator[str]:
    command = [sys.executable, "-c", "from lora_search.cli import main; main()", "dashboard", str(study), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split(": ", 1)[1].strip().rstrip("/")
        finally:
            process.terminate()


@contextmanager
def _browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def _open(browser: webdriver.Chrome, address: str, scheme: str, height: int) -> None:
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1.25, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    browser.get(address)
    while browser.execute_script("return document.getElementById('page').dataset.ready") != "yes":
        time.sleep(0.1)
    time.sleep(1)


def _save(browser: webdriver.Chrome, path: Path) -> None:
    shot = base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    Image.open(io.BytesIO(shot)).convert("RGB").save(path, quality=76, method=6)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
