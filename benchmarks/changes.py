"""What real changes touched: the history of this repository, a commit that changed the package a line.

python benchmarks/changes.py    writes benchmarks/results/changes.json; a second. It needs the history (git clone, not a shallow one)
"""

import subprocess
from collections import Counter
from pathlib import Path

from _common import made, write

ROOT = Path(__file__).resolve().parent.parent


def modules_by_commit() -> list:
    "For each commit that changed exported modules, their names."
    log = subprocess.run(
        ["git", "log", "--no-merges", "--format=@%h", "--name-only"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exported = lambda path: (
        path.startswith("cantolyric/")
        and path.endswith(".py")
        and path.count("/") == 1
        and not path.startswith("cantolyric/_")
    )
    commits = [
        sorted(Path(p).stem for p in files if exported(p))
        for _, *files in (part.split() for part in log.split("@")[1:])
    ]
    return [c for c in commits if c]


def main():
    commits = modules_by_commit()
    counts = Counter(map(len, commits))
    write(
        "changes",
        dict(
            commits=len(commits),
            by_modules_touched={k: counts[k] for k in sorted(counts)},
            most_often=Counter(m for c in commits for m in c).most_common(5),
        )
        | made(),
    )


if __name__ == "__main__":
    main()
