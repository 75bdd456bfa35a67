"""``python -m benchmarks [name ...] [--rounds N] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from importlib.metadata import version

NAMES = (
    "dispatch",
    "spans",
    "collector",
    "loops",
    "alerts",
    "jsonl",
    "background",
    "imports",
    "clipping_torch",
    "clipping_tensorflow",
    "clipping_jax",
    "custom_loss",
    "sinks",
    "sinks_torch",
    "sinks_single",
    "sinks_memory",
    "callback_lightning",
    "callback_transformers",
    "callback_keras",
    "viewer_reading",
)
PACKAGES = (
    "trainbus",
    "blinker",
    "loguru",
    "opentelemetry-sdk",
    "orjson",
    "pyee",
    "python-json-logger",
    "structlog",
)
ROUNDS = 151
QUICK_ROUNDS = 15


def main() -> None:
    options = _parse()
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, "
        f"{platform.system()} {platform.machine()}, {options.rounds} rounds"
    )
    print(", ".join(f"{name} {version(name)}" for name in PACKAGES), end="\n\n")
    for name in options.names or NAMES:
        importlib.import_module(f"benchmarks.{name}").run(options.rounds)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Print what things cost.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, help=f"timings of each contender ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK_ROUNDS} rounds")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}. Choose from: {', '.join(NAMES)}")
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


if __name__ == "__main__":
    main()
