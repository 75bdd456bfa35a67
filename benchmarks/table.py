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


def print_table(title: str, results: Sequence[Result], peer: str, bounds: Sequence[Bound]) -> None:
    """Print each contender's median and its ratio to ``peer``, and whether its bounds hold."""
    rows = [HEADER, *_rows(results, peer, bounds)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(title)
    for row in rows:
        print("  " + "  ".join(map(_align, range(len(row)), row, widths)).rstrip())
    print(flush=True)


def _rows(results: Sequence[Result], peer: str, bounds: Sequence[Bound]) -> Iterator[list[str]]:
    by_name = {result.name: result for result in results}
    for result in results:
        promised = [bound for bound in bounds if bound.contender == result.name]
        for bound in promised:
            ratio = result.ratio(by_name[bound.peer])
            verdict = "holds" if ratio <= bound.limit else "EXCEEDED"
            yield _row(result, ratio, bound.peer, f"<= {bound.limit:.2f} {verdict}")
        if not promised:
            yield _row(result, result.ratio(by_name[peer]), peer, "")


def _row(result: Result, ratio: float, peer: str, verdict: str) -> list[str]:
    if result.name == peer:
        return [result.name, f"{result.ns:,.0f}", "", "", ""]
    return [result.name, f"{result.ns:,.0f}", f"{ratio:.2f}", peer, verdict]


def _align(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column in LEFT_ALIGNED else cell.rjust(width)
