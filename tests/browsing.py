"""A headless Chromium, driven by chromedriver, that remembers what it complained of and what it asked for."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

_SECONDS = 20.0


class Browser:
    """What a test does with a page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._log: list[dict[str, Any]] = []

    def open(self, address: str) -> None:
        """Load a page and wait until it says that it is ready."""
        self.driver.get("about:blank")
        self._drain()
        self._log.clear()
        self.driver.get_log("browser")  # what an earlier page complained of, its server gone
        self.driver.get(address)
        self.until(lambda: self.run("return document.getElementById('page')?.dataset.ready") == "yes")

    def in_sight(self, seen: bool) -> None:
        """Tell the page that its tab is before the others, or behind one of them."""
        self.run(
            "Object.defineProperty(document, 'hidden', { configurable: true, value: !arguments[0] });"
            "document.dispatchEvent(new Event('visibilitychange'))", seen,
        )  # fmt: skip

    @contextmanager
    def tabs(self) -> Iterator[Callable[[], None]]:
        """Gives what opens another tab before the one that is open; all of them are closed in the end."""
        first = self.driver.current_window_handle
        yield lambda: self.driver.switch_to.new_window("tab")
        for handle in self.driver.window_handles:
            if handle != first:
                self.driver.switch_to.window(handle)
                self.driver.close()
        self.driver.switch_to.window(first)

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def until(self, holds: Callable[[], Any], seconds: float = _SECONDS) -> None:
        """Wait for what is to come true."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"did not come true in {seconds:g} s; the page complains of {self.complaints()}")
            time.sleep(0.05)

    def reveal(self, figure: str) -> None:
        """Scroll a figure into sight and wait until it is drawn."""
        self.run(f"document.querySelector('[data-figure={figure}]').scrollIntoView({{block: 'center'}})")
        self.until(
            lambda: self.run(f"return document.querySelector('[data-figure={figure}] svg').childElementCount > 0")
        )
        if figure == "importance":
            self.until(lambda: self.count("[data-figure=importance] circle") > 0)

    def click(self, selector: str) -> None:
        self.run(
            "const one = document.querySelector(arguments[0]); one.scrollIntoView({block: 'center'}); one.click()",
            selector,
        )

    def press(self, key: str) -> None:
        names = {"ArrowRight": "\ue014", "Enter": "\ue007"}
        ActionChains(self.driver).send_keys(names[key]).perform()

    def choose(self, select: str, value: str) -> None:
        self.run(
            "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
            "one.dispatchEvent(new Event('change'))", select, value,
        )  # fmt: skip

    def drag(self, figure: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag over a figure, from and to fractions of its width and height."""
        self.run("document.querySelector(`[data-figure=${arguments[0]}]`).scrollIntoView({block: 'center'})", figure)
        box = self.driver.find_element(By.CSS_SELECTOR, f"[data-figure={figure}] svg")
        width, height = box.size["width"], box.size["height"]
        places = [((x - 0.5) * width, (y - 0.5) * height) for x, y in (start, end)]
        chain = ActionChains(self.driver, duration=40).move_to_element_with_offset(box, *map(round, places[0]))
        chain.click_and_hold().move_to_element_with_offset(box, *map(round, places[1])).release().perform()

    def slide(self, slider: str, value: int) -> None:
        self.run(
            "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
            "one.dispatchEvent(new Event('input'))", slider, value,
        )  # fmt: skip

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.textContent.trim() ?? ''", selector))

    def texts(self, selector: str) -> list[str]:
        return list(
            self.run("return [...document.querySelectorAll(arguments[0])].map(one => one.textContent.trim())", selector)
        )

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def hidden(self, selector: str) -> bool:
        return bool(self.run("return document.querySelector(arguments[0]).hidden", selector))

    def address(self) -> str:
        return str(self.driver.current_url)

    def shot(self, path: Path, height: int | None = None) -> Path:
        """The whole page as a PNG."""
        tall = height or int(self.run("return document.documentElement.scrollHeight"))
        answer = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": self.run("return innerWidth"), "height": tall, "scale": 1},
            },
        )
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    @contextmanager
    def screen(self, width: int, height: int) -> Iterator[None]:
        """Another size of screen."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    @contextmanager
    def dark(self) -> Iterator[None]:
        """A reader who prefers dark pages."""
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def _drain(self) -> None:
        self._log += [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]

    def requests(self) -> list[str]:
        """Every address the page asked for since it was opened."""
        self._drain()
        return [one["params"]["request"]["url"] for one in self._log if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, violations of the policy, and requests that failed."""
        self._drain()
        found = []
        for one in self._log:
            params = one["params"]
            if one["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif one["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif one["method"] == "Network.responseReceived" and params["response"]["status"] >= 400:
                found.append(f"{params['response']['status']} {params['response']['url']}")
        return found + [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def barriers(self, axe: str) -> list[dict[str, Any]]:
        """What axe-core finds wrong with the page for people who cannot see or point."""
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})  # past the page's own policy
        return list(
            self.driver.execute_async_script(
                "const done = arguments[0];"
                "axe.run(document, {resultTypes: ['violations']}).then(found => done(found.violations))"
            )
        )


def browser_found() -> bool:
    """Whether there is a browser to drive; where there is none, its tests are not collected."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def browser_of(width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Start a browser and end it."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--disable-component-update", "--no-first-run", "--force-color-profile=srgb", f"--window-size={width},{height}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
