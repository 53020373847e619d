"""README.md from nbs/index.ipynb: its markdown, its code and its outputs.

python tools/readme.py           write README.md
python tools/readme.py --check   say whether it is up to date (exit status 1 where it is not)
"""

import json
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\(|(?:src|href)=\")(?![a-z]+:|#|/)([^)\"\s]+)")
SITE_ONLY = "not-in-readme"  # the tag of a cell that only the index and the site show
HIDDEN = re.compile(r"^#\|\s*(hide|default_exp|export)", re.M)


def from_root(text):
    "Links of a notebook in nbs/, as seen from the folder above."
    return LINK.sub(lambda m: m[1] + posixpath.normpath(posixpath.join("nbs", m[2])), text)


def output(out):
    "One output as Markdown: HTML or Markdown as it is, anything else as text."
    data = out.get("data", {})
    text = lambda kind: "".join(data[kind])
    if "text/markdown" in data:
        return from_root(text("text/markdown"))
    if "text/html" in data:
        return re.sub(r"\n\s*\n", "\n", text("text/html"))  # an empty line would end the HTML
    plain = "".join(out.get("text", "")) or ("".join(data.get("text/plain", "")))
    return f"```\n{plain.rstrip()}\n```" if plain.strip() else ""


def cell(c):
    "One cell as Markdown; hidden cells give nothing."
    source = "".join(c["source"]).strip()
    if HIDDEN.search(source) or not source or SITE_ONLY in c["metadata"].get("tags", []) or c["id"] == "colab-badge":
        return []
    if c["cell_type"] == "markdown":
        return [from_root(source)]
    code = "\n".join(line for line in source.split("\n") if not line.startswith("#|")).strip()
    quiet = re.search(r"^#\|\s*echo:\s*false", source, re.M)
    return ([] if quiet else [f"```python\n{code}\n```"]) + [o for o in map(output, c["outputs"]) if o]


def readme():
    "The whole text."
    cells = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
    note = "<!-- Made from nbs/index.ipynb by `make readme`; edit that. -->"
    return "\n\n".join([note, *(part for c in cells if c["cell_type"] != "raw" for part in cell(c))]) + "\n"


if __name__ == "__main__":
    path = ROOT / "README.md"
    if "--check" not in sys.argv:
        path.write_text(readme(), encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != readme():
        sys.exit("README.md differs from nbs/index.ipynb: run  make readme")
