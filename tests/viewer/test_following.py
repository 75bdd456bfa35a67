"""A log is followed while it is written, moved, cut off, compressed, and before it is there.

Nothing here waits: what happens to the files happens when `follow_entries` would wait.
"""

import gzip
import random
import zlib

import pytest

import handlers
from telemetry import Registry
from telemetry.viewer.logs import following
from telemetry.viewer.logs.bad_lines import BadLinesWarning
from telemetry.viewer.logs.entries import read_entries
from telemetry.viewer.logs.following import Followed, follow_entries


def line(step):
    return f'{{"step":{step},"loss":1}}\n'


@pytest.fixture
def log(tmp_path):
    return tmp_path / "run.jsonl"


@pytest.fixture
def steps():
    """The steps of what is followed, between the things that happen meanwhile."""

    def steps(paths, *happenings):
        left = list(happenings)
        seen = [[]]

        def wait():
            if not left:
                return False
            left.pop(0)()
            seen.append([])
            return True

        for entry in follow_entries(paths, wait=wait):
            seen[-1].append(entry.metadata["step"])
        return seen

    return steps


def append(path, text):
    def do():
        with path.open("a") as file:
            file.write(text)

    return do


def test_a_file_that_is_not_there_yet_is_waited_for(log, steps):
    assert steps([log], lambda: None, append(log, line(1)), append(log, line(2))) == [
        [],
        [],
        [1],
        [2],
    ]


def test_a_line_is_given_when_it_is_whole(log, steps):
    whole = line(1)
    log.write_text(whole[:5])
    found = steps([log], append(log, whole[5:-1]), append(log, "\n" + line(2)[:3]))
    assert found == [[], [], [1]]


def test_a_file_that_was_cut_off_is_read_from_its_start(log, steps):
    log.write_text(line(1) + line(2) + line(3)[:4])
    assert steps([log], lambda: log.write_text(line(7))) == [[1, 2], [7]]


@pytest.mark.parametrize("first", [[1], [1, 2], list(range(100, 200))])
def test_a_file_that_was_written_anew_is_read_from_its_start(log, steps, first):
    """In place, with more than it had: neither its number nor its size tells."""
    log.write_text("".join(map(line, first)))
    again = [7, *range(300, 500)]
    found = steps([log], lambda: log.write_text("".join(map(line, again))), append(log, line(8)))
    assert found == [first, again, [8]]


def test_a_file_that_was_written_anew_with_the_size_it_had_is_read_from_its_start(log, steps):
    log.write_text(line(1) + line(2))
    assert steps([log], lambda: log.write_text(line(3) + line(4))) == [[1, 2], [3, 4]]


def test_a_file_that_was_written_anew_behind_its_middle_is_read_from_its_start(log):
    log.write_text(line(1) + line(2))
    followed = Followed(log, print, position=len(line(1)))
    log.write_text("".join(map(line, (7, 8, 9))))
    assert [one.text.decode() + "\n" for one in followed.poll()] == [line(7), line(8), line(9)]
    followed.close()


def test_another_file_under_the_name_is_read_after_the_rest_of_the_first(log, steps):
    log.write_text(line(1))

    def rotate():
        append(log, line(2))()
        log.rename(log.with_suffix(".old"))
        log.write_text(line(3) + line(4))

    assert steps([log], rotate, append(log, line(5))) == [[1], [2, 3, 4], [5]]


def test_a_file_that_was_moved_away_is_followed_until_there_is_another(log, steps):
    log.write_text(line(1))
    moved = log.with_suffix(".old")
    found = steps(
        [log],
        lambda: log.rename(moved),
        append(moved, line(2)),
        append(log, line(3)),
    )
    assert found == [[1], [], [2], [3]]


def test_several_files_are_followed_at_once(tmp_path, steps):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(line(1))
    two.write_text(line(10))
    assert steps([one, two], append(two, line(11)), append(one, line(2))) == [[1, 10], [11], [2]]


