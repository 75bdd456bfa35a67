"""Plot metrics of JSONL logs: ``telemetry plot``, from a checkout.

python scripts/plot_jsonl.py --input a.jsonl b.jsonl --metrics train.loss --smooth 20 --out loss.png
"""
# ruff: noqa: INP001 -- a script, and no part of a package

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if (ROOT / "telemetry" / "viewer").is_dir():
    sys.path.insert(0, str(ROOT))  # the checkout that this script is of, installed or not

from telemetry.cli import main  # noqa: E402 -- after the path

if __name__ == "__main__":
    sys.argv.insert(1, "plot")
    main()
