"""The page to write on: driven in Python, and in a real browser where there is one."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from cantolyric.errors import MissingDependencyError
from cantolyric.reading import default_reader
from cantolyric.template.html import contour_svg, line_html
from cantolyric.template.template import ToneTemplate
from cantolyric.writing.lyricist import Lyricist
from cantolyric.writing.session import Session
from cantolyric.writing.widget import LyricWidget

ROOT = Path(__file__).resolve().parent.parent
TONES = "0243324/3324043/0243"


@pytest.fixture(scope="module")
def lyricist():
    torch.set_num_threads(1)
    return Lyricist.from_pretrained(adapter="none")


@pytest.fixture
def page(lyricist):
    pytest.importorskip("ipywidgets")
    return LyricWidget(lyricist, tones=TONES, seed=3)


def click(page, name):
    "Click a button by what stands on it, and wait for what it starts."
    b = next(b for b in [*page.buttons.values(), *page.row_buttons] if b.description == name and hasattr(b, "click"))
    assert not b.disabled, f"{name} is off"
    b.click()
    assert page.wait(60)


def field(page, name):
    return next(b for b in page.row_buttons if b.description == name and hasattr(b, "value"))


def test_a_song_is_written_by_clicks(page):
    for k, number in enumerate((1, 2, 1)):
        click(page, "Write") if not k else None
        assert len(page.candidate_box.children) == 5 and page.session.line_index == k
        line = page.session.candidates[number - 1].lines[k]
        click(page, f"Keep {number}")
        assert page.session.lines[k] == line
    assert (
        page.session.done
        and not page.session.candidates
        and page.session.song.report.ok
        and "complete" in page.status.value
    )
    assert (
        sum(line in page.song_box.children[1 + 2 * k].value for k, line in enumerate(page.session.lines)) == 0
    )  # characters stand in cells
    assert all(c in page.song_box.children[1].value for c in page.session.lines[0])


def test_the_same_seed_and_clicks_write_the_same_song(page, lyricist):
    other = LyricWidget(lyricist, tones=TONES, seed=3)
    for p in (page, other):
        for name in ("Write", "Keep 1", "Other candidates", "Keep 2"):
            click(p, name)
    assert page.session.lines == other.session.lines and [c.text for c in page.session.candidates] == [
        c.text for c in other.session.candidates
    ]
    third = LyricWidget(lyricist, tones=TONES, seed=4)
    click(third, "Write")
    click(third, "Keep 1")
    assert third.session.lines[0] != page.session.lines[0]


def test_undo_brings_the_candidates_back(page):
    click(page, "Write")
    before = [c.text for c in page.session.candidates]
    click(page, "Keep 2")
    click(page, "Undo")
    assert (
        page.session.lines == []
        and [c.text for c in page.session.candidates] == before
        and page.buttons["undo"].disabled
    )
    click(page, "Write")  # starts anew; undo brings the old song back
    old = page.older_sessions[-1]
    click(page, "Undo")
    assert page.session is old


def test_a_kept_line_is_rewritten_and_edited(page):
    for name in ("Write", "Keep 1", "Keep 1"):
        click(page, name)
    first, second = page.session.lines
    click(page, "Rewrite 1")
    assert page.session.line_index == 0 and all(
        c.lines[1] == second and c.lines[0] != first for c in page.session.candidates
    )
    click(page, "Keep 1")
    assert page.session.lines[1] == second and page.session.lines[0] != first and len(page.session.lines) == 2
    field(page, "Line 1").value = "今晚落緊大雨啦"
    assert (
        page.session.lines[0] == "今晚落緊大雨啦"
        and "slots do not fit" in page.status.value
        and "✗ not" in page.song_box.children[1].value
    )
    click(page, "Undo")
    field(page, "Line 1").value = ""
    assert "role='alert'" in page.status.value and page.session.lines[0] != ""


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("topic", "", "empty"),
        ("tones", "024x", "column 4"),
        ("tones", "", "no line"),
        ("rhyme", "oung", "oung"),
        ("rhyme", "AB", "2 letters for 3 lines"),
        ("words", "月光月光月光", "no place"),
        ("words", "abc", "Chinese characters"),
    ],
)
def test_a_wrong_field_says_so_beside_itself(page, name, value, says):
    page.fields[name].value = value
    assert (
        says in page.notes[name].value and "role='alert'" in page.notes[name].value and page.buttons["write"].disabled
    )
    assert not any("alert" in n.value for other, n in page.notes.items() if other != name)


def test_what_goes_wrong_is_shown_and_the_buttons_come_back(page, monkeypatch):
    monkeypatch.setattr(Session, "ask", lambda *_: 1 / 0)
    click(page, "Write")
    assert (
        "ZeroDivisionError" in page.status.value
        and "role='alert'" in page.status.value
        and not page.busy
        and not page.buttons["write"].disabled
    )


def test_while_it_writes_every_button_is_off(page, monkeypatch):
    seen, ask = [], Session.ask
    monkeypatch.setattr(
        Session,
        "ask",
        lambda self, line=None: seen.append([b.disabled for b in page.buttons.values()]) or ask(self, line),
    )
    click(page, "Write")
    assert seen == [[True] * 5] and not page.buttons["write"].disabled


def test_export(page):
    for name in ("Write", "Keep 1", "As text"):
        click(page, name)
    assert page.export_box.children[0].value == page.session.lines[0] + "\n"
    click(page, "As JSON")
    data = json.loads(page.export_box.children[0].value)
    assert data["lines"] == page.session.lines and data["ok"] and data["done"] is False and data["got"] == ["0243324"]
    link = page.export_box.children[1].value
    assert base64.b64decode(link.split("base64,")[1].split("'")[0]).decode() == page.export_box.children[0].value


def test_rhyme_and_words_of_the_form_are_kept_to(page):
    page.fields["rhyme"].value, page.fields["words"].value = "A-A", "雨"
    for name in ("Write", "Keep 1", "Keep 1", "Keep 1"):
        click(page, name)
    report = page.session.song.report
    assert report.ok and "雨" in page.session.text and all(r.right for r in report.rhymes if r)


def test_every_field_has_a_label_and_every_button_a_tip(page):
    assert all(f.description for f in page.fields.values()) and all(
        b.description and b.tooltip for b in page.buttons.values()
    )
    assert page._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]


def test_no_ipywidgets_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingDependencyError) as e:
        LyricWidget()
    assert (e.value.package, e.value.extra) == ("ipywidgets", "course") and "pip install" in str(e.value)


def test_the_contour_names_what_is_wanted_and_got():
    line = ToneTemplate.parse("0[24]*3").check("零雨夜三", default_reader()).lines[0]
    svg = contour_svg(line)
    assert (
        "aria-label='wanted 0 [24] * 3, got 0 4 2 3'" in svg and svg.count("<circle") == 4 and svg.count("h38") == 4
    )  # 0; 2 and 4; none for *; 3
    wrong = ToneTemplate.parse("33").check("三零").lines[0]
    assert "✗ not 3" in line_html(wrong) and "fill='none' stroke='currentColor' stroke-width='2'" in contour_svg(wrong)
    assert "<script>" not in line_html(ToneTemplate.parse("3").check("<").lines[0] or [])


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    "JupyterLab with a notebook that shows the page, and Chromium looking at it."
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    pytest.importorskip("jupyterlab")
    chrome, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chrome or not driver:
        pytest.skip("chromium and chromedriver are not on the PATH")
    folder, port = tmp_path_factory.mktemp("lab"), _free_port()
    source = (
        "from cantolyric import Lyricist\n"
        f"Lyricist.from_pretrained(adapter='none').widget(topic='', tones='{TONES}', seed=3)"
    )
    cell = dict(cell_type="code", id="a", metadata={}, source=source, outputs=[], execution_count=None)
    kernel = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    (folder / "page.ipynb").write_text(json.dumps(dict(cells=[cell], metadata=kernel, nbformat=4, nbformat_minor=5)))
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for a in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'chrome'}",
        "--window-size=1200,1600",
    ):
        options.add_argument(a)
    window = None
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        window = webdriver.Chrome(service=webdriver.ChromeService(driver), options=options)
        window.get(f"http://127.0.0.1:{port}/doc/tree/page.ipynb?reset")
        yield window
    finally:
        if window:
            window.quit()
        server.terminate()  # its kernels go with it
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.mark.slow
def test_in_a_real_browser(browser, tmp_path):
    "Type, write, keep, next, undo, edit, export; nothing of it through Python."
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    until = lambda f, seconds=90: WebDriverWait(browser, seconds, ignored_exceptions=[Exception]).until(lambda d: f(d))
    one = lambda path: browser.find_element(By.XPATH, path)
    button = lambda name: f"//button[normalize-space()='{name}']"
    box = lambda label: f"//label[text()='{label}']/..//*[self::input or self::textarea or self::select]"
    shots = Path(os.environ["WIDGET_SHOTS"]) if "WIDGET_SHOTS" in os.environ else tmp_path

    def push(name):
        until(lambda d: one(button(name)).is_enabled())
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", one(button(name)))
        one(button(name)).click()

    text = lambda: one("//body").text

    until(lambda d: one("//div[contains(@class,'cm-content')]"))
    until(
        lambda d: one("//*[contains(@class,'jp-Notebook-ExecutionIndicator') and @data-status='idle']")
    )  # the kernel is up
    time.sleep(1)
    webdriver.ActionChains(browser).move_to_element(
        one("//*[contains(@class,'jp-Notebook')]//*[contains(@class,'cm-line')]")
    ).click().perform()
    webdriver.ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    until(lambda d: one(box("Topic")), 120)
    until(lambda d: "topic is empty" in text())  # said beside the field, before anything is typed
    assert not one(button("Write")).is_enabled()

    one(box("Topic")).send_keys("夜雨")
    one(box("Tones")).send_keys("x")  # TONES + "x"
    until(lambda d: "line 3, column 5 of the template" in text())
    one(box("Tones")).send_keys(Keys.BACKSPACE)
    until(lambda d: "3 lines of 7, 7, 4 slots" in text())
    push("Write")
    until(lambda d: "keep one" in text() and one(button("Keep 4")).is_enabled())
    assert len(browser.find_elements(By.CSS_SELECTOR, "svg[role=img]")) >= 4 and browser.find_elements(
        By.CSS_SELECTOR, "span[lang=yue]"
    )
    browser.save_screenshot(str(shots / "desk.png"))
    kept = lambda n: one(box(f"Line {n}")).get_attribute("value")
    push("Keep 2")
    until(lambda d: "Candidates for line 2" in text() and len(kept(1)) == 7)
    first = kept(1)
    push("Keep 1")
    until(lambda d: "Candidates for line 3" in text())
    push("Undo")
    until(lambda d: "Candidates for line 2" in text() and not d.find_elements(By.XPATH, box("Line 2")))
    push("Keep 3")
    until(lambda d: "Candidates for line 3" in text() and one(button("Keep 1")).is_enabled())
    push("Keep 1")
    until(lambda d: "the song is complete" in text() and kept(3))
    push("Rewrite 1")
    until(lambda d: "Candidates for line 1" in text() and one(button("Keep 1")).is_enabled())
    assert kept(1) == first
    one(box("Line 1")).send_keys(Keys.BACKSPACE, "雨", Keys.ENTER)
    until(lambda d: "line 1:" in text())
    assert kept(1) == first[:-1] + "雨"
    push("As JSON")
    data = until(lambda d: json.loads(one(box("Song")).get_attribute("value")))
    assert data["topic"] == "夜雨" and data["lines"] == [kept(1), kept(2), kept(3)] and data["done"]
    browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", one(box("Topic")))
    browser.save_screenshot(str(shots / "song.png"))

    push("Rewrite 2")
    until(lambda d: "Candidates for line 2" in text() and one(button("Keep 1")).is_enabled())
    browser.set_window_size(400, 1800)  # a phone's width
    time.sleep(2)
    over = browser.execute_script(
        "return [...document.querySelectorAll('.jp-OutputArea-output .widget-box')]"
        ".filter(b => b.scrollWidth > b.clientWidth + 2).length"
    )
    assert not over, f"{over} boxes are wider than a phone"
    browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", one(box("Topic")))
    browser.save_screenshot(str(shots / "phone.png"))
