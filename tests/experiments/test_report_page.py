"""The page of the report is complete and needs nothing else."""

import shutil
from html.parser import HTMLParser

import pytest

from experiments.claims import CLAIMS
from experiments.harness.listing import STUDIES
from experiments.report import reading
from experiments.report.judging import WORDS
from experiments.report.page import page
from tests.experiments.reports import put, verdict

VOID = {"meta", "link", "img", "input", "br"}


@pytest.fixture
def written(tmp_path):
    """Writes a page with two studies; one of their verdicts names no row."""
    one = [verdict([12, 68], True), verdict([13, 68], False), verdict([], None)]
    put(tmp_path, "seed_network", *one)
    put(tmp_path, "learning_rate", verdict([51], True))
    path = tmp_path / "report.html"
    reading.write(path, page(reading.read(tmp_path, tmp_path / "none")))
    return path


class Elements(HTMLParser):
    """Collects elements and attributes; fails if tags are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.found, self.within, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.within.append(tag)

    def handle_endtag(self, tag):
        assert self.within.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_is_well_formed_and_loads_nothing(written):
    text = written.read_text(encoding="utf-8")
    elements = Elements(text)
    assert elements.within == []
    assert elements.of("html") == [{"lang": "en"}]
    assert len(elements.of("title")) == 1
    rows = [each["id"] for each in elements.of("tr") if "id" in each]
    assert rows == [f"row-{each.row}" for each in CLAIMS]
    assert all(each["scope"] in ("row", "col") for each in elements.of("th"))
    assert len(elements.of("img")) == 2
    for each in elements.of("img"):
        assert each["src"].startswith("data:image/png;base64,")
        assert each["alt"].startswith("Figure: ")
    assert elements.of("script") == []
    assert [each["href"] for each in elements.of("link")] == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text
    names = {each["id"] for _, each in elements.found if "id" in each}
    links = [each["href"] for each in elements.of("a")]
    assert {each[1:] for each in links if each.startswith("#")} <= names
    assert "it is <so> | not so" in "".join(elements.texts)


def browse(path, width):
    """Shows a page in headless Chromium, or skips the test."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    errors, requests = [], []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": width, "height": 900})
        shown.on("console", lambda said: said.type == "error" and errors.append(said.text))
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.on("requestfailed", lambda each: errors.append(each.url))
        shown.on("request", lambda each: requests.append(each.url))
        shown.goto(path.as_uri())
        found = {
            "widths": shown.eval_on_selector_all(
                "img", "all => all.map(i => i.naturalWidth)"
            ),
            "verdicts": shown.locator("tr.claim td.verdict").all_inner_texts(),
            "overflow": shown.evaluate("document.documentElement.scrollWidth - innerWidth"),
        }
        shown.check("#show-fails")
        found["failing"] = shown.locator("tr.claim:visible th").all_inner_texts()
        shown.check("#show-all")
        found["visible"] = shown.locator("tr.claim:visible").count()
        browser.close()
    assert errors == []
    assert [each for each in requests if not each.startswith(("file:", "data:"))] == []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_all_of_it(written, width):
    found = browse(written, width)
    assert len(found["widths"]) == 2
    assert min(found["widths"]) > 0
    assert len(found["verdicts"]) == found["visible"] == len(CLAIMS)
    assert set(found["verdicts"]) <= set(WORDS)
    assert found["failing"] == ["13"]
    assert found["overflow"] <= 0


@pytest.mark.slow
def test_a_browser_shows_what_is_published(tmp_path):
    path = tmp_path / "report.html"
    studies = reading.read(tmp_path / "none")
    reading.write(path, page(studies))
    found = browse(path, 1280)
    assert len(found["widths"]) == len(studies) == len(STUDIES)
    assert min(found["widths"]) > 0
    assert len(found["verdicts"]) == len(CLAIMS)
    assert set(found["verdicts"]) <= set(WORDS) - {"open"}
