"""The main finetune as `make finetune` runs it, and the same with a quarter of the steps unmasked.

python benchmarks/finetune.py [--ship]    writes benchmarks/results/finetune.json and finetune_free.json; three minutes
                                          each on two cores. --ship puts the first adapter into the package

Each run has its own process.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cantolyric.paths import asset_path

RESULTS = Path(__file__).parent / "results"


def finetune(folder, name, *settings):
    "Run one finetune through the command line, and copy its metrics to the results."
    command = [
        Path(sys.executable).with_name("cantolyric"),
        "finetune",
        "--name",
        name,
        "--runs-dir",
        folder,
        *settings,
    ]
    code = subprocess.run(command).returncode
    if code not in (0, 1):
        sys.exit(f"{name} was stopped, exit code {code}")  # 1: the last gate failed, which is also a result
    metrics = json.loads(Path(folder, name, "metrics.json").read_text(encoding="utf-8"))
    metrics["config"]["runs_dir"] = "runs"  # not the temporary folder
    (RESULTS / f"{name}.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ship", action="store_true", help="put the adapter into the package")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        finetune(folder, "finetune")
        finetune(folder, "finetune_free", "--unmasked-fraction", "0.25")
        if args.ship:
            shutil.copytree(Path(folder, "finetune", "adapter"), asset_path("adapter"), dirs_exist_ok=True)


if __name__ == "__main__":
    main()
