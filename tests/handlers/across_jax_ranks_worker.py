"""What one process of tests/handlers/test_across_jax_ranks.py does.

Each writes what it saw to ``<folder>/<rank>.json``.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from across_ranks_sink import attach, emit, install, kept, left, reduced

import handlers
import handlers.jax_ranks
import telemetry
from telemetry.metrics import last_value

NAN = float("nan")


def emit_all(rank):
    """Like the checks of across_ranks_worker.py, one event for each."""
    many = {f"m{n}": rank + n for n in range(33)}
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "all")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    emit(
        {"loss": [jnp.int32(1), 4.0][rank]},
        {"loss": [0.1, jnp.bfloat16(2.5)][rank]},
        {"loss": [True, jnp.zeros((), bool)][rank]},
        {} if rank == 0 else {"loss": 7},
        {},
        {"loss": [jnp.ones(2), "text"][rank]},
        {"loss": [jnp.complex64(1), 1j][rank]},
        {"loss": [jnp.float32(NAN), 1.0][rank]},
        {"loss": [1.0, float("inf")][rank]},
        {"loss": jax.jit(lambda: jnp.float32(3), out_shardings=everywhere)()},
        many,
    )


def check_values(rank):
    with attach(reduced("loss") + reduced("m32", "m0", kinds=["sum"])) as attachment:
        emit_all(rank)
        return kept(attachment)


def check_many(rank):
    names = [f"m{n}" for n in range(33)]
    with attach(reduced(*names, kinds=["sum"]), ranks="all") as attachment:
        emit_all(rank)
        return kept(attachment)[-1]


def check_on_device(rank):
    is_host = handlers.jax_ranks.is_host
    handlers.jax_ranks.is_host = lambda device: False
    with attach(reduced("loss"), ranks="all") as attachment:
        emit({"loss": jnp.float32(rank)}, {} if rank else {"loss": 7}, {})
        found = kept(attachment)
    handlers.jax_ranks.is_host = is_host
    return found


def check_failing_sink(rank):
    with attach(reduced("loss")) as attachment:
        emit({"loss": rank})
        if rank == 0:
            attachment.handler.error = OSError("gone")
        emit({"loss": rank}, {"loss": rank}, {"loss": rank})
        return kept(attachment), left()


def check_disagreement(rank):
    failures = []
    attachment = handlers.attach("keeping", metrics=[last_value("training.*.loss", reduce="mean")])
    telemetry.attach(
        "failures",
        ("telemetry", "handler", "failure"),
        lambda e, m, metadata, c: failures.append(str(metadata["reason"])),
    )
    telemetry.execute(("training", "step" if rank else "epoch"), {"loss": 1}, {})
    telemetry.detach("failures")
    return failures, attachment.active


CHECKS = {name[6:]: check for name, check in list(globals().items()) if name.startswith("check_")}


def main(folder, port, rank):
    install(folder)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
    found = {name: check(int(rank)) for name, check in CHECKS.items()}
    Path(folder, f"{rank}.json").write_text(json.dumps([found, left(), str(jnp.ones(1).dtype)]))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
