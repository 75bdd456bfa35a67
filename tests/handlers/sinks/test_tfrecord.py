"""Records beside those that TensorBoard's own writer makes."""

import io
import random
import struct

import numpy as np
import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from handlers.tfrecord import LONGEST, Framing


@pytest.fixture(scope="module")
def framing():
    return Framing(np)


def by_tensorboard(message):
    file = io.BytesIO()
    RecordWriter(file).write(message)
    return file.getvalue()


def test_the_checksum_is_the_one_of_the_standard(framing):
    """RFC 3720, B.4: 32 zeros, 32 times 0xFF, and 0 to 31; of 123456789 it is 0xE3069283."""
    known = {
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        b"123456789": 0xE3069283,
    }
    for message, record in zip(known, framing.records(list(known)), strict=True):
        masked = struct.unpack("<I", record[-4:])[0]
        turned = (masked - 0xA282EAD8) % 2**32
        assert (turned >> 17 | turned << 15) % 2**32 == known[message]


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, 4, 5, *(LONGEST + more for more in (-1, 0, 1, 3, 4, 5)), 3 * LONGEST]
)
def test_a_message_of_any_length_is_framed_as_tensorboard_does(framing, length):
    message = random.Random(length).randbytes(length)
    assert framing.records([message]) == [by_tensorboard(message)]


def test_messages_of_different_lengths_are_framed_together(framing):
    dice = random.Random(0)
    messages = [dice.randbytes(dice.randrange(4 * LONGEST)) for _ in range(100)]
    assert framing.records(messages) == [by_tensorboard(message) for message in messages]


def test_of_no_messages_there_are_no_records(framing):
    assert framing.records([]) == []
