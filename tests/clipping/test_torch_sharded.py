"""Distributed models give the norms, thresholds and weights of one process, on every rank.

Ranks are real processes that torchrun starts; see sharded_worker.py for what each of them does.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import clipping

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this torch is built without torch.distributed", allow_module_level=True)

WORKER = Path(__file__).with_name("sharded_worker.py")
LAYOUTS = {2: ["ddp", "fsdp", "fsdp_columns", "tp"], 4: ["fsdp", "hsdp", "fsdp_tp"]}
HISTORIES = ["global", "per_layer", "per_param"]
SCOPES = {
    "auto": HISTORIES,
    "percentile": HISTORIES,
    "zscore": HISTORIES,
    "agc": [*HISTORIES, "per_unit"],
}
WEIGHT = 1
"""Which parameter `check_nonfinite` spoils: the weight of the first layer."""


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """What the ranks of each world size saw; a world is started when it is first asked for."""

    @functools.cache
    def once(world):
        return start(world, tmp_path_factory.mktemp(f"world{world}"))

    def of_world(world):
        seen, error = once(world)
        assert seen is not None, error
        return seen

    return of_world


def start(world, folder):
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(world), WORKER, folder]
    own = {"OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        own["GLOO_SOCKET_IFNAME"] = "lo"
    done = subprocess.run(
        command, env=os.environ | own, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        return None, done.stderr[-6000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)], ""


@pytest.fixture(params=[2, 4], ids="{} ranks".format)
def ranks(request, started):
    return started(request.param)


def runs(ranks, layout):
    """For each clipper and scope what every rank saw, what one process saw, and the reference."""
    for name, scopes in SCOPES.items():
        for scope in scopes:
            seen = [rank["training"]["runs"][layout][name][scope] for rank in ranks]
            alone = ranks[0]["training"]["runs"]["single"][name][scope]
            yield f"{name} {scope}", seen, alone, ranks[0]["training"]["reference"][name][scope]


CASES = [(world, layout) for world, layouts in LAYOUTS.items() for layout in layouts]
every_layout = pytest.mark.parametrize(("world", "layout"), CASES)


@every_layout
def test_weights_after_training_are_those_of_one_process(started, world, layout):
    for case, seen, _, reference in runs(started(world), layout):
        assert reference["clipped"] >= 2, case
        for run in seen:
            for weight, expected in zip(run["weights"], reference["weights"], strict=True):
                np.testing.assert_allclose(weight, expected, rtol=1e-8, atol=1e-10, err_msg=case)


@every_layout
def test_thresholds_are_those_of_one_process(started, world, layout):
    for case, seen, _, reference in runs(started(world), layout):
        expected = [thresholds[0] for thresholds in reference["thresholds"]]
        for run in seen:
            np.testing.assert_allclose(run["thresholds"], expected, rtol=1e-8, err_msg=case)


@every_layout
def test_every_rank_emits_the_norms_of_the_whole_model(started, world, layout):
    for case, seen, _, reference in runs(started(world), layout):
        for run in seen:
            total = [m["grad_norm"] for name, _, m in run["events"] if name == "stop"]
            groups = [m["grad_norm"] for name, _, m in run["events"] if name == "group"]
            np.testing.assert_allclose(total, reference["totals"], rtol=1e-8, err_msg=case)
            np.testing.assert_allclose(
                np.hstack(groups), np.hstack(reference["norms"]), rtol=1e-8, err_msg=case
            )
            assert run["events"] == seen[0]["events"], case


@every_layout
def test_state_is_that_of_one_process_and_equal_on_every_rank(started, world, layout):
    for case, seen, alone, _ in runs(started(world), layout):
        assert all(run["state"] == seen[0]["state"] for run in seen), case
        assert seen[0]["state"]["keys"] == alone["state"]["keys"], case
        for name, column in alone["state"].items():
            assert_alike(seen[0]["state"][name], column, f"{case} {name}")


@every_layout
@pytest.mark.parametrize("name", ["auto", "agc"])
def test_a_device_decides_as_the_host_does(started, world, layout, name):
    for rank in started(world):
        for scope, weights in rank["on_device"][layout][name].items():
            expected = rank["training"]["reference"][name][scope]["weights"]
            for weight, reference in zip(weights, expected, strict=True):
                np.testing.assert_allclose(weight, reference, rtol=1e-4, atol=1e-6, err_msg=scope)


def test_a_sharded_run_continues_in_one_process(ranks):
    for rank in ranks:
        resumed = rank["resume"]
        assert resumed["alone"]["state"]["steps"] == 9
        for name in ("weights", "thresholds"):
            assert_alike(resumed["sharded"][name], resumed["alone"][name], name)


@pytest.mark.parametrize("scope", ["global", "per_param"])
@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
def test_what_is_not_finite_on_one_rank_is_dealt_with_on_all(ranks, policy, value, scope):
    key = ["global"] if scope == "global" else ["param", str(WEIGHT)]
    for rank in ranks:
        seen = rank["nonfinite"][f"{policy} {scope} {value}"]
        assert seen["events"] == [[1, [key]]]
        before, after = (history[0 if scope == "global" else WEIGHT] for history in seen["history"])
        assert before == after
        spoilt = [index for index, finite in enumerate(seen["finite"]) if not finite]
        assert spoilt == ([WEIGHT] if policy == "propagate" else [])
        zeros = [index for index, zero in enumerate(seen["zero"]) if zero]
        if policy == "propagate":
            assert zeros == []
        elif policy == "zero" and scope == "per_param":
            assert zeros == [WEIGHT]
        else:
            assert zeros == list(range(7))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_not_finite_on_one_rank_raises_on_all(ranks, value):
    for rank in ranks:
        seen = rank["nonfinite"][f"raise per_param {value}"]
        assert seen["error"] == (
            "Gradients are not finite in 1 of 7 groups, [('param', '1')]: the model's gradient "
            f"norm is {value}. on_nonfinite='raise' allows finite gradients only; gradients and "
            "history are untouched. To go on without such steps: on_nonfinite='skip'."
        )
        assert seen["history"][0] == seen["history"][1]
        assert not any(seen["zero"])


def test_norms_of_all_placements(ranks):
    for rank in ranks:
        seen = rank["placements"]
        np.testing.assert_allclose(*seen["norms"], rtol=1e-12)
        np.testing.assert_allclose(seen["on_device"], seen["norms"][1], rtol=1e-6)
        assert seen["norms"][0] == ranks[0]["placements"]["norms"][0]


def test_unit_norms_of_all_placements(ranks):
    for rank in ranks:
        seen = rank["placements"]
        np.testing.assert_allclose(*seen["units"], rtol=1e-12)
        np.testing.assert_allclose(seen["units_on_device"], seen["units"][1], rtol=1e-6)
        assert seen["units"][0] == ranks[0]["placements"]["units"][0]


def test_local_rows_of_three_rows_and_of_strided_shards(started):
    two = [rank["placements"]["rows"][0] for rank in started(2)]
    four = [rank["placements"]["rows"][0] for rank in started(4)]
    strided = [rank["placements"]["rows"][-1] for rank in started(4)]
    assert two == [[0, 2], [2, 3]]
    assert four == [[0, 1], [1, 2], [2, 3], [0, 0]]
    assert strided == [[0, 2], [4, 6], [2, 4], [6, 8]]


def test_there_is_one_collective_for_each_process_group(started):
    assert [rank["placements"]["collectives"] for rank in started(2)] == [1] * 2
    assert [rank["placements"]["collectives"] for rank in started(4)] == [3] * 4


def test_many_norms_take_a_second_collective(ranks):
    for rank in ranks:
        for (norms, collectives), n in zip(rank["many"], (255, 256), strict=True):
            np.testing.assert_allclose(norms, np.arange(n) * len(ranks) ** 0.5, rtol=1e-12)
            assert collectives == (1 if n == 255 else 2)


def test_sums_that_are_due_are_made_in_place(ranks):
    for rank in ranks:
        assert not any(rank["placements"]["partial"])
        assert rank["placements"]["values"]


def test_tensors_that_are_not_distributed_are_none_of_this(ranks):
    assert all(rank["placements"]["nothing"] is None for rank in ranks)


def test_what_is_not_finite_survives_the_sum(ranks):
    first = [0.0] * (len(ranks) - 1)
    for rank in ranks:
        for name, value in {"nan": np.nan, "inf": np.inf}.items():
            norms, units, norms_on_device, units_on_device = rank["special_values"][name]
            np.testing.assert_equal([norms, norms_on_device], [[value]] * 2)
            np.testing.assert_equal([units, units_on_device], [[*first, value]] * 2)


def test_sequence_parallel_gradients_are_summed_before_they_are_measured(ranks):
    for rank in ranks:
        seen = rank["sequence_parallel"]
        assert seen["due"] == [True, True, False, False]
        np.testing.assert_allclose(*seen["norms"], rtol=1e-5)
        for gradient, alone in zip(*seen["grads"], strict=True):
            np.testing.assert_allclose(gradient, alone, rtol=1e-4, atol=1e-8)


def test_ranks_that_disagree_about_the_gradients_are_told(ranks):
    def told(n):
        return (
            f"The ranks have gradients for different parameters (this one has {n}), so norms "
            "cannot be added up. Every rank must clip the same parameters in the same order: give "
            "those without a gradient zeros. The gradients are untouched."
        )

    for index, rank in enumerate(ranks):
        seen = rank["refusals"]
        assert seen["disagreement"] == told(2 if index else 1)
        assert seen["many"] == told(300 if index else 200)
        assert seen["untouched"] == [True, True]
        assert seen["steps"] == 0


def test_a_mesh_without_this_rank_is_refused(ranks):
    assert ranks[0]["refusals"]["foreign"] is None
    assert ranks[1]["refusals"]["foreign"] == (
        "Cannot clip a gradient of shape (2, 2) on DeviceMesh((1,), 'cpu', stride=((),)), of which "
        "rank 1 is no part: its norm is not known here. Clip the parameters of each mesh by "
        "themselves, on its ranks, with clipping.torch.apply_grads and a clipper of their own. "
        "The gradients are untouched."
    )


def test_gradients_on_the_cpu_need_a_backend_for_the_cpu(ranks):
    for rank in ranks:
        assert rank["refusals"]["unreachable"] == (
            "Cannot clip gradients on the CPU that are sharded over a mesh with the backend "
            "'cuda:gloo', which reduces nothing there. Give one for the CPU too: "
            "torch.distributed.init_process_group('cpu:gloo,cuda:nccl'). The gradients are "
            "untouched."
        )


def scattered(shape, rows):
    return (
        "scope='per_unit' needs the units of every rank to follow each other, but of the units of "
        f"a gradient of shape {shape} the placements give one rank {rows}. Allowed: Shard, "
        "Replicate, and what fully_shard makes of them; or another scope. The gradients are "
        "untouched."
    )


def test_units_that_do_not_follow_each_other_are_refused(started):
    for rank in started(4):
        assert rank["refusals"]["scattered"] == scattered((8, 2), [0, 1, 4, 5])
        assert rank["refusals"]["scattered_norm"] == [4.0]


def test_units_that_are_scattered_on_one_rank_are_refused_on_all(ranks):
    for rank in ranks:
        assert rank["refusals"]["scattered_on_one"] == scattered((3, 2), [0, 2])


def test_the_layout_is_found_out_once(ranks):
    assert all(all(rank["layout_is_found_once"]) for rank in ranks)


@pytest.mark.parametrize("scope", ["global", "per_layer", "per_param", "per_unit"])
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
def test_nothing_is_read_from_a_device(policy, scope):
    """On torch's meta device a read would fail; the collectives of its mesh do nothing."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        parts = [torch.ones(n, 3, device="meta") for n in (1, 2)]
        model = torch.nn.Module()
        for name, part, rows in zip("ab", parts, (3, 4), strict=True):
            whole = {"shape": torch.Size((rows, 3)), "stride": (3, 1)}
            sharded = DTensor.from_local(part, mesh, [Shard(0)], **whole)
            model.register_parameter(name, torch.nn.Parameter(sharded))
            getattr(model, name).grad = sharded.clone()
        clippers = [clipping.AGC(scope=scope, on_nonfinite=policy)]
        if scope != "per_unit":
            clippers += [kind(scope=scope, on_nonfinite=policy) for kind in HISTORY_CLIPPERS]
        for clipper in clippers:
            clipping.apply(model, clipper)
    finally:
        torch.distributed.destroy_process_group()


HISTORY_CLIPPERS = [clipping.AutoClip, clipping.ZScoreClip]


def assert_alike(one, other, what):
    """Nested lists of equal structure, with numbers that are close."""
    if isinstance(other, list):
        assert len(one) == len(other), what
        for pair in zip(one, other, strict=True):
            assert_alike(*pair, what)
    elif isinstance(other, int | float):
        assert one == pytest.approx(other, rel=1e-8, abs=1e-10), what
    else:
        assert one == other, what