def test_lines_that_are_no_records_are_named_at_the_end(log, steps):
    log.write_text("garbage\n" + line(1))
    with pytest.warns(BadLinesWarning, match=r"no record in line 1 "):
        assert steps([log]) == [[1]]


def test_a_compressed_file_is_followed_from_member_to_member(tmp_path, steps):
    log, bus = tmp_path / "run.jsonl.gz", Registry()

    def emit(step):
        bus.execute(("training", "step"), {"loss": 1.0}, {"step": step})

    def begin():
        handlers.attach("jsonl", id="log", registry=bus, path=log)
        emit(1)

    def begin_again():
        bus.detach("log")
        begin()

    found = steps([log], begin, lambda: emit(2), begin_again, lambda: bus.detach("log"))
    assert found == [[], [1], [2], [1], []]


def test_a_compressed_file_that_its_next_writer_has_mended_is_not_read_twice(tmp_path, steps):
    """The handler cuts off the torn end that a killed writer has left."""
    log, bus = tmp_path / "run.jsonl.gz", Registry()

    def flushed(compressor, text):
        return compressor.compress(text.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)

    compressor = zlib.compressobj(wbits=31)
    first = flushed(compressor, '{"timestamp":"2026-11-21T10:30:00.000000Z","step":1,"loss":1}\n')
    torn = flushed(compressor, "".join(f"{step}" for step in range(3000)))
    log.write_bytes(first + torn[: len(torn) // 2])

    def mend_and_go_on():
        with handlers.attach("jsonl", registry=bus, path=log):
            for step in range(2, 400):
                bus.execute(("training", "step"), {"loss": step**0.5}, {"step": step})

    assert steps([log], mend_and_go_on) == [[1], list(range(2, 400))]


def cut_off(log, dice):
    """A log of the handler's, which is cut as if it had been killed in its last write."""
    bus = Registry()
    with handlers.attach("jsonl", registry=bus, path=log, background=True) as attachment:
        sizes = []
        for steps in (range(20), range(20, 200)):
            for step in steps:
                bus.execute(("training", "step"), {"loss": dice.random()}, {"step": step})
            assert attachment.flush(60)
            sizes.append(log.stat().st_size)
        data = log.read_bytes()
    log.unlink()
    log.write_bytes(data[: dice.randrange(sizes[0] + 1, sizes[1])])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("remembered", [100_000, 15])
def test_nothing_is_left_out_behind_an_end_that_was_mended(
    tmp_path, steps, monkeypatch, seed, remembered
):
    """What the torn end held is cut off with it, though it was given already."""
    monkeypatch.setattr(following, "REMEMBERED", remembered)
    log, bus = tmp_path / "run.jsonl.gz", Registry()
    cut_off(log, random.Random(seed))

    def mend_and_go_on():
        with handlers.attach("jsonl", registry=bus, path=log):
            for step in range(1000, 1100):
                bus.execute(("training", "step"), {"loss": step**0.5}, {"step": step})

    before, after = steps([log], mend_and_go_on)
    whole = [entry.metadata["step"] for entry in read_entries(log)]
    if remembered == 100_000:
        assert set(whole) <= set(before + after)
        assert after == [step for step in whole if step >= 1000]
    assert len(before + after) == len(set(before + after))


def test_a_compressed_file_that_is_damaged_for_good_is_given_up_once(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    log.write_bytes(gzip.compress(line(1).encode()) + b"damage")
    heard = []
    followed = Followed(log, lambda *bad: heard.append(bad))
    assert [one.number for one in followed.poll()] == [1]
    for _ in range(3):
        assert list(followed.poll()) == []
    followed.close()
    ((number, reason),) = heard
    assert number == 2
    assert reason.startswith("the gzip file is damaged: ")


def test_following_can_begin_in_the_middle(log):
    log.write_text(line(1) + line(2))
    followed = Followed(log, print, position=len(line(1)))
    assert [one.text for one in followed.poll()] == [line(2).rstrip().encode()]
    followed.close()


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        list(follow_entries([tmp_path], wait=lambda: False))
