"""What a release needs: a tag that agrees with the version and the change log, its notes, and the adapters as archives.

python tools/release.py --check v0.2.0
python tools/release.py --notes v0.2.0 --adapters release
"""

import argparse
import configparser
import re
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    "The version in settings.ini."
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    return settings["metadata"]["version"]


def notes(number: str) -> str:
    "The section of CHANGELOG.md for a version; empty if there is none."
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(number)}\b[^\n]*\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1].strip() if found else ""


def problems(tag: str) -> list[str]:
    "Why a tag cannot be released."
    number = tag.removeprefix("v")
    found = []
    if number != version():
        found.append(f"the tag is {tag}, but settings.ini has version {version()}: change one of them")
    if f'__version__ = "{number}"' not in (ROOT / "cantolyric/__init__.py").read_text(encoding="utf-8"):
        found.append(f"cantolyric/__init__.py does not have __version__ = {number!r}")
    if not notes(number):
        found.append(f"CHANGELOG.md has no section '## {number}' with text")
    elif re.search(rf"^## {re.escape(number)}.*not released", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M):
        found.append(f"CHANGELOG.md still calls {number} 'not released': write the date instead")
    return found


def pack_adapters(folder: Path) -> None:
    "One .tar.gz per adapter in adapters/, its files at the top level of a folder of the adapter's name."
    for adapter in sorted(p for p in (ROOT / "adapters").iterdir() if (p / "adapter_config.json").exists()):
        with tarfile.open(folder / f"adapter-{adapter.name}.tar.gz", "w:gz") as archive:
            archive.add(adapter, adapter.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="TAG", help="say why this tag cannot be released; exit code 1 if it can't")
    parser.add_argument("--notes", metavar="TAG", help="write notes.md of this tag into the folder of --adapters")
    parser.add_argument("--adapters", metavar="FOLDER", type=Path, help="where to put the release's files")
    args = parser.parse_args()
    found = problems(args.check) if args.check else []
    if found:
        print(*found, sep="\n", file=sys.stderr)
    if args.adapters:
        args.adapters.mkdir(parents=True, exist_ok=True)
        pack_adapters(args.adapters)
        if args.notes:
            (args.adapters / "notes.md").write_text(notes(args.notes.removeprefix("v")) + "\n", encoding="utf-8")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
