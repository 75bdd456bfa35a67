"""``telemetry relay``: run handlers where a Redis Stream is read."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from telemetry.cli.options.seconds import Seconds
from telemetry.cli.options.targets import (
    TargetsCommand,
    attached,
    check_process,
    target_options,
    targets_of,
)
from telemetry.cli.output.log import log_lines
from telemetry.cli.output.progress import Progress
from telemetry.cli.stopping import stopping
from telemetry.registry import Registry

if TYPE_CHECKING:
    from handlers import SinkAttachment
    from handlers.redis_reader import StreamReader
    from handlers.redis_server import RedisServer
    from handlers.relay import Relay, Totals

NAME: Final = "telemetry relay"


@click.command(cls=TargetsCommand)
@click.argument("url", required=False)
@click.option("--stream", default="trainbus", show_default=True, help="The stream's key.")
@click.option(
    "--group",
    default="relay",
    show_default=True,
    help="The relays of a group share the events; each group gets all of them.",
)
@click.option(
    "--consumer",
    help="This relay's name in the group. One that comes back under its name goes on at once with "
    "what it had.  [default: host and process]",
)
@target_options("A handler to run")
@click.option(
    "--from-start/--new",
    default=True,
    show_default=True,
    help="Where a group that is new begins: with what the stream has, or with what comes. One that "
    "exists goes on where it stopped.",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many entries.")
@click.option(
    "--until-idle",
    type=Seconds(),
    metavar="SECONDS",
    help="Stop when nothing has come for so long.",
)
@click.option(
    "--claim-after",
    type=Seconds(above_zero=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="When to take over what another relay of the group has not acknowledged.",
)
def relay(
    names: tuple[str, ...],
    options: tuple[str, ...],
    config: Path | None,
    count: int | None,
    until_idle: float | None,
    **place: Any,
) -> None:
    """Run handlers on the events that the handler redis has put on a stream.

    What any number of processes and hosts has sent reaches the handlers given with --to, with the
    time that it had. An event is acknowledged when all of them have delivered it: what they had
    not when the relay ends comes again.

    URL is redis://HOST:PORT/DB, rediss:// or unix://. By default it is what REDIS_URL says, which
    keeps a password out of the list of processes, or redis://127.0.0.1:6379/0.

    \b
    telemetry relay redis://127.0.0.1:6379/0 \\
        --to jsonl --option path=runs/all.jsonl \\
        --to wandb --option project=demo --option api_key=env:WANDB_API_KEY
    """  # noqa: D301 -- click looks for the character itself
    check_process()
    targets = targets_of(names, options, config)
    from handlers.relay import Relay, Totals  # noqa: PLC0415 -- after the check

    registry = Registry()
    server, reader = _reader(registry, **place)
    progress = Progress(shown=sys.stderr.isatty() and "console" not in [t.handler for t in targets])
    done = Totals()

    def last_words() -> str:
        return f"\n{_summary(done)}\n"

    with stopping(last_words) as stop, log_lines(progress.log), ExitStack() as last:
        attachments = last.enter_context(attached(registry, targets))
        last.enter_context(closing(reader))
        _check_no_circle(server, place["stream"], attachments)
        relay = Relay(reader, registry, attachments, stop=stop)
        relay.totals = done
        progress.say(f"Relaying {reader} to {', '.join(str(one.id) for one in attachments)}.")
        try:
            _run(relay, count, until_idle, progress)
            if not place["consumer"]:  # nobody comes back under a name with a process's number
                reader.leave()
            last.close()
            relay.count_losses()  # those of the handlers' end as well
        finally:
            last.close()
            progress.say(_summary(relay.totals))
    if relay.totals.lost:
        sys.exit(1)


def _run(relay: Relay, count: int | None, until_idle: float | None, progress: Progress) -> None:
    from handlers import DeliveryError  # noqa: PLC0415 -- after the check
    from handlers.relay import RelayError  # noqa: PLC0415 -- as above

    try:
        relay.run(
            count=count, until_idle=until_idle, progress=lambda totals: progress(totals.events)
        )
    except (DeliveryError, RelayError) as error:
        raise click.ClickException(str(error)) from error


def _check_no_circle(
    server: RedisServer, stream: str, attachments: Sequence[SinkAttachment]
) -> None:
    """Refuse a handler that writes to the stream which is read: that would never end."""
    for attachment in attachments:
        writes_to = getattr(attachment.handler, "writes_to", None)
        if writes_to is not None and writes_to(server, stream):
            raise click.ClickException(
                f"Handler {str(attachment.id)!r} would write to the stream that is read, "
                f"{stream!r} of {server.shown}. Give it another: --option stream=NAME."
            )


def _reader(
    registry: Registry,
    *,
    url: str | None,
    stream: str,
    group: str,
    consumer: str | None,
    from_start: bool,
    claim_after: float,
) -> tuple[RedisServer, StreamReader]:
    from handlers import Site  # noqa: PLC0415 -- after the check
    from handlers.redis import url_or_default  # noqa: PLC0415 -- as above
    from handlers.redis_reader import StreamReader  # noqa: PLC0415 -- as above
    from handlers.redis_server import RedisServer  # noqa: PLC0415 -- as above

    try:
        server = RedisServer(NAME, url_or_default(url), timeout=3.0, feature=NAME)
    except (ImportError, TypeError, ValueError) as error:
        raise click.ClickException(str(error).removeprefix(f"Handler {NAME!r}: ")) from error
    return server, StreamReader(
        Site(NAME, registry, (), "zero"),
        server,
        stream=stream,
        group=group,
        consumer=consumer or f"{socket.gethostname()}-{os.getpid()}",
        from_start=from_start,
        claim_after=claim_after,
    )


def _summary(totals: Totals) -> str:
    left_out = [
        f"{count:,} {what}"
        for count, what in (
            (totals.duplicates, "that came twice"),
            (totals.unreadable, "that are no events"),
        )
        if count
    ]
    also = f"; left out: {', '.join(left_out)}" if left_out else ""
    lost = [f"{count:,} ({policy})" for policy, count in totals.lost.items()]
    also += f"; lost: {', '.join(lost)}" if lost else ""
    return f"Relayed {totals.events:,} events{also}."
