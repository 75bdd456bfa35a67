"""Measurements reduced over the processes of a run of JAX; see across_jax_ranks_worker.py."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")

WORKER = Path(__file__).with_name("across_jax_ranks_worker.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes saw."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", str(WORKER), str(folder)]
    with socket.socket() as held:  # until the first of them asks for this very port
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            held.setsockopt(socket.SOL_SOCKET, option, 1)
        held.bind(("127.0.0.1", 0))
        command += [str(held.getsockname()[1])]
        processes = [
            subprocess.Popen(
                [*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True
            )
            for rank in range(2)
        ]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=600)
                assert process.returncode == 0, errors[-4000:]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def of(ranks, name):
    return [found[name] for found, _, _ in ranks]


def reports(mean, total, most, least):
    return {"mean loss": mean, "sum loss": total, "max loss": most, "min loss": least}


def test_values_are_reduced_and_rank_zero_reports_them(ranks):
    zero, other = of(ranks, "values")
    assert zero == [
        reports("2.5", "5.0", "4.0", "1.0"),
        reports("1.3", "2.6", "2.5", "0.1"),  # 0.1 as a double
        reports("0.5", "1.0", "1.0", "0.0"),
        reports("7.0", "7.0", "7.0", "7.0"),
        {},
        {},
        {},
        reports("nan", "nan", "nan", "nan"),
        reports("inf", "inf", "inf", "1.0"),
        reports("3.0", "6.0", "3.0", "3.0"),
        {"sum m0": "1.0", "sum m32": "65.0"},
    ]
    assert other == "OffRank"


def test_more_values_than_fit_into_one_collective(ranks):
    assert of(ranks, "many") == [{f"sum m{n}": repr(2.0 * n + 1) for n in range(33)}] * 2


def test_what_is_reduced_on_a_device_stays_there(ranks):
    expected = [reports("0.5", "1.0", "1.0", "0.0"), reports("7.0", "7.0", "7.0", "7.0"), {}]
    assert of(ranks, "on_device") == [expected] * 2


def test_a_sink_that_fails_on_rank_zero_keeps_no_rank_waiting(ranks):
    assert of(ranks, "failing_sink") == [[[reports("0.5", "1.0", "1.0", "0.0")], 0], ["OffRank", 1]]


def test_ranks_that_emit_different_events_are_told(ranks):
    for failures, active in of(ranks, "disagreement"):
        (failure,) = failures
        assert "over 2 ranks. Every rank must attach the handler" in failure
        assert failure.endswith("The error was: the ranks reduce different things at the same time")
        assert not active


def test_nothing_is_left_and_nothing_else_is_changed(ranks):
    assert [rest for _, *rest in ranks] == [[0, "float32"]] * 2
