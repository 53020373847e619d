"""Is a built site whole, and does it need nothing from elsewhere?

python docs/check.py FOLDER

It says what is wrong and where, and ends with status 1: a request to another host, a link or anchor that leads nowhere,
an image without alternative text, a line for nbdev that is still seen, a lesson, module or solution that is missing, a
word that the search does not know.
"""

import html.parser
import json
import posixpath
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))
import api
from source import ROOT, lessons

LOADED = {
    ("img", "src"),
    ("script", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("audio", "src"),
    ("video", "src"),
    ("embed", "src"),
    ("img", "srcset"),
    ("object", "data"),
    ("input", "src"),
    ("video", "poster"),
    ("image", "href"),
    ("use", "href"),
}
CSS_URL = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")
# Scripts ask for data by these; the address has to be the site's own.
SCRIPT_URL = re.compile(
    r"""(?:fetch|import|importScripts|open|src\s*=|new Worker|new WebSocket)"""
    r"""\s*\(?\s*["'`]((?:https?:|wss?:)?//[^"'`]+)"""
)
SEARCHED = ["夜雨", "聲調", "雨", "n0243"]  # in the index, as docs/han.py cuts them


class Page(html.parser.HTMLParser):
    "What a page loads and links to, which anchors it has, and what is wrong in itself."

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.links, self.ids, self.wrong, self.style, self.seen = [], [], set(), [], False, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.style = tag == "style"
        if "id" in a:
            self.ids.add(a["id"])
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if (
            tag == "link"
            and a.get("href")
            and a.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload")
        ):
            self.loads.append(a["href"])
        self.loads += [a[name] for kind, name in LOADED if kind == tag and a.get(name)]
        self.loads += css(a.get("style") or "")
        if tag == "img" and not (a.get("alt") or "").strip():
            self.wrong.append(f"an image without alternative text: {(a.get('src') or '')[:60]}")

    def handle_data(self, data):
        if self.style:
            self.loads += css(data)
        else:
            self.seen.append(data)

    def handle_endtag(self, tag):
        self.style = False


def css(text: str) -> list:
    "What a style sheet loads."
    return [a or b for a, b in CSS_URL.findall(text)]


def elsewhere(address: str) -> bool:
    "Is it on another host?"
    return bool(urlsplit(address).netloc) or address.startswith("//")


def requests(site: Path, pages: dict) -> list:
    "Requests to other hosts, of pages, style sheets and scripts."
    wrong = [f"{name} loads {u}" for name, page in pages.items() for u in page.loads if elsewhere(u)]
    for file in sorted(site.rglob("*.css")):
        wrong += [f"{file.relative_to(site)} loads {u}" for u in css(file.read_text(encoding="utf-8")) if elsewhere(u)]
    scripts = [
        (str(f.relative_to(site)), f.read_text(encoding="utf-8"))
        for f in sorted(site.rglob("*.js"))
        if f.name != "searchindex.js"
    ]
    return wrong + [f"{name} asks for {u}" for name, text in scripts for u in SCRIPT_URL.findall(text)]


def broken(site: Path, pages: dict) -> list:
    "Links and loaded files of the site that are not there; anchors too."
    wrong = []
    for name, page in pages.items():
        for address in page.links + page.loads:
            url = urlsplit(address)
            if url.scheme or url.netloc:
                continue
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(url.path))) if url.path else name
            )
            if not (site / target).is_file():
                wrong.append(f"{name}: {address} leads nowhere")
            elif target in pages and url.fragment and unquote(url.fragment) not in pages[target].ids:
                wrong.append(f"{name}: {address} has no such place")
    return wrong


def missing(site: Path) -> list:
    "Lessons, solutions and modules without a page, and words that the search does not find."
    wanted = [f"{n}.html" for n in lessons()] + [f"solutions/{p.stem}.html" for p in ROOT.glob("nbs/solutions/*.ipynb")]
    wanted += [f"api/{name}.html" for name in api.modules()] + [
        "index.html",
        "glossary.html",
        "contributing.html",
        "search.html",
    ]
    wrong = [f"{name} is missing" for name in sorted(wanted) if not (site / name).is_file()]
    index = site / "searchindex.js"
    known = (
        json.loads(index.read_text(encoding="utf-8").removeprefix("Search.setIndex(").removesuffix(")"))["terms"]
        if index.is_file()
        else {}
    )
    return wrong + [f"the search does not know {word}" for word in SEARCHED if word not in known]


def check(site: Path) -> list:
    "All that is wrong with the site."
    pages = {p.relative_to(site).as_posix(): Page(p.read_text(encoding="utf-8")) for p in sorted(site.rglob("*.html"))}
    wrong = [f"{name}: {w}" for name, page in pages.items() for w in page.wrong]
    wrong += [
        f"{name} shows a line for nbdev: {m[0]}"
        for name, page in pages.items()
        for m in re.finditer(r"^#\|.*$", "".join(page.seen), re.M)
    ]
    return wrong + requests(site, pages) + broken(site, pages) + missing(site)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = check(Path(sys.argv[1]))
    print(*found, sep="\n")
    print(f"{len(found)} things are wrong" if found else f"{sys.argv[1]}: whole, and nothing comes from elsewhere")
    sys.exit(bool(found))
