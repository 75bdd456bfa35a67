"""Measurements reduced over the ranks of a distributed run.

Ranks are real processes that torchrun starts; see across_ranks_worker.py for what each of them
does. What they have to find is worked out by hand.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this torch is built without torch.distributed", allow_module_level=True)

WORKER = Path(__file__).with_name("across_ranks_worker.py")
CHECKS = [
    *("early", "by_hand", "absent", "special", "filters", "all_ranks", "collectives"),
    "on_device",
    *("failing_sink", "one_of_many_sinks_fails", "pattern", "fork", "disagreement"),
]
CONTRACT = (
    "Every rank must attach the handler with the same metrics, and emit the event as often as the "
    "others, in the same order, from one thread. To report each rank's own value: leave out "
    "reduce=."
)


def start(folder, world, seconds, *checks):
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", world, WORKER, folder, seconds]
    own = {"OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        own["GLOO_SOCKET_IFNAME"] = "lo"
    done = subprocess.run(
        [*map(str, command), *checks],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What four ranks saw."""
    once = functools.cache(lambda: start(tmp_path_factory.mktemp("ranks"), 4, 600, *CHECKS))
    return once()


def of(ranks, name):
    """What each rank saw in one check."""
    return [rank[name] for rank in ranks]


def reports(mean, total, most, least):
    return {"mean loss": mean, "sum loss": total, "max loss": most, "min loss": least}


def test_values_of_every_type_are_reduced_and_rank_zero_reports_them(ranks):
    # 1, 2, 3 and 4; true, false, true and 1
    zero, *others = of(ranks, "by_hand")
    flags = {"mean flag": "0.75", "sum flag": "3.0", "max flag": "1.0", "min flag": "0.0"}
    assert zero == [reports("2.5", "10.0", "4.0", "1.0") | flags]
    assert others == ["OffRank"] * 3


def test_a_rank_without_a_value_does_not_count(ranks):
    zero, *_ = of(ranks, "absent")
    assert zero == [
        reports(repr(8 / 3), "8.0", "4.0", "1.0"),  # of 1, 3 and 4
        reports("3.0", "9.0", "4.0", "2.0"),  # of 2, 3 and 4: the reporting rank has none
        {},
        {},
        reports("1.0", "1.0", "1.0", "1.0"),
    ]


def test_what_is_not_finite_on_one_rank_is_so_everywhere(ranks):
    zero, *_ = of(ranks, "special")
    nan = reports("nan", "nan", "nan", "nan")
    positive = reports("inf", "inf", "inf", "1.0")
    assert zero == [nan, nan, positive, reports("-inf", "-inf", "-inf", "-inf"), positive]


def test_filters_come_after_the_reduction(ranks):
    # The means of n, n + 1, n + 2 and n + 3; the third is refused, then every second is taken.
    means = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    zero, *others = of(ranks, "filters")
    assert zero == [[{"mean loss": "1.5"}, {"mean loss": "4.5"}, {"mean loss": "6.5"}], means, 6]
    assert others == [["OffRank", [], 6]] * 3


def test_all_ranks_can_report_the_same(ranks):
    assert of(ranks, "all_ranks") == [[reports("1.5", "6.0", "3.0", "0.0")]] * 4


def test_there_are_two_collectives_for_an_event_at_most(ranks):
    expected = {
        "nothing reduced": [0, 0],
        "a mean": [2, 1],  # of two events, in one process group
        "a mean and a sum": [2, 1],
        "a maximum and a minimum": [2, 1],
        "all four of two measurements": [4, 1],
        "33 sums": [4, 1],
        "another event": [0, 0],
    }
    for found, _ in of(ranks, "collectives"):
        assert found == list(expected.values())


def test_what_is_reduced_on_a_device_stays_there(ranks):
    """The four reduced values, and whether any rank had one."""
    nan = reports("nan", "nan", "nan", "nan")
    for kept, seen in of(ranks, "on_device"):
        assert kept == [
            reports("2.5", "10.0", "4.0", "1.0"),
            reports("3.0", "9.0", "4.0", "2.0"),
            {},
            nan,
        ]
        assert seen == [["Tensor"] * 5] * 4


def test_before_there_are_ranks_the_value_is_the_own_one(ranks):
    zero, *_ = of(ranks, "early")
    assert zero == [{"sum loss": "7.0"}, {"sum loss": "10.0"}]


def test_a_sink_that_fails_on_rank_zero_keeps_no_rank_waiting(ranks):
    # Of four further events two are reduced, the one that failed and the one after it.
    zero, *others = of(ranks, "failing_sink")
    assert zero == [[reports("2.5", "10.0", "4.0", "1.0")], ["OSError('gone')"], 4, False, 0]
    assert others == [["OffRank", [], 4, True, 0]] * 3


def test_of_several_sinks_one_may_fail(ranks):
    for rank, (kept, during, afterwards) in enumerate(of(ranks, "one_of_many_sinks_fails")):
        assert kept == [{"mean loss": "1.5"}] * (1 if rank == 2 else 4)
        assert during == (1 if rank == 2 else 2)
        assert afterwards == 0


def test_a_pattern_does_not_reduce_what_the_bus_says_of_one_rank(ranks):
    # Of the values 0, 1, 2, 3 and 1, 2, 3, 4; on rank 1 another handler fails in between.
    failed = of(ranks, "pattern")
    assert failed == [
        [[{"mean loss": "1.5"}, {"mean loss": "2.5"}], rank == 1] for rank in range(4)
    ]


def test_a_forked_child_does_not_speak_for_its_parent(ranks):
    assert of(ranks, "fork") == [[[{"mean loss": "1.5"}] * 2, 0]] * 4


def test_ranks_that_emit_different_events_are_told(ranks):
    for rank, (failures, active, left) in enumerate(of(ranks, "disagreement")):
        event = "training.step" if rank else "training.epoch"
        told = "The error was: the ranks reduce different things at the same time"
        assert failures == [f"Cannot reduce loss of {event} over 4 ranks. {CONTRACT} {told}"]
        assert (active, left) == (False, 0)


def test_nothing_is_left_at_the_end(ranks):
    assert of(ranks, "left") == [0] * 4


def test_a_rank_that_emits_alone_fails_in_time_and_what_is_trained_goes_on(tmp_path):
    ranks = of(start(tmp_path, 2, 20, "alone"), "alone")
    for rank, (kept, failures, trained, active, left) in enumerate(ranks):
        assert kept == ("OffRank" if rank else [{"mean loss": "1.0"}])
        assert len(failures) == (3 if rank else 2)
        for failure in failures:
            told = "Cannot reduce loss of training.step over 2 ranks. "
            assert failure.startswith(f"{told}{CONTRACT} The error was: ")
        assert "Timed out" in ranks[1][1][0]
        assert trained == 4.0  # 1 summed over two ranks, twice
        assert (active, left) == (True, 0)
