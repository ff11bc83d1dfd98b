"The book: built once from small reports, then looked at in headless Chromium, as readers do."

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import urllib.parse
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import sync_playwright
from toy_reports import make_reports

from scalable_arch.book import site as module
from scalable_arch.book.downloads import read_table
from scalable_arch.book.overview import differences, flat, gallery_html, real_people_said, verdict_html
from scalable_arch.book.pages import (
    SIGNS,
    ExecutedRun,
    executed_runs,
    formulas_apart,
    page_notebook,
    relink,
    shows_result,
)
from scalable_arch.book.reference import docstring_markdown, room_pages
from scalable_arch.book.site import Book, build_book, gather, main
from scalable_arch.book.widgets import WHITE, all_points, cut_picture, cut_places
from scalable_arch.study.layout import long_frame

root = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:.*MystReferenceResolver.app")  # MyST's own business
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


# ---- the book and the browser, each once


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "(folder of the book, its `Book`)."
    out, reports = tmp_path_factory.mktemp("book") / "_book", make_reports(tmp_path_factory.mktemp("reports"))
    (reports / "ch3_han" / "costs.csv").write_text("of,another\nrun,1\n")  # what git leaves out may be older
    return out, build_book(reports, out)


def chromium():
    "Path of Chromium, installed where it is missing and we may."
    if not shutil.which("chromium") and os.geteuid() == 0 and shutil.which("apt-get"):
        for words in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(
                ["apt-get", "-qq", *words],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            )
    if not shutil.which("chromium"):
        pytest.skip("the book's pages are looked at in Chromium: apt-get install chromium")
    return shutil.which("chromium")


