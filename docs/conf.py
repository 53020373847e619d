"""Sphinx's settings. `make docs` writes the source (docs/source.py), builds it with these and checks the result."""

import configparser
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.search.en import SearchEnglish

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import han
from source import repository

config = configparser.ConfigParser(delimiters=["="])
config.read(HERE.parent / "settings.ini", encoding="utf-8")

project = "cantolyric"
author = "the cantolyric authors"
copyright = author
release = version = config["metadata"]["version"]
language = "en"
extensions = ["myst_nb", "sphinx_copybutton"]

nb_execution_mode = "off"  # the committed outputs are shown
nb_ipywidgets_js = {}  # no script from elsewhere
nb_render_markdown_format = "myst"
myst_enable_extensions = ["colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 3
myst_update_mathjax = False
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"cantolyric {version}"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_favicon = str(HERE / "static/favicon.svg")
html_search_language = "yue"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"source_repository": repository() + "/", "top_of_page_buttons": []}
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
add_module_names = False
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"


class Search(SearchEnglish):
    "English stems, and Chinese by characters."

    lang = "yue"  # language_name stays: the script has the stemmer under it
    js_splitter_code = han.JAVASCRIPT

    def split(self, input):
        return han.split(input)


def formula(self, node):
    "A formula as MathML, which browsers set themselves: no script, no font."
    block = isinstance(node, nodes.math_block)
    made = convert(node.astext(), display="block" if block else "inline")
    self.body.append(f'<div class="math">{made}</div>' if block else made)
    raise nodes.SkipNode


def cantonese(app, pagename, templatename, context, doctree):
    "The language that a page is in, for fonts and screen readers."
    if pagename == "zh-hk":
        context["language"] = "yue-Hant-HK"


def setup(app):
    app.connect("html-page-context", cantonese)
    app.add_search_language(Search)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
