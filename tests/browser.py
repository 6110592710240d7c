"""A page in headless Chromium, as a person would use it: nothing may leave the machine, and no policy may be broken."""

import os
import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from somite.web.serve import server

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ANSWER = """() => {
  const { mask, probability, spread, height, width, engine } = document.getElementById("results").answer;
  return { mask: Array.from(mask), probability: Array.from(probability), spread: Array.from(spread), height, width, engine };
}"""


class Watched:
    """A page, the requests that it made, and what it complained of."""

    def __init__(self, page, address):
        self.page, self.address = page, address
        self.asked, self.complaints = [], []
        page.context.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def opened(self):
        self.page.goto(self.address)
        self.page.get_by_text("Ready.").wait_for(timeout=120_000)
        return self

    def give(self, path):
        """Choose a file, as the button does, and wait for what comes of it; returns the answer, or None where an error is shown."""
        self.page.locator("#file").set_input_files(str(path))
        return self.settled()

    def settled(self):
        self.page.wait_for_function(
            "() => !document.getElementById('error').hidden || /^Done/.test(document.getElementById('status').textContent)", timeout=240_000
        )
        return None if self.page.locator("#error").is_visible() else self.answer()

    def answer(self):
        found = self.page.evaluate(ANSWER)
        space = found["height"], found["width"]
        maps = {name: np.array(found[name], np.float32).reshape(-1, *space) for name in ("probability", "spread")}
        return {"mask": np.array(found["mask"], np.uint8).reshape(space), **maps, "engine": found["engine"]}

    def strangers(self):
        return [url for url in self.asked if not url.startswith((self.address, f"blob:{self.address}"))]


@contextmanager
def chromium():
    """One browser, of which each page has a context of its own."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env={**os.environ, "HOME": home})
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browsing(browser, folder: Path):
    """A page of the folder, from a server on this machine."""
    one = server(folder, 0)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    context = browser.new_context(viewport={"width": 1100, "height": 1000})
    try:
        yield Watched(context.new_page(), f"http://localhost:{one.server_port}/")
    finally:
        context.close()
        one.shutdown()
        one.server_close()
