"""The last lines are found from the end, whatever the pieces that are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.viewer.logs import last_lines as module
from telemetry.viewer.logs.last_lines import last_lines


def anything(line, start):
    return True


@given(
    st.lists(
        st.binary(max_size=9).map(lambda text: text.replace(b"\n", b"").replace(b"\r", b"")),
        max_size=9,
    ),
    st.sampled_from([b"", b"rest"]),
    st.integers(0, 12),
    st.integers(1, 20),
)
def test_they_are_those_that_reading_from_the_start_gives(
    tmp_path_factory, texts, rest, count, chunk
):
    log = tmp_path_factory.mktemp("logs") / "run.jsonl"
    whole = b"".join(text + b"\n" for text in texts)
    log.write_bytes(whole + rest)
    data = log.read_bytes()

    def wanted_at(line, start):
        assert data[start : start + len(line) + 1] == line + b"\n"
        assert start == 0 or data[start - 1 : start] == b"\n"
        return b"\x00" not in line

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = last_lines(log, count, wanted_at)
    wanted = [text for text in texts if b"\x00" not in text]
    assert found == (wanted[-count:] if count else [], len(whole))


def test_what_is_before_them_is_not_read(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_bytes(b"line\n" * 1_000_000)
    asked = []
    last_lines(log, 3, lambda line, start: asked.append(line) or True)
    assert len(asked) == 3


def test_a_line_that_is_too_long_is_left_out_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(module, "LONGEST_LINE", 250)
    log = tmp_path / "run.jsonl"
    log.write_bytes(b"one\n" + b"x" * 1000 + b"\ntwo\n" + b"y" * 250 + b"\n")
    found, _ = last_lines(log, 9, anything)
    assert found == [b"one", b"two", b"y" * 250]