@pytest.fixture(scope="module")  # closed with its module: it runs an event loop, and there may be but one
def browser():
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser):
    "A page that notes what went wrong (`page.wrong`) and what it asked for (`page.asked`)."
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    page = context.new_page()
    page.wrong, page.asked = [], []
    page.on(
        "console", lambda message: page.wrong.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    context.close()


def show(page, path):
    "Open a file and wait until its formulas are set."
    page.goto(path.as_uri())
    page.evaluate("window.MathJax?.startup?.promise")


def pages_of(out):
    return [path for path in sorted(out.rglob("*.html")) if "files" not in path.relative_to(out).parts]


# ---- what is in it


def test_every_part_is_there(built):
    out, book = built
    assert book.problems == []
    for name in (
        "index",
        "start",
        "ledger",
        "plot",
        "notes",
        "data",
        "intended_use",
        "house",
        "api/library",
        "api/book",
        "api/metrics",
        *(f"chapters/{chapter}" for chapter in book.chapters),
        *(f"bench/{name}" for name in book.benches),
    ):
        assert (out / f"{name}.html").is_file(), name
    assert set(book.chapters) - set(book.missing) == {"ch3_han", "ch4_hdl", "ch5_nge"} and list(book.benches) == [
        "train"
    ]
    assert book.states["ch3_han"][2].startswith("run in desk, 20") and "quick" in book.states["ch4_hdl"][2]
    for chapter in book.missing:
        assert f"make reproduce CHAPTER={chapter}" in re.sub(
            r"<[^>]+>", "", (out / "chapters" / f"{chapter}.html").read_text()
        )


def test_links_resolve(built):
    out, _ = built
    ids = {path: set(re.findall(r'\sid="([^"]+)"', path.read_text(encoding="utf-8"))) for path in pages_of(out)}
    broken = []
    for path in ids:
        text = re.sub(r"<(script|pre)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r'\s(?:href|src)="([^"]+)"', text):
            address = urllib.parse.urlsplit(target)
            if address.scheme in ("http", "https", "data", "mailto"):
                continue
            found = (path.parent / urllib.parse.unquote(address.path)).resolve() if address.path else path
            whole = found.is_file() and (
                not address.fragment or found not in ids or urllib.parse.unquote(address.fragment) in ids[found]
            )
            broken += [] if whole else [f"{path.relative_to(out)}: {target}"]
    assert not broken


def test_results_name_their_cell_and_trials(built):
    out, book = built
    for page, run in book.runs.items():
        text = (out / f"{page}.html").read_text(encoding="utf-8")
        results = [cell.id for cell in run.notebook.cells if cell.cell_type == "code" and shows_result(cell)]
        behind = dict(re.findall(r'<div class="behind">From cell <a href="#cell-(\w+)">(.*?)</div>', text, re.S))
        assert list(behind) == results
        for name, study in run.studies.items():
            [line] = [line for line in behind.values() if re.search(rf"/{name}\.\w+\"", line)]
            assert set(re.findall(r'_trials.html#(\w+)"', line)) == set(study["trials"])
            assert all(f"/{file}" in line for file in ("studies.jsonl", "tables.md", "tables.html"))
    assert len(book.runs["chapters/ch3_han"].studies) == 4
    assert "all trials of this chapter" in (out / "chapters" / "ch3_han.html").read_text()  # of what is no study


def test_tables_can_be_downloaded(built):
    out, book = built
    run, files = book.runs["chapters/ch3_han"], out / "files" / "ch3_han"
    for name, study in run.studies.items():
        if study["cells"]:
            wanted = long_frame(study["cells"]).to_csv(index=False)
            assert (files / f"{name}.csv").read_text() == wanted
        for page in ("tables.md", "tables.html"):
            text = (files / page).read_text()
            assert f"{name}_claims" in text and (not study["cells"] or re.search(rf"{name}\b", text))
    assert (files / "costs.csv").read_text() == 'model,"FLOPs, M"\nHAN (Large),709\n'  # the run's, none that lay about
    assert "0.123456" in (out / "files" / "bench" / "train" / "step.csv").read_text()  # committed, all digits
    assert {path.name for path in files.iterdir()} >= {"trials.jsonl", "scores.npz", "studies.jsonl", "figures"}
    assert pd.read_csv(out / "files" / "ledger.csv").covered.sum() > 3


def test_every_trial_has_its_line(built):
    out, book = built
    text = (out / "chapters" / "ch3_han_trials.html").read_text(encoding="utf-8")
    assert len(re.findall(r'class="anchor" id="0[ab]0\d"', text)) == 8 and text.count("HAN (Small), plaza") == 8
    assert "toy processor" in text and "../files/ch3_han/trials.jsonl" in text
    assert "../files/ch4_hdl/quick/trials.jsonl" in (out / "chapters" / "ch4_hdl_trials.html").read_text()
    assert "This chapter has no trials" in (out / "chapters" / "ch5_nge_trials.html").read_text()


def test_gallery_leads_to_every_figure(built):
    out, book = built
    text = (out / "gallery.html").read_text(encoding="utf-8")
    for page, run in book.runs.items():
        cells = {
            cell.id
            for cell in run.notebook.cells
            if cell.cell_type == "code" and shows_result(cell, ("image/",)) and not cell.source.startswith("#| hide")
        }
        found = re.findall(rf'<li><a href="{page}.html#cell-([\w-]+)"><img src="([^"]+)"', text)
        assert {cell for cell, _ in found} == cells and all((out / path).stat().st_size for _, path in found), page
    assert text.count("<li><a href") == sum(map(len, book.pictures.values())) > 2


def test_a_page_leads_to_its_notebook(built):
    out, book = built
    for page, run in book.runs.items():
        text = (out / f"{page}.html").read_text(encoding="utf-8")
        said = re.search(r"This page as a notebook: (.*?)</p>", text, re.S).group(1)
        ran, source = ((out / page).parent / path for path in re.findall(r'href="([^"]+)" download', said))
        assert ran.read_bytes() == run.path.read_bytes()
        assert source.read_bytes() == (root / "nbs" / run.path.name).read_bytes()


def test_signs_are_explained_once_and_real_people_everywhere(built):
    text = (built[0] / "chapters" / "ch3_han.html").read_text(encoding="utf-8")
    for meaning in (list(SIGNS.values())[0], list(SIGNS.values())[1]):
        assert text.count(meaning) == 1
    records = [{"config": {"search": {"real people": {"video": "vtest"}}, "seed": seed}} for seed in (0, 1, 2)]
    one, three = (real_people_said(records[:n]) for n in (1, 3))
    assert one == "Real people (vtest): 7 who come back, one seed." and "3 seeds" in three
    assert real_people_said([{"config": {"search": {"budget": 3}}}, {"config": {}}]) == ""
    run = built[1].runs["chapters/ch3_han"]
    page = page_notebook(
        run, source=root / "nbs" / "ch3_han.ipynb", folder="nbs", place=lambda path: None, real_people=one
    )
    named = [cell for cell in run.notebook.cells if re.search(r"real people|vtest", str(cell.get("outputs", "")))]
    assert sum(one in cell.source for cell in page.cells) == len(named) > 1


CONFIGS = st.fixed_dictionaries(
    {
        "options": st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
        "recipe": st.fixed_dictionaries({"a": st.booleans()}),
    }
)


@given(st.lists(CONFIGS, min_size=1, max_size=6), st.integers(0, 3))
def test_trials_are_told_apart_by_what_differs(configs, seed):
    common = {"kind": "reid", "model": "han_small", "train": {"world": "plaza"}, "seed": seed}
    records = [{"trial": str(number), "config": common | config} for number, config in enumerate(configs)]
    said = differences(records)
    for one in records:
        for other in records:
            same = flat(one["config"]) == flat(other["config"])
            assert (said[one["trial"]] == said[other["trial"]]) == same
    if len({repr(flat(record["config"])) for record in records}) == 1:
        assert set(said.values()) == {""}  # seeds have a column


def test_gallery_escapes_its_words():
    assert 'alt="a &lt; b"' in gallery_html([("a.jpg", "b.html", "a < b")])


def test_the_house_has_every_room():
    table = re.findall(r"^\| (`.*?) \|", (root / "nbs" / "book" / "house.md").read_text(encoding="utf-8"), re.M)
    named = re.findall(r"`(\w+)`", " ".join(table))
    library = [path for path in (root / "scalable_arch").iterdir() if not path.name.startswith("_")]
    rooms = {path.stem for path in library if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms <= set(named) and len(named) == len(set(named))


def test_book_keeps_to_its_folder(built):
    out, _ = built
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_no_path_of_this_machine(built):
    out, _ = built
    assert not [
        path
        for path in [*pages_of(out), out / "searchindex.js"]
        if str(root) in path.read_text(encoding="utf-8") or str(out) in path.read_text(encoding="utf-8")
    ]


# ---- every page, wide by day and narrow by night

SEEN = """async () => {
  for (const image of document.images) { image.loading = 'eager'; await image.decode().catch(() => {}); }
  const said = [], heads = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')];
  const levels = heads.map((head) => Number(head.tagName[1])), first = levels.filter((level) => level === 1).length;
  if (first !== 1 || levels[0] !== 1) said.push('headings of the first level: ' + first);
  levels.forEach((level, place) => {
    if (place && level > levels[place - 1] + 1) said.push(`heading ${place} leaves out a level`);
  });
  for (const image of document.images) {
    if (!image.alt.trim()) said.push('no alt text: ' + image.src.slice(0, 80));
    if (!image.naturalWidth) said.push('not shown: ' + image.src.slice(0, 80));
  }
  const math = document.querySelectorAll('.math').length;
  const set = document.querySelectorAll('.math mjx-container').length;
  if (math !== set || document.querySelector('mjx-merror, [data-mjx-error]'))
    said.push(`${set} of ${math} formulas are set`);
  const named = (node) => node.textContent.trim() || node.getAttribute('aria-label') || node.labels?.length
    || node.title || node.placeholder || node.querySelector('img[alt]') || node.closest('nav, header, aside');
  for (const node of document.querySelectorAll('button, a[href], input, select'))
    if (!named(node)) said.push('no name: ' + node.outerHTML.slice(0, 80));
  if (document.documentElement.lang !== 'en') said.push('no language');
  return said;
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_pages_render(built, page):
    out, _ = built
    wrong = {}
    for path in pages_of(out):
        said = wrong.setdefault(str(path.relative_to(out)), [])
        page.set_viewport_size({"width": 1440, "height": 1000})
        page.emulate_media(color_scheme="light")
        show(page, path)
        said += page.evaluate(SEEN) if path.name != "search.html" else []  # Sphinx fills that one when asked
        for width, scheme in ((1440, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 844})
            page.emulate_media(color_scheme=scheme)
            background = sum(
                map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
            )
            said += [f"{width} pixels are too narrow"] if page.evaluate(OVERFLOW) > 0 else []
            said += [f"not {scheme}"] if (background > 384) != (scheme == "light") else []
        said += page.wrong
        page.wrong.clear()
    assert {name: said for name, said in wrong.items() if said} == {}
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []


def test_formulas_of_their_own_line(built):
    out, book = built
    for chapter in set(book.chapters) - set(book.missing):
        formulas = [
            formula
            for cell in book.runs[f"chapters/{chapter}"].notebook.cells
            if cell.cell_type == "markdown"
            for formula in re.findall(r"^\$\$.+?\$\$", cell.source, re.M | re.S)
        ]
        text = re.sub(
            r"<(pre|script)\b.*?</\1>",
            "",
            (out / "chapters" / f"{chapter}.html").read_text(encoding="utf-8"),
            flags=re.S,
        )
        assert (
            len(re.findall(r'<div class="math ', text)) == len(formulas) and "$$" not in text
        )  # that these are set, test_pages_render sees


CONTRAST = """() => {
  const colour = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) =>
    top.slice(0, 3).map((value, place) => value * top[3] + below[place] * (1 - top[3])).concat(1);
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4, share = [0.2126, 0.7152, 0.0722];
  const light = (rgb) => share.reduce((sum, part, place) => sum + part * linear(rgb[place] / 255), 0);
  const grounds = new Map();
  const ground = (node) => {
    if (!grounds.has(node)) {
      const own = colour(getComputedStyle(node).backgroundColor);
      grounds.set(node, own[3] === 1 || !node.parentElement ? own : over(own, ground(node.parentElement)));
    }
    return grounds.get(node);
  };
  const poor = new Map();
  for (const node of document.querySelectorAll('article *, .sidebar-drawer *')) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.checkVisibility() || node.closest('svg, mjx-container, .headerlink, .copybtn')) continue;
    const style = getComputedStyle(node), below = ground(node), size = parseFloat(style.fontSize);
    const [a, b] = [light(over(colour(style.color), below)), light(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    if (ratio < (large ? 3 : 4.5))
      poor.set(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`, node.textContent.trim().slice(0, 40));
  }
  return Object.fromEntries(poor);
}"""


def test_contrast(built, page):
    for name in ("index", "ledger", "plot", "chapters/ch3_han", "api/metrics"):
        show(page, built[0] / f"{name}.html")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(CONTRAST) == {}, (name, scheme)
    page.add_style_tag(content="article p { color: #666 !important }")
    assert page.evaluate(CONTRAST) != {}  # the measure sees grey on black


def test_first_page_is_light(built, page):
    show(page, built[0] / "index.html")
    files = {
        Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)) for url in page.asked if url.startswith("file:")
    }
    sizes = {path.name: path.stat().st_size for path in files if path.suffix not in (".jpg", ".png", ".svg")}
    assert "index.html" in sizes and sum(sizes.values()) < 300_000, sizes


def test_search_works_in_a_plain_folder(built, page):
    page.goto((built[0] / "search.html").as_uri() + "?q=harmonious")
    page.locator("#search-results li a").first.wait_for()
    assert any(
        "ch3_han" in link
        for link in page.locator("#search-results li a").evaluate_all("nodes => nodes.map((node) => node.href)")
    )
    assert page.wrong == []


# ---- what fits on a screen


def test_code_and_tables_take_the_width(built, page):
    show(page, built[0] / "chapters" / "ch3_han.html")
    line = "x" * 120
    widths = page.evaluate(
        """(line) => {
          const pre = document.querySelector('.cell_input pre'), before = pre.innerHTML;
          pre.textContent = line;
          const code = pre.scrollWidth - pre.clientWidth;
          pre.innerHTML = before;
          const prose = Math.max(...[...document.querySelectorAll('article section > p')].map((p) => p.clientWidth));
          return {code, article: document.querySelector('article').clientWidth, prose};
        }""",
        line,
    )
    assert widths["code"] <= 0  # a line as long as ruff lets it be
    assert widths["article"] > 900 and widths["prose"] <= 46 * 16
    past = "nodes => nodes.filter((node) => node.scrollWidth > node.clientWidth + 1).length"
    assert page.locator(".cell_output").evaluate_all(past) == 0


def test_on_a_phone_tables_are_cards_with_every_number(built, page):
    page.set_viewport_size({"width": 390, "height": 844})
    seen = """(cell) => {
      const box = cell.getBoundingClientRect(), inside = box.left >= 0 && box.right <= 390 && box.height > 0;
      return [cell.dataset.label ?? null, inside, cell.textContent.trim()];
    }"""
    for name, table, labels in (
        ("chapters/ch3_han", "#T_wei_li_thesis_t3_03", {"plaza, stand-in for Market-1501, R1 ours"}),
        ("chapters/ch3_han", "#T_wei_li_thesis_t3_03_claims", {"estimate", "D", "rests on", "printed"}),
        ("ledger", "table.ledger", {"verdicts", "printed digits met, of computed"}),
        ("chapters/ch3_han_trials", "table.sortable", {"scores or errors, %", "seed"}),
    ):
        show(page, built[0] / f"{name}.html")
        cells = page.locator(f"{table} tbody td").evaluate_all(f"nodes => nodes.map({seen})")
        assert all(visible for _, visible, words in cells if words), (name, table)
        assert labels <= {label for label, _, words in cells if words}
    show(page, built[0] / "ledger.html")
    page.set_viewport_size({"width": 1440, "height": 844})  # a phone that is turned, or a window that is drawn wide
    assert page.locator("table.cards").count() == 0 and page.locator("table.ledger thead").is_visible()


def test_a_card_says_whose_line_it_is(built, page):
    "A claim of several relations is named on the card of each."
    page.set_viewport_size({"width": 390, "height": 844})
    show(page, built[0] / "chapters" / "ch3_han.html")
    rows = page.locator("#T_wei_li_thesis_t3_03_claims tbody tr")
    of = rows.evaluate_all("nodes => nodes.map((row) => [row.dataset.of ?? null, row.cells[0].rowSpan])")
    first = rows.first.locator("th").first.inner_text()
    assert of[0][0] is None and of[0][1] == len(of) > 1 and {said for said, _ in of[1:]} == {first}


def test_pictures_are_enlarged_by_a_click_and_by_the_keyboard(built, page):
    show(page, built[0] / "chapters" / "ch3_han.html")
    button = page.locator(".cell_output button.zoom").first
    assert button.get_attribute("aria-label").startswith("Enlarge: ")
    before = button.locator("img").bounding_box()["width"]
    button.click()
    large = page.locator("dialog.zoomed img")
    assert large.bounding_box()["width"] > before
    page.keyboard.press("Escape")
    assert page.locator("dialog").count() == 0
    button.focus()
    page.keyboard.press("Enter")
    page.locator("dialog.zoomed button").click()
    assert page.locator("dialog").count() == 0 and page.evaluate("document.activeElement.className") == "zoom"
    assert page.wrong == []


def test_code_has_a_copy_button_and_results_have_none(built, page):
    show(page, built[0] / "chapters" / "ch3_han.html")
    inputs = page.locator(".cell_input pre").count()
    assert page.locator(".cell_input .copybtn").count() == inputs > 10
    assert page.locator(".cell_output .copybtn").count() == 0


# ---- what readers play with


def test_ranked_lists_follow_the_pointer_and_the_keyboard(built, page):
    show(page, built[0] / "chapters" / "ch3_han.html")
    shown = lambda: page.locator(".ranked [data-matches]:visible").evaluate_all(
        "nodes => nodes.map((node) => node.dataset.matches)"
    )
    buttons = page.locator(".ranked button")
    assert buttons.count() == 6 and shown() == ["1"]
    buttons.nth(3).hover()
    assert shown() == ["4"] and buttons.nth(3).get_attribute("aria-pressed") == "true"
    buttons.nth(0).focus()
    page.keyboard.press("Tab")
    assert shown() == ["2"] and page.locator('.ranked button[aria-pressed="true"]').count() == 1


def test_attention_levels_can_be_switched(built, page):
    show(page, built[0] / "chapters" / "ch3_han.html")
    assert page.locator(".levels img:visible").count() == 7
    page.locator(".levels input").nth(1).focus()
    page.keyboard.press("Space")
    assert page.locator(".levels img:visible").evaluate_all("nodes => nodes.map((node) => node.alt)") == [
        "image",
        "hard attention, level 1",
        "soft attention, level 1",
        "hard attention, level 3",
        "soft attention, level 3",
    ]
    page.keyboard.press("Space")
    assert page.locator(".levels img:visible").count() == 7


def test_ledger_sorts_and_filters(built, page):
    show(page, built[0] / "ledger.html")
    rows = page.locator("table.ledger tbody tr")
    total, first = rows.count(), rows.first.inner_text()
    assert total == 83 + 38
    head = page.locator("table.ledger thead th").nth(2)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    shares = page.locator("table.ledger tbody tr td:nth-child(3)").evaluate_all(
        "nodes => nodes.map((node) => Number(node.dataset.sort ?? -1))"
    )
    filled = [share for share in shares if share >= 0]
    assert head.get_attribute("aria-sort") == "ascending" and filled == sorted(filled)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and rows.first.inner_text() != first
    open_text = """nodes => nodes.map((node) => [...node.cells].map((cell) => [...cell.childNodes]
        .filter((part) => part.tagName !== 'DETAILS').map((part) => part.textContent).join('')).join(' '))"""
    texts = [text.lower() for text in rows.evaluate_all(open_text)]
    visible = page.locator("table.ledger tbody tr:visible")
    for asked, patterns in (
        ("Table HAN, supported", (r"\btable", r"\bhan", r"\bsupported")),
        ("undecided", (r"\bundecided",)),
        ("HAN", (r"\bhan",)),
    ):
        wanted = [
            text for text in texts if all(re.search(pattern, text) for pattern in patterns)
        ]  # neither "channel" nor "than", nor what is folded away
        page.locator(".filter input").fill(asked)
        assert 0 < visible.count() == len(wanted) < total, asked
        assert f"{len(wanted)} of {total}" in page.locator(".filter").inner_text()
    page.locator(".filter input").fill("claim supported")
    told = [text for text in texts if re.search(r"\d (structural )?claims? supported", text)]
    assert visible.count() == len(told) > 0
    visible.first.locator("summary").first.click()
    assert "[Global+Local] >" in visible.first.locator("details[open]").inner_text()
    assert re.search(r"\+\d+\.\d \[\+\d", visible.first.locator("details[open]").inner_text())  # with its interval


def test_plot_shows_all_models_by_data_set(built, page):
    show(page, built[0] / "plot.html")
    points = json.loads(page.locator(".scatter script").text_content())["points"]
    printed = [point for point in points if point["whose"] != "ours"]
    assert len(printed) == len(all_points([])) and any(point["whose"] == "ours" and point["data"] for point in points)
    choose = lambda name: page.locator(f'.scatter [data-choice="{name}"]')
    for dataset, metric, measure in (("Market-1501", "mAP", "FLOPs"), ("CIFAR-10", "Error_C10", "Params_M")):
        for name, value in (("dataset", dataset), ("metric", metric), ("measure", measure)):
            choose(name).select_option(value)
        wanted = [
            point
            for point in points
            if (point["dataset"], point["metric"], point["measure"]) == (dataset, metric, measure)
        ]
        assert page.locator(".scatter .mark").count() == len(wanted) == page.locator(".points tbody tr").count() > 10
    choose("dataset").select_option("Market-1501")
    choose("measure").select_option("FLOPs")
    before = page.locator(".scatter .mark.ours").count()
    choose("ours").uncheck()
    assert before > 0 == page.locator(".scatter .mark.ours").count()
    choose("ours").check()
    page.locator(".scatter .mark.ours").first.focus()
    assert page.locator(".scatter .ring.shown").is_visible()
    assert "our stand-in" in page.locator(".scatter .about").inner_text() and page.locator(
        ".scatter .mark.ours"
    ).first.get_attribute("aria-label")
    for mark in page.locator(".scatter .mark").all():  # also of those that lie on one another
        place = mark.bounding_box()
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        assert mark.get_attribute("aria-label") in page.locator(".scatter .about").inner_text()


# ---- bad input


@pytest.fixture
def copy(tmp_path):
    "A checkout of its own with two chapters, one of them run, and its reports."
    for name in (
        "nbs/book",
        "scalable_arch/errors.py",
        "scalable_arch/intended_use.md",
        "settings.ini",
        "nbs/index.ipynb",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, tmp_path / name)
    (tmp_path / "scalable_arch" / "__init__.py").write_text('"Toy."\n')
    cells = [
        nbformat.v4.new_markdown_cell(
            "# Chapter 1. Toys: small things\n\n> They are small.\n\n## 7. Reading notes\n\nAmbiguous $x$."
        ),
        nbformat.v4.new_code_cell("1 + 1"),
    ]
    toy = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    )
    for name in ("ch1_toys", "ch2_none"):
        nbformat.write(toy, tmp_path / "nbs" / f"{name}.ipynb")
    for profile in ("quick", "smoke"):  # `desk` writes into the chapter's folder itself
        run = tmp_path / "reports" / "ch1_toys" / profile / "ch1_toys.ipynb"
        run.parent.mkdir(parents=True)
        nbformat.write(toy, run)
    return tmp_path


def test_chapter_without_a_run_and_a_broken_one(copy, monkeypatch, capsys):
    monkeypatch.setattr(module, "checkout_root", lambda: copy)
    monkeypatch.setattr(module, "report_dir", lambda: copy / "reports")
    desk = copy / "reports" / "ch1_toys" / "ch1_toys.ipynb"
    desk.write_text((copy / "nbs" / "ch1_toys.ipynb").read_text()[:200])
    main(copy / "_book")
    said = capsys.readouterr()
    assert (
        "reports/ch1_toys/ch1_toys.ipynb is no notebook that can be read" in said.err
        and "not run yet: ch2_none" in said.err
        and said.err.count("\n") == 2
    )
    assert str(copy / "_book" / "index.html") in said.out
    words = lambda name: re.sub(r"<[^>]+>", "", (copy / "_book" / name).read_text())
    assert "They are small." in words("chapters/ch1_toys.html") and "1 + 1" in words(
        "chapters/ch1_toys.html"
    )  # its run in quick is shown
    assert "make reproduce CHAPTER=ch2_none" in words("chapters/ch2_none.html")
    assert words("notes.html").count("Ambiguous") == 2 and "Chapter 1. Toys" in words("index.html")  # the rest is built


def test_run_that_stopped_with_an_error_is_named(copy, tmp_path):
    run = copy / "reports" / "ch1_toys" / "quick" / "ch1_toys.ipynb"
    notebook = nbformat.read(run, as_version=4)
    notebook.cells[1].outputs = [
        nbformat.v4.new_output("error", ename="OSError", evalue="the roof is leaking", traceback=[])
    ]
    nbformat.write(notebook, run)
    book = Book(copy, copy / "reports", tmp_path / "sources")
    gather(book)
    assert (
        len(book.problems) == 1
        and "OSError: the roof is leaking" in book.problems[0]
        and notebook.cells[1].id in book.problems[0]
    )
    assert book.states["ch1_toys"][2] == "broken run" and (tmp_path / "sources" / "ledger.md").is_file()
    assert (
        "cannot be shown" in (said := (tmp_path / "sources" / "chapters" / "ch1_toys.md").read_text())
        and "the roof is leaking" in said
    )


@pytest.mark.parametrize("damaged", ["[]", '{"study": "a', "{}", '{"study": "wei_li_thesis_t3_03", "cell": {}}'])
def test_damaged_study_is_named_and_the_rest_is_built(copy, tmp_path, damaged):
    study = copy / "reports" / "ch1_toys" / "quick" / "studies.jsonl"
    study.write_text(damaged)
    run = study.parent / "ch1_toys.ipynb"
    notebook = nbformat.read(run, as_version=4)
    notebook.cells[1].outputs = [
        nbformat.v4.new_output(
            "display_data",
            data={"text/html": '<table id="T_wei_li_thesis_t3_03"><tr><td>91.6</td></tr></table>'},
        )
    ]
    nbformat.write(notebook, run)
    book = Book(copy, copy / "reports", tmp_path / "sources")
    gather(book)
    assert len(book.problems) == 1 and study.name in book.problems[0] and "not counted" in book.problems[0]
    page = (tmp_path / "sources" / "chapters" / "ch1_toys.ipynb").read_text()
    assert "From cell" in page and "wei_li_thesis_t3_03.csv" in page  # the table is still known by its name


def test_a_page_says_where_its_notebook_reads_otherwise_by_now(copy, tmp_path):
    first = lambda: (
        gather(book := Book(copy, copy / "reports", tmp_path / "sources")),
        (tmp_path / "sources" / book.source("chapters/ch1_toys")).read_text(),
    )[1]
    assert "since this was run" not in first()
    source = copy / "nbs" / "ch1_toys.ipynb"
    notebook = nbformat.read(source, as_version=4)
    notebook.cells[1].source = "1 + 2"
    nbformat.write(notebook, source)
    assert "1 of its cells reads otherwise in <code>ch1_toys.ipynb</code> since this was run." in first()


def test_best_profile_counts_and_smoke_never_does(copy):
    assert executed_runs(copy / "reports", "ch1_toys")[0].parent.name == "quick"
    shutil.rmtree(copy / "reports" / "ch1_toys" / "quick")
    assert executed_runs(copy / "reports", "ch1_toys") == []


def test_missing_extra_and_wrong_folders_say_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds something that is no book"):
        build_book(tmp_path, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    with pytest.raises(FileNotFoundError, match="there is no folder of reports"):
        build_book(tmp_path / "nowhere", tmp_path / "_book")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(tmp_path / "_book")
    assert "pip install -e '.[docs]'" in stop.value.code and "\n" not in stop.value.code
    monkeypatch.setattr(module, "find_spec", lambda name: True)
    monkeypatch.setattr(module, "checkout_root", lambda: None)
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        build_book(out=tmp_path / "_book")


# ---- the parts


@given(st.lists(st.booleans(), min_size=4, max_size=60), st.integers(1, 4))
def test_cuts_lie_in_the_nearest_white(white, parts):
    white = np.array(white)
    places = cut_places(white, parts)
    assert len(places) == parts + 1 and places[0] == 0 and places[-1] == len(white) and places == sorted(places)
    for number in range(1, parts):
        even = round(number * len(white) / parts)
        free = np.flatnonzero(white)
        nearest = min(free, key=lambda at: (abs(at - even), at), default=None)
        if nearest is not None and 4 * abs(nearest - even) <= len(white) / parts:  # a gap far off is none
            low = max((at + 1 for at in range(nearest) if not white[at]), default=0)
            high = min((at for at in range(nearest, len(white)) if not white[at]), default=len(white))
            assert places[number] == (low + high) // 2
        else:
            assert places[number] == even


def test_cut_panels_join_to_the_whole():
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    pixels[[9, 10, 20]], pixels[:, [13, 14, 27]] = 255, 255
    cells = cut_picture(Image.fromarray(pixels), 3, 3)
    assert np.array_equal(np.vstack([np.hstack([np.asarray(cell) for cell in row]) for row in cells]), pixels)


def test_formulas_and_links_leave_code_alone():
    assert formulas_apart("a\n$$x$$\nb\n```\n$$y$$\n```\n") == "a\n\n$$x$$\n\nb\n```\n$$y$$\n```"
    place = {
        "nbs/ch3_han.ipynb": "chapters/ch3_han.ipynb",
        "nbs/ch4_hdl.ipynb": "chapters/ch4_hdl.md",
    }.get  # the second was not run: its page has no such heading
    text = (
        "[a](ch3_han.ipynb#8.-Use-it) [a](ch4_hdl.ipynb#8.-Use-it) `f[0](ch3_han.ipynb)` $s[1](2)$ "
        "[b](https://example.org) [c](gone.ipynb) ![d](../nbs/ch3_han.ipynb)"
    )
    assert relink(text, "nbs", place) == (
        "[a](chapters/ch3_han.ipynb#8-use-it) [a](chapters/ch4_hdl.md) "
        "`f[0](ch3_han.ipynb)` $s[1](2)$ [b](https://example.org) c ![d](chapters/ch3_han.ipynb)"
    )


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40).filter(
        lambda text: "`" not in text and "  " not in text.strip()
    )
)
def test_docstrings_mean_what_they_say(text):
    from html import unescape

    from markdown_it import MarkdownIt

    words = "x " + text.strip().replace("&", "and")  # no block of its own begins in the middle of a line
    if re.search(r"(?<!\S)\*\w[^*\n]*\w\*(?!\w)", words):
        return
    shown = unescape(re.sub(r"</?p>", "", MarkdownIt().render(docstring_markdown(words)))).strip()
    assert shown == words.strip()


def test_reference_has_the_signatures_of_the_library(built):
    out, _ = built
    for name in ("scalable_arch.metrics.retrieval", "scalable_arch.train.loop", "scalable_arch.nn.cost"):
        text = (out / "api" / f"{name.split('.')[1]}.html").read_text(encoding="utf-8")
        loaded = import_module(name)
        tree = ast.parse(Path(loaded.__file__).read_text(encoding="utf-8"))
        public = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name in loaded.__all__ and ast.get_docstring(node)
        ]
        assert public
        for function in public:
            entry = re.search(rf'id="{re.escape(name)}\.{function}">(.*?)</dt>', text, re.S)
            assert entry, f"{name}.{function}"
            words = re.sub(r"<[^>]+>", "", entry.group(1))
            assert all(parameter in words for parameter in inspect.signature(getattr(loaded, function)).parameters)


def test_page_keeps_ids_and_drops_directives(built):
    run = ExecutedRun(built[1].runs["chapters/ch3_han"].path)  # as it was before the book was built
    before = nbformat.writes(run.notebook)
    page = page_notebook(run, source=root / "nbs" / "ch3_han.ipynb", folder="nbs", place=lambda path: None)
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    assert {cell.id for cell in code} <= {cell.id for cell in run.notebook.cells} and not any(
        re.search(r"^#\|", cell.source, re.M) for cell in code
    )
    pictures = [cell for cell in code if shows_result(cell, ("image/",))]
    assert len(pictures) == 3 and all(len(cell.metadata["mystnb"]["image"]["alt"]) > 15 for cell in pictures)
    assert nbformat.writes(run.notebook) == before  # others read it too


@pytest.mark.parametrize("place", ["", "figures/"])
def test_figures_are_found_beside_and_in_their_folder(copy, place):
    path = copy / "reports" / "ch1_toys" / "quick" / "ch1_toys.ipynb"
    picture = path.parent / f"{place}ranked_lists.jpg"
    assert ExecutedRun(path).figure("ranked_lists") is None
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"")
    assert ExecutedRun(path).figure("ranked_lists") == picture


LEVELS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=5, unique=True)


@given(LEVELS, LEVELS)
def test_tables_are_read_as_they_were_written(rows, columns):
    values = np.arange(len(rows) * len(columns)).reshape(len(rows), len(columns))
    index = pd.MultiIndex.from_tuples(rows, names=["row", "group"])
    frame = pd.DataFrame(values, index=index, columns=pd.MultiIndex.from_tuples(columns))
    said, read = read_table(frame.style.set_caption("1 < 2 & 3").to_html())
    assert list(read) == ["row", "group", *map(" ".join, columns)]
    assert read.iloc[:, :2].apply(tuple, axis=1).to_list() == rows
    assert read.iloc[:, 2:].astype(int).to_numpy().tolist() == values.tolist()


def test_tables_of_any_shape_are_read():
    assert read_table("<table><caption>None</caption></table>")[1].empty
    assert read_table("<table><tr><td>1</td></tr><tr><td>2</td><td>3</td></tr></table>")[1].iloc[0].to_list() == [
        "1",
        "",
    ]


def test_verdicts_are_coloured_and_texts_escaped():
    assert verdict_html("+2.1 [+0.4, +3.9] supported") == '+2.1 [+0.4, +3.9] <span class="v good">supported</span>'
    assert verdict_html("undecided (a < b)") == '<span class="v open">undecided (a &lt; b)</span>'
    assert verdict_html("not run") == "not run" and verdict_html("a < b") == "a &lt; b" and verdict_html("") == ""


def test_examples_stay_code_and_words_stay_words():
    text = (
        "A *new* model <of> two:\n\n>>> f(\"a\")\n'b'\n>>> with x:\n...     g()\n\nAnd after_wards.\n\n"
        ">>> 1\n1\n\nThe end."
    )
    assert docstring_markdown(text) == (
        "A *new* model \\<of\\> two:\n\n```pycon\n>>> f(\"a\")\n'b'\n>>> with x:\n...     g()\n```\n\nAnd "
        "after\\_wards.\n\n"
        "```pycon\n>>> 1\n1\n```\n\nThe end."
    )


def test_reference_begins_with_what_a_room_offers():
    pages = room_pages(root / "scalable_arch", lambda notebook, cell: None)
    assert (
        "from scalable_arch import create_model, list_models, load, save\n```\n\n```{py:module} scalable_arch.models"
        in pages["library"]
    )
    for room in ("data", "metrics", "train"):
        block = re.search(r"```python\n(.*?)```", pages[room], re.S).group(1)
        names = {}
        exec(block, names)  # the import works as it stands there
        assert (
            set(import_module(f"scalable_arch.{room}").__all__) <= set(names)
            and max(map(len, block.splitlines())) <= 100
        )


def test_pictures_on_record_are_cut_between_their_panels():
    "JPEG leaves no pure white between panels, and a gap that is far from an even share is none."
    for name, columns in (("ranked_lists", 11), ("wei_li_thesis_f3_07", 7)):
        picture = Image.open(root / "reports/ch3_han/figures" / f"{name}.jpg")
        white = (np.asarray(picture.convert("L")) > WHITE).all(0)
        widths = np.diff(cut_places(white, columns))
        assert abs(widths - widths.mean()).max() < 0.15 * widths.mean()
    assert cut_places(np.arange(100) < 3, 4) == [0, 25, 50, 75, 100]
