"""The built site: no warning, nothing from another host, and the page in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path

import pytest
import soup_data
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.slow
in_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml"):
        pytest.importorskip(name, reason="make site installs what is missing")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-d", folder / "doctrees"]
    command += ["-W", "--keep-going", "-q", ".", folder / "html"]
    offline = os.environ | {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")}
    with FileLock(f"{folder}.lock"):  # one of xdist's workers builds
        if not (folder / "html/soup_weights.js").exists():
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=offline)
            assert done.returncode == 0, done.stderr
    return folder / "html"


class Browser:
    """Headless Chromium, spoken to in its own protocol; keeps errors and what it asked for."""

    def __init__(self, folder):
        websocket = pytest.importorskip("websocket")
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
                 "--remote-allow-origins=*", f"--user-data-dir={folder}"]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], **quiet)
        port = folder / "DevToolsActivePort"
        self.until(lambda: port.exists() and port.read_text().count("\n"), 60)
        number, path = port.read_text().split()
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{number}{path}", timeout=60)
        self.session, self.sent, self.errors, self.asked = None, 0, [], []
        [page] = [t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        session = {"sessionId": self.session} if self.session else {}
        self.socket.send(json.dumps(message | session))
        while (told := json.loads(self.socket.recv())).get("id") != self.sent:
            self.note(told.get("method"), told.get("params"))
        assert "error" not in told, told
        return told["result"]

    def note(self, event, told):
        if event == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        if event == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"])
        if event == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(told["args"])
        if event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"])

    @staticmethod
    def until(ready, seconds=30):
        end = time.monotonic() + seconds
        while not (found := ready()):
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)
        return found

    def js(self, code):
        told = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def open(self, path, width=1280, dark=False):
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Page.navigate", url=path.as_uri())
        self.until(lambda: self.js("location.href") == path.as_uri())
        self.until(lambda: self.js("document.readyState") == "complete")

    def press(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def write(self, text):
        box = f"const box = document.getElementById('prompt'); box.value = {text};"
        self.js(f"{{ {box} box.dispatchEvent(new Event('input')) }}")

    def text(self, name):
        return self.js(f"document.getElementById('{name}').textContent")

    def picture(self, path, whole=True):
        data = self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(b64decode(data))
        assert path.stat().st_size > 5000


@pytest.fixture
def browser(tmp_path):
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.process.terminate()
    opened.process.wait(30)


def read(path):
    return path.read_text(encoding="utf-8")


def pages(site):
    return {path: read(path) for path in site.rglob("*.html")}


def test_nothing_comes_from_another_host(site):
    source, sheet = r"\ssrc=\"(?:https?:)?//", r"\shref=\"(?:https?:)?//"
    fetched = rf"<(?:script|img|iframe|source)[^>]*{source}|<link[^>]*{sheet}"
    assert [path.name for path, text in pages(site).items() if re.search(fetched, text)] == []
    styles = [path for path in site.rglob("*.css") if re.search(r"url\(.?https?:", read(path))]
    assert styles == []


def test_links_between_pages_lead_somewhere(site):
    lost = [
        (path.name, link)
        for path, text in pages(site).items()
        for link in re.findall(r"<a [^>]*href=\"([^\"#?]+)", text)
        if not re.match(r"[a-z]+:", link) and not (path.parent / link).exists()
    ]
    assert lost == []


def test_every_module_of_the_rooms_is_in_the_reference(site):
    written = {path.stem for path in (site / "docs" / "api").glob("*.html")}
    for room in ("lora", "learning", "own", "tasks", "study"):
        for path in (ROOT / "lorasoups" / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            assert name in written or path.name.startswith("_") and "__init__" not in path.name


@in_browser
def test_a_slider_moved_by_keyboard_turns_prose_into_a_program(site, browser, tmp_path):
    browser.open(site / "soup.html")
    assert browser.text("answer") == ""  # nothing is loaded before it is asked for
    assert not any("weights" in url for url in browser.asked)
    for _ in range(20):
        if browser.js("document.activeElement.id") == "alpha_code":
            break
        browser.press("Tab", 9)
    focus = browser.js("[document.activeElement.id,"
                       "getComputedStyle(document.activeElement).outlineStyle]")  # fmt: skip
    assert focus == ["alpha_code", "solid"]

    browser.press("ArrowRight", 39)
    browser.until(lambda: "a second" in browser.text("state"), 60)
    prose = browser.text("answer")
    assert prose and "def solution" not in prose
    for _ in range(19):
        browser.press("ArrowRight", 39)
    browser.until(lambda: "returns" in browser.text("verdict"))
    assert browser.js("document.activeElement.nextSibling.textContent") == "1.00"
    assert browser.text("answer").startswith("def solution():")
    assert browser.text("here").startswith("Alphas 1.00 and 1.00")
    print(browser.text("state"))

    numbers = soup_data.numbers(ROOT)
    for method in numbers["methods"]:
        button = f"[...methods.children].find((b) => b.textContent === '{method['name']}')"
        browser.js(f"{button}.click()")
        shown = browser.js("[...document.querySelectorAll('output')].map((o) => o.textContent)")
        assert shown == [f"{alpha:.2f}" for alpha in method["alphas"]]
    browser.until(lambda: browser.js("!answer.hasAttribute('aria-busy')"))
    links = browser.js("[...document.links].map((link) => link.getAttribute('href'))")
    assert [link for link in links if not (site / link).exists()] == []
    for sentence in numbers["text"]:
        assert sentence in browser.text("text")
    browser.picture(tmp_path / "soup_1280.png")
    assert browser.errors == []
    assert {url.split(":")[0] for url in browser.asked} <= {"file", "data"}


@in_browser
def test_own_problems_unknown_words_and_a_phone(site, browser, tmp_path):
    browser.open(site / "soup.html", width=375, dark=True)
    browser.write("'Tom has 12 bananas. How many apples now? Write a table.'")
    browser.until(lambda: "a second" in browser.text("state"), 60)
    assert browser.text("unknown") == "The model does not know: bananas"
    assert browser.js("problem.value") == ""
    assert browser.js("document.documentElement.scrollWidth") <= 375
    browser.write("'Add 5. '.repeat(99)")
    browser.until(lambda: "Too long" in browser.text("state"))
    browser.js("problem.value = 0; problem.dispatchEvent(new Event('change'))")
    browser.js("methods.children[4].click()")
    browser.until(lambda: "program" in browser.text("verdict"))
    browser.picture(tmp_path / "soup_375.png")
    assert browser.errors == []


def test_formulas_and_tables_of_outputs_are_rendered(site):
    pages = [
        page.read_text(encoding="utf-8") for page in sorted((site / "notebooks").glob("*.html"))
    ]
    told = [re.sub(r"(?s)<(pre|script|code|style).*?</\1>|<[^>]+>", "", page) for page in pages]
    assert not re.findall(r".*(?:\$|\\\w|\| ---).*", "\n".join(told))
    assert (
        sum("<math" in page for page in pages) >= 5 and sum("<table" in page for page in pages) >= 9
    )


@in_browser
def test_index_and_notebooks_open_from_files(site, browser, tmp_path):
    for name, page in (("index", "docs/index"), ("notebook", "notebooks/03_five_ways")):
        browser.open(site / f"{page}.html")
        loaded = browser.js("[...document.images].map((image) => image.naturalWidth)")
        assert loaded and all(loaded)
        browser.picture(tmp_path / f"{name}.png", whole=False)
    browser("Page.navigate", url=f"{(site / 'search.html').as_uri()}?q=density")
    browser.until(lambda: browser.js("document.querySelectorAll('#search-results li').length > 2"))
    assert browser.errors == []
    assert {url.split(":")[0] for url in browser.asked} <= {"file", "data", "blob"}
