"""The page in a real browser: nothing is wrong, nothing is hidden, on any screen and on paper."""

from __future__ import annotations

import base64
import pathlib
import shutil
import subprocess

import pytest
from page_helpers import PREDICTED, full_job, page_of, trained_job, write_metrics

pytestmark = pytest.mark.slow

# The size of the text, the color of each text against what is behind it: WCAG 2.1, 1.4.3.
_CONTRASTS = """
function parts(color) { return color.match(/[\\d.]+/g).map(Number); }
function luminance(color) {
  const [r, g, b] = parts(color).slice(0, 3).map(v => {
    v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function opaque(color) { const p = parts(color); return p.length < 4 || p[3] > 0; }
function behind(element) {
  const svg = element.closest("svg"), at = element.getBoundingClientRect();
  const [x, y] = [(at.left + at.right) / 2, (at.top + at.bottom) / 2];
  // The last thing with a color that is drawn before a text of a picture and lies under it.
  for (const shape of svg ? [...svg.querySelectorAll("path, use")].reverse() : []) {
    const box = shape.getBoundingClientRect(), fill = getComputedStyle(shape).fill;
    if (shape.closest("defs") || fill == "none"
        || !(element.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_PRECEDING)) continue;
    if (box.left <= x && x <= box.right && box.top <= y && y <= box.bottom) return fill;
  }
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (opaque(color)) return color;
  }
  return "rgb(255, 255, 255)";
}
return [...document.body.querySelectorAll("*")].filter(e =>
  e.tagName != "title" && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())
).map(e => {
  const style = getComputedStyle(e);
  const color = e instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [luminance(color), luminance(behind(e))].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 80)];
});
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, pathlib.Path]:
    """A job with all parts, and one that was only trained."""
    folder = tmp_path_factory.mktemp("pages")
    trained = trained_job(folder / "trained")
    write_metrics(trained)
    texts = {"full": page_of(full_job(folder / "job"), PREDICTED), "trained": page_of(trained)}
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    yield found
    found.quit()


@pytest.fixture(params=["full", "trained"])
def page(browser, pages, request):
    """Opens a page: as (width in pixels, color scheme) say."""

    def opened(width: int = 1280, scheme: str = "light") -> None:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(pages[request.param].as_uri())

    opened.name = request.param
    return opened


def test_no_errors_and_nothing_is_loaded(browser, page):
    browser.get_log("performance")
    page()
    assert browser.get_log("browser") == []
    sent = [row["message"] for row in browser.get_log("performance")]
    requests = [text for text in sent if '"Network.requestWillBeSent"' in text]
    assert len(requests) == 1  # the page itself
    assert "file://" in requests[0]


def test_every_figure_is_seen(browser, page):
    page()
    script = """return [...document.querySelectorAll("svg[role=img]")].map(svg => {
      const box = svg.getBoundingClientRect();
      const parts = [...svg.querySelectorAll("use, path, text")].filter(e => !e.closest("defs"));
      const seen = parts.filter(e => {
        const inner = e.getBoundingClientRect();
        return inner.left >= box.left - 1 && inner.right <= box.right + 1
            && inner.top >= box.top - 1 && inner.bottom <= box.bottom + 1; });
      return [svg.id, box.width, box.height, seen.length, parts.length];
    })"""
    figures = browser.execute_script(script)
    assert len(figures) == {"full": 7, "trained": 1}[page.name]
    for label, width, height, seen, all_parts in figures:
        assert width > 150, label
        assert height > 80, label
        assert seen == all_parts, label  # nothing sticks out


@pytest.mark.parametrize("width", [360, 1280])
def test_texts_of_pictures_can_be_read_and_selected(browser, page, width):
    page(width)
    script = """return [...document.querySelectorAll("svg[role=img] text")].map(e => {
      getSelection().selectAllChildren(e);
      const size = parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a;
      return [e.textContent, getSelection().toString(), size]; })"""
    texts = browser.execute_script(script)
    assert len(texts) > 12
    for text, selected, size in texts:
        assert selected == text
        assert 9 <= size <= 18, text


def test_a_screen_reader_is_told_what_a_picture_shows(browser, page):
    page()
    browser.execute_cdp_cmd("Accessibility.enable", {})
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = [node["name"]["value"] for node in nodes if node["role"]["value"] in ("image", "img")]
    assert len(names) == {"full": 7, "trained": 1}[page.name]
    assert "Accuracy of the corner subnets over the steps of training" in names


def test_parts_of_pictures_follow_the_scheme(browser, page):
    script = """return [...document.querySelectorAll("svg[role=img] :is(path, use, text)")].map(
      e => getComputedStyle(e)).map(s => [s.fill, s.stroke]).filter(
      colors => colors.some(color => color != "none"))"""
    colors = []
    for scheme in ("light", "dark"):
        page(scheme=scheme)
        colors.append(browser.execute_script(script))
    assert len(colors[0]) == len(colors[1]) > 20
    for light, dark in zip(*colors, strict=True):
        assert all(a != b for a, b in zip(light, dark, strict=True) if a != "none")


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_the_page_does_not_scroll_sideways(browser, page, width):
    page(width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # What is wider scrolls in itself, and can be reached by the keyboard.
    script = """return [...document.querySelectorAll("*")].filter(e =>
      e.scrollWidth > e.clientWidth + 1 && e.clientWidth && getComputedStyle(e).overflowX == "auto"
    ).map(e => e.tabIndex)"""
    inner = browser.execute_script(script)
    assert inner or width > 360
    assert set(inner) <= {0}


def test_light_and_dark_differ_and_can_be_read(browser, page):
    grounds = []
    for scheme in ("light", "dark"):
        page(scheme=scheme)
        script = "return getComputedStyle(document.body).backgroundColor"
        grounds.append(browser.execute_script(script))
        contrasts = browser.execute_script(_CONTRASTS)
        assert len(contrasts) > 60
        low = [(round(ratio, 2), html) for ratio, html in contrasts if ratio < 4.5]
        assert low == [], scheme
    light, dark = (sum(map(int, ground[4:-1].split(", "))) for ground in grounds)
    assert dark < 0.3 * light


def test_print(browser, page, tmp_path):
    page(scheme="dark")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    low = [html for ratio, html in browser.execute_script(_CONTRASTS) if ratio < 4.5]
    assert low == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": dark})
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF-")
    tools = [shutil.which(tool) for tool in ("pdftotext", "pdftoppm")]
    if None in tools:
        pytest.skip("needs pdftotext and pdftoppm (Debian: poppler-utils)")
    path = tmp_path / "page.pdf"
    path.write_bytes(pdf)
    text = subprocess.run([tools[0], path, "-"], capture_output=True, text=True, check=True).stdout
    told = [
        "Overview",
        "Training",
        "31.0",
        "62.3",
        "ofa-search" if page.name == "trained" else "hot:",
    ]
    assert [word for word in told if word not in text] == []
    command = [tools[1], "-gray", "-r", "60", path, tmp_path / "sheet"]
    subprocess.run(command, check=True)
    sheets = [path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".pgm"]
    pixels = b"".join(sheet.split(b"255\n", 1)[1] for sheet in sheets)
    assert min(pixels) < 100  # there is something dark
    assert sum(pixels) / len(pixels) > 200  # on paper that is light, whatever the screen is


def test_no_table_is_cut_off_on_paper(browser, page):
    page()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    # A4 less its margins, in CSS pixels.
    size = {"width": 695, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    script = """return [...document.querySelectorAll("table, svg, code")].filter(e =>
      e.getBoundingClientRect().right > 696).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.execute_script(script) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
