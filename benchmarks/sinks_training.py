"""A training loop with every sink attached: ``python -m benchmarks.sinks_training STEPS WORK``.

Prints what it took as a line of JSON. With the addresses of other ends as a third argument, all
sinks are attached; without, none is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import handlers
import telemetry

SIZE = 128
"""Of the square matrices that a step multiplies."""


def main() -> None:
    steps, work = int(sys.argv[1]), int(sys.argv[2])
    attached = []
    began = time.monotonic()
    if len(sys.argv) > 3:
        attached = attach_all(json.loads(sys.argv[3]), Path.cwd(), **json.loads(sys.argv[4]))
    at_attach = time.monotonic() - began
    seconds = train(steps, work)
    report = {
        "attach": at_attach,
        "loop": seconds,
        "loop_ended": time.monotonic(),
        "attached": [info.id for info in telemetry.list_handlers()],
        "handlers": attached,
    }
    print(json.dumps(report), flush=True)


def attach_all(ends: dict[str, Any], folder: Path, **common: Any) -> list[str]:
    """Attach every sink there is, to ends that may be bad; give their ids."""
    for name in ("WANDB_ERROR_REPORTING", "WANDB_SILENT"):
        os.environ[name] = "false" if name.endswith("REPORTING") else "true"
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "TRACKIO_DIR": str(folder / "trackio")}
    url = f"http://127.0.0.1:{ends['http']}"
    sinks: list[tuple[str, dict[str, Any]]] = [
        ("jsonl", {"path": folder / "metrics.jsonl"}),
        ("console", {"stream": _open(folder / "console.txt"), "progress": False}),
        ("memory", {}),
        ("blinker", {}),
        ("tensorboard", {"log_dir": folder / "tensorboard"}),
        ("wandb", {"project": "p", "mode": "offline", "dir": folder}),
        ("trackio", {"project": "p"}),
        ("datadog", {"id": "datadog-udp", "host": "127.0.0.1", "port": ends["udp"]}),
        ("datadog", {"id": "datadog-unix", "socket_path": ends["unix"]}),
        ("datadog", {"id": "datadog-api", "api_key": "0" * 32, "api_host": url}),
        ("mlflow", {"tracking_uri": url}),
        ("prometheus", {"id": "prometheus-pull", "port": 0}),
        ("prometheus", {"id": "prometheus-push", "pushgateway": url, "push_interval": 1.0}),
        ("opentelemetry", {"endpoint": url}),
        ("webhook", {"id": "webhook-json", "url": url, "style": "json"}),
        ("webhook", {"id": "webhook-slack", "url": url, "style": "slack"}),
        ("redis", {"url": f"redis://127.0.0.1:{ends['redis']}/0"}),
    ]
    return [str(handlers.attach(name, **common, **options).id) for name, options in sinks]


def train(steps: int, work: int) -> float:
    """Multiply matrices and tell of it; the seconds that took."""
    matrix = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    target = np.empty_like(matrix)
    began = time.monotonic()
    for step in range(steps):
        with telemetry.span(("custom_loss",), {"model_id": "m", "step": step}) as span:
            for _ in range(work):
                np.matmul(matrix, matrix, out=target)
            span.measure(loss_total=1 / (step + 1))
        measurements = {"loss": 1 / (step + 1), "lr": 2e-4, "grad_norm": 1.0}
        telemetry.execute(("training", "step"), measurements, {"step": step})
        if step % 100 == 0:
            telemetry.execute(
                ("training", "checkpoint"), {"size_bytes": 10}, {"checkpoint_name": f"c{step}"}
            )
    return time.monotonic() - began


def _open(path: Path) -> TextIO:
    return path.open("w")


if __name__ == "__main__":
    main()
