"""A plain table of a run's results, with the bounds that the project promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.timing import Result

HEADER = ("", "ns/op", "ratio", "to", "bound")
LEFT_ALIGNED = (0, 3, 4)


@dataclass(frozen=True)
class Bound:
    """A promise: ``contender`` costs at most ``limit`` times ``peer``."""

    contender: str
    peer: str
    limit: float


@dataclass(frozen=True)
class Most:
    """A promise: ``contender`` costs at most ``ns`` nanoseconds on the machine of the docs."""

    contender: str
    ns: float


def print_table(
    title: str, results: Sequence[Result], peer: str, bounds: Sequence[Bound | Most]
) -> None:
    """Print each contender's median and its ratio to ``peer``, and whether its bounds hold."""
    rows = [HEADER, *_rows(results, peer, bounds)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(title)
    for row in rows:
        print("  " + "  ".join(map(_align, range(len(row)), row, widths)).rstrip())
    print(flush=True)


def _rows(
    results: Sequence[Result], peer: str, bounds: Sequence[Bound | Most]
) -> Iterator[list[str]]:
    by_name = {result.name: result for result in results}
    for result in results:
        promised = [bound for bound in bounds if bound.contender == result.name]
        for bound in promised:
            if isinstance(bound, Most):
                held = f"<= {bound.ns:,.0f} ns {verdict(holds=result.ns <= bound.ns)}"
                yield _row(result, result.ratio(by_name[peer]), peer, held)
                continue
            ratio = result.ratio(by_name[bound.peer])
            held = f"<= {bound.limit:.2f} {verdict(holds=ratio <= bound.limit)}"
            yield _row(result, ratio, bound.peer, held)
        if not promised:
            yield _row(result, result.ratio(by_name[peer]), peer, "")


def verdict(*, holds: bool) -> str:
    """Whether a bound holds, in a word."""
    return "holds" if holds else "EXCEEDED"


def _row(result: Result, ratio: float, peer: str, verdict: str) -> list[str]:
    if result.name == peer:
        return [result.name, f"{result.ns:,.0f}", "", "", ""]
    return [result.name, f"{result.ns:,.0f}", f"{ratio:.2f}", peer, verdict]


def _align(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column in LEFT_ALIGNED else cell.rjust(width)
