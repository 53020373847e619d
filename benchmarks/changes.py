"""Which modules real changes touched, from this repository's history: one commit per change of the package.

python benchmarks/changes.py    writes benchmarks/results/changes.json; a second. It needs the full history, so not a
                                shallow clone
"""

import subprocess
from collections import Counter
from pathlib import Path

from _common import made, write

ROOT = Path(__file__).resolve().parent.parent


def modules_by_commit() -> list:
    "The names of the exported modules that each commit changed; commits that changed none are left out."
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
