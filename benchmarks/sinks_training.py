"""A training loop with every sink attached: ``python -m benchmarks.sinks_training STEPS WORK``.

Prints what it took as a line of JSON. With the addresses of other ends as a third argument, and
options of all handlers as a fourth, all sinks are attached; without, none is.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Final, TextIO

import handlers
import telemetry
from benchmarks.training_steps import STEPS

IDS: Final = (
    "jsonl",
    "console",
    "memory",
    "blinker",
    "tensorboard",
    "wandb",
    "trackio",
    "datadog-udp",
    "datadog-unix",
    "datadog-api",
    "mlflow",
    "prometheus-pull",
    "prometheus-push",
    "opentelemetry",
    "webhook-json",
    "webhook-slack",
    "redis",
)


def main() -> None:
    given = _parse()
    attached = []
    began = time.monotonic()
    if given.addresses:
        common = json.loads(given.common)
        attached = attach_all(json.loads(given.addresses), Path.cwd(), only=given.only, **common)
    at_attach = time.monotonic() - began
    seconds = train(given.steps, given.work, given.step)
    report = {
        "attach": at_attach,
        "loop": seconds,
        "loop_ended": time.monotonic(),
        "attached": [info.id for info in telemetry.list_handlers()],
        "handlers": attached,
    }
    print(json.dumps(report), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.sinks_training")
    parser.add_argument("steps", type=int)
    parser.add_argument("work", type=int, help="how much a step does")
    parser.add_argument("addresses", nargs="?", default="", help="as benchmarks.bad_ends says them")
    parser.add_argument("common", nargs="?", default="{}", help="options of all handlers, as JSON")
    parser.add_argument("--step", choices=STEPS, default="products")
    parser.add_argument("--only", default="", help="the id of the one sink that is attached")
    return parser.parse_args()


def attach_all(ends: dict[str, Any], folder: Path, *, only: str = "", **common: Any) -> list[str]:
    """Attach every sink there is, to ends that may be bad; give their ids.

    Args:
        ends: The addresses.
        folder: Where the others write.
        only: The id of the one to attach; "" for all.
        **common: Options of all handlers.
    """
    for name in ("WANDB_ERROR_REPORTING", "WANDB_SILENT"):
        os.environ[name] = "false" if name.endswith("REPORTING") else "true"
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "TRACKIO_DIR": str(folder / "trackio")}
    url = f"http://127.0.0.1:{ends['http']}"
    options: dict[str, dict[str, Any]] = {
        "jsonl": {"path": folder / "metrics.jsonl"},
        "console": {"stream": _open(folder / "console.txt"), "progress": False},
        "memory": {},
        "blinker": {},
        "tensorboard": {"log_dir": folder / "tensorboard"},
        "wandb": {"project": "p", "mode": "offline", "dir": folder},
        "trackio": {"project": "p"},
        "datadog-udp": {"host": "127.0.0.1", "port": ends["udp"]},
        "datadog-unix": {"socket_path": ends["unix"]},
        "datadog-api": {"api_key": "0" * 32, "api_host": url},
        "mlflow": {"tracking_uri": url},
        "prometheus-pull": {"port": 0},
        "prometheus-push": {"pushgateway": url, "push_interval": 1.0},
        "opentelemetry": {"endpoint": url},
        "webhook-json": {"url": url, "style": "json"},
        "webhook-slack": {"url": url, "style": "slack"},
        "redis": {"url": f"redis://127.0.0.1:{ends['redis']}/0"},
    }
    for one in [only] if only else IDS:
        handlers.attach(one.partition("-")[0], id=one, **common, **options[one])
    return [only] if only else list(IDS)


def train(steps: int, work: int, step: str = "products") -> float:
    """Do so many steps and tell of them; the seconds that took."""
    work_once = STEPS[step](work)
    began = time.monotonic()
    for number in range(steps):
        with telemetry.span(("custom_loss",), {"model_id": "m", "step": number}) as span:
            work_once()
            span.measure(loss_total=1 / (number + 1))
        measurements = {"loss": 1 / (number + 1), "lr": 2e-4, "grad_norm": 1.0}
        telemetry.execute(("training", "step"), measurements, {"step": number})
        if number % 100 == 0:
            telemetry.execute(
                ("training", "checkpoint"), {"size_bytes": 10}, {"checkpoint_name": f"c{number}"}
            )
    return time.monotonic() - began


def _open(path: Path) -> TextIO:
    return path.open("w")


if __name__ == "__main__":
    main()
