"""Which records make one run: the attempts at it, of one rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from telemetry.viewer.logs.engine import quoted
from telemetry.viewer.logs.parts import Part, Start, find_parts, until
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.sources import Source

Key: TypeAlias = tuple[object, ...]

NEVER: Final = (None, None, None)
TURN: Final = f"(coalesce(attempt, 0)::HUGEINT * {2**63 - 1} + rowid)"
"""Which record of a run is the later one, in SQL: files have names in any order, attempts count."""

_SAME: Final = """records.source = parts.source
    AND records.run_id IS NOT DISTINCT FROM parts.run_id
    AND records.attempt IS NOT DISTINCT FROM parts.attempt
    AND records.rank IS NOT DISTINCT FROM parts.rank"""
_TOLD_EPOCH: Final = "floor(records.epoch)"
_JOIN_BEGUN: Final = f"""LEFT JOIN (
    SELECT parts.part, min(records.rowid) AS told,
        min(records.rowid) FILTER ({_TOLD_EPOCH} >= parts.epoch) AS here,
        min(records.rowid) FILTER ({_TOLD_EPOCH} > parts.epoch) AS beyond
    FROM records JOIN parts ON {_SAME}
    WHERE records.epoch IS NOT NULL AND parts.step_of_epoch IS NOT NULL GROUP BY parts.part
) AS begun ON begun.part = parts.part"""
"""The first rows of a part with an epoch at all, with the one that counts, and with one behind."""
_EPOCH: Final = f"""coalesce({_TOLD_EPOCH}, CASE
    WHEN greatest(records.rowid, begun.told) >= begun.beyond THEN 'Infinity'::DOUBLE
    WHEN greatest(records.rowid, begun.told) >= begun.here THEN parts.epoch
    WHEN begun.told IS NOT NULL THEN '-Infinity'::DOUBLE END)"""
"""Of a record without an epoch that of what is before it, as `global_step` has it."""
_SUPERSEDED: Final = """coalesce(records.step >= CASE
    WHEN {epoch} < parts.epoch THEN 'Infinity'::DOUBLE
    WHEN parts.step_of_epoch IS NULL OR {epoch} IS NULL THEN parts.until
    WHEN {epoch} > parts.epoch THEN '-Infinity'::DOUBLE
    ELSE parts.step_of_epoch END, false)"""


class RunPart(NamedTuple):
    """A part, and what it is of.

    Attributes:
        part: The part.
        run: The run's label.
        until: From where on a later attempt is valid in its place, None if there is none.
    """

    part: Part
    run: str
    until: Start | None


def find_runs(records: Records) -> tuple[str, ...]:
    """Tell the runs apart, and make the view ``current``: the records with their ``run``.

    A run is one line of a chart. What attempts left is one run, in which a later attempt is valid
    from its first step on: what an earlier one had there is not in ``current``, and is in ``told``,
    which has all records, marked as ``superseded``. Ranks are runs of their own, because their
    values are not one line: each file, and in a file each ``rank`` of its records.

    Args:
        records: The records.

    Returns:
        The labels of the runs, in the order in which they begin: names of files, or ids of runs
        where a file has several, or a run is spread over several; with the rank where a file has
        several.
    """
    told = tell_runs(find_parts(records), records.sources)
    records.connection.execute(_views(told))
    return tuple(dict.fromkeys(each.run for each in told))


def tell_runs(parts: Sequence[Part], sources: Sequence[Source]) -> list[RunPart]:
    """Which run each part is of.

    Args:
        parts: What there is.
        sources: The files.

    Example:
        >>> from pathlib import Path
        >>> parts = [
        ...     Part(0, "a", 1, None, Start(1.0), begins_anew=False, trains=True),
        ...     Part(0, "a", 2, None, Start(51.0), begins_anew=False, trains=True),
        ...     Part(1, "b", 1, 0, Start(1.0), begins_anew=False, trains=True),
        ...     Part(1, "b", 1, 1, Start(1.0), begins_anew=False, trains=True),
        ... ]
        >>> sources = [Source(Path("one.jsonl"), "one"), Source(Path("two.jsonl"), "two")]
        >>> [(each.run, each.until and each.until.step) for each in tell_runs(parts, sources)]
        [('one', 51.0), ('one', None), ('two rank 0', None), ('two rank 1', None)]
    """
    by_id: dict[str | None, list[Part]] = defaultdict(list)
    for part in parts:
        by_id[part.run_id].append(part)
    keys = {
        id(part): key
        for run_id, of_id in by_id.items()
        for part, key in zip(of_id, _keys(run_id, of_id, sources), strict=True)
    }
    by_key: dict[Key, list[Part]] = defaultdict(list)
    for part in parts:
        by_key[keys[id(part)]].append(part)
    by_name: dict[str, list[Part]] = {}
    for key, name in _names(by_key, [source.label for source in sources]).items():
        for rank, of_rank in _by_rank(by_key[key]).items():
            by_name[_free(name if rank is None else f"{name} rank {rank}", by_name)] = of_rank
    told = {
        id(part): RunPart(part, name, until(part, of_run))
        for name, of_run in by_name.items()
        for part in of_run
    }
    return [told[id(part)] for part in parts]


def _by_rank(parts: Sequence[Part]) -> dict[int | None, list[Part]]:
    """The parts of each rank, where a file has several; else all under None.

    Those without a rank are of the lowest: it is what says whatever is said once.
    """
    ranks: dict[tuple[int, int | None], set[int]] = defaultdict(set)
    for part in parts:
        if part.rank is not None:
            ranks[part.source, part.attempt].add(part.rank)
    if all(len(several) == 1 for several in ranks.values()):
        return {None: list(parts)}
    lowest = min(set().union(*ranks.values()))
    by_rank: dict[int | None, list[Part]] = defaultdict(list)
    for part in parts:
        by_rank[lowest if part.rank is None else part.rank].append(part)
    return by_rank


def _keys(run_id: str | None, parts: Sequence[Part], sources: Sequence[Source]) -> list[Key]:
    """Which of the runs with one id each part is of.

    Files that one attempt wrote are of different ranks: their names tell these apart, else the name
    of one folder, so that the attempts of a rank stay together. Where nothing does, each file is
    by itself.
    """
    if run_id is None:
        return [("file", part.source) for part in parts]
    if _are_lines([("run", run_id)] * len(parts), parts):
        return [("run", run_id)] * len(parts)
    files = [sources[part.source] for part in parts]
    folders = [source.path.absolute().parent.parts[::-1] for source in files]
    names = [Path(source.label).name for source in files]
    keys: list[Key] = [("rank", run_id, name) for name in names]
    for depth in range(max(map(len, folders))):
        if _are_lines(keys, parts):
            return keys
        keys = [
            ("rank", run_id, *above[depth : depth + 1], name)
            for above, name in zip(folders, names, strict=True)
        ]
    return [("rank", run_id, source.label) for source in files]


def _are_lines(keys: Sequence[Key], parts: Sequence[Part]) -> bool:
    """Whether no attempt at a run is in two files."""
    files: dict[object, set[int]] = defaultdict(set)
    for key, part in zip(keys, parts, strict=True):
        files[key, part.attempt].add(part.source)
    return all(len(sources) == 1 for sources in files.values())


def _names(by_run: dict[Key, list[Part]], labels: Sequence[str]) -> dict[Key, str]:
    """The label of each run; no two have the same."""
    runs_of_file: dict[int, set[Key]] = defaultdict(set)
    for key, parts in by_run.items():
        for part in parts:
            runs_of_file[part.source].add(key)
    names: dict[Key, str] = {}
    for key, parts in by_run.items():
        files = {part.source for part in parts}
        alone = len(files) == 1 and len(runs_of_file[min(files)]) == 1
        name = labels[min(files)] if alone or key[0] == "file" else _id_of(key)
        names[key] = _free(name, names.values())
    return names


def _id_of(key: Key) -> str:
    return "/".join(map(str, key[1:]))


def _free(name: str, taken: Iterable[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _views(told: Sequence[RunPart]) -> str:
    return f"""
        CREATE OR REPLACE VIEW told AS {_told(told)};
        CREATE OR REPLACE VIEW current AS
        SELECT * EXCLUDE superseded FROM told WHERE NOT superseded"""


def _told(told: Sequence[RunPart]) -> str:
    first = told[0].run if told else ""
    if all(each.run == first and each.until is None for each in told):
        return (
            f"SELECT 0 AS place, {quoted(first)} AS run, false AS superseded, rowid, * FROM records"
        )
    places = {run: place for place, run in enumerate(dict.fromkeys(each.run for each in told))}
    rows = ", ".join(
        f"({number}, {each.part.source}, {_literal(each.part.run_id)}, "
        f"{_number(each.part.attempt)}, {_number(each.part.rank)}, "
        f"{places[each.run]}, {quoted(each.run)}, "
        f"{', '.join(map(_double, each.until or NEVER))})"
        for number, each in enumerate(told)
    )
    begins_anew = any(each.until and each.until.step_of_epoch is not None for each in told)
    epoch, begun = (_EPOCH, _JOIN_BEGUN) if begins_anew else (_TOLD_EPOCH, "")
    return f"""
        WITH parts(part, source, run_id, attempt, rank, place, run, until, epoch, step_of_epoch)
            AS (VALUES {rows})
        SELECT parts.place, parts.run, {_SUPERSEDED.format(epoch=epoch)} AS superseded,
            records.rowid, records.*
        FROM records JOIN parts ON {_SAME} {begun}"""


def _literal(text: str | None) -> str:
    return "NULL" if text is None else quoted(text)


def _number(value: int | None) -> str:
    return "NULL" if value is None else str(value)


def _double(value: float | None) -> str:
    return "NULL::DOUBLE" if value is None else repr(value)
