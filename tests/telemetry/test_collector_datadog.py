"""`enable_datadog=True`: the run's events reach an Agent, once."""

import os
import socket

import pytest

import telemetry
from telemetry import HandlerExistsError, MetricsCollector, Registry


@pytest.fixture
def agent(monkeypatch):
    """What an Agent on this machine received, a statement a line."""
    for name in os.environ:
        if name.startswith(("DATADOG_", "DD_")):
            monkeypatch.delenv(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)  # noqa: FBT003 -- of the standard library
        monkeypatch.setenv("DD_AGENT_HOST", "127.0.0.1")
        monkeypatch.setenv("DD_DOGSTATSD_PORT", str(server.getsockname()[1]))

        def received():
            lines = []
            while True:
                try:
                    lines += server.recv(65536).decode().splitlines()
                except BlockingIOError:
                    # Of gauges and counts, without the client's own time stamps.
                    return sorted(line.partition("|c:")[0] for line in lines)

        yield received


def ids(bus):
    return {info.id for info in bus.list_handlers()}


def test_the_seeds_metrics_reach_the_agent(bus, agent):
    collector = MetricsCollector("run_123", "user_456", enable_datadog=True, registry=bus)
    assert ids(bus) == {"datadog-run_123"}
    collector.collect_training_metrics(0.5, 2.3, 1e-4, 100)
    collector.collect_rl_metrics(step=100, kl_divergence=0.01)
    collector.close()
    assert ids(bus) == set()
    tags = "#run_id:run_123,user_id:user_456"
    assert agent() == [
        f"rl.kl_divergence:0.01|g|{tags}",
        f"training.grad_norm:2.3|g|{tags}",
        f"training.learning_rate:0.0001|g|{tags}",
        f"training.loss:0.5|g|{tags}",
        f"training.step:1|c|{tags}",
    ]
    collector.close()


def test_a_timed_operation_is_a_duration_in_milliseconds(bus, agent):
    with (
        MetricsCollector("r", enable_datadog=True, registry=bus) as collector,
        collector.time_operation("forward_backward"),
    ):
        pass
    names = {line.partition(":")[0] for line in agent()}
    assert names == {"performance.forward_backward_duration_ms"}


def test_collectors_of_one_run_share_the_handler(bus, agent):
    first, second = (MetricsCollector("r", enable_datadog=True, registry=bus) for _ in range(2))
    first.collect_rl_metrics(1, entropy=1.5)
    first.close()
    first.close()
    assert ids(bus) == {"datadog-r"}
    second.collect_rl_metrics(2, entropy=2.5)
    second.close()
    assert ids(bus) == set()
    assert agent() == ["rl.entropy:1.5|g|#run_id:r", "rl.entropy:2.5|g|#run_id:r"]


def test_runs_side_by_side_send_their_own_events_only(bus, agent):
    with (
        MetricsCollector("a", enable_datadog=True, registry=bus) as first,
        MetricsCollector("b", enable_datadog=True, registry=bus) as second,
    ):
        assert ids(bus) == {"datadog-a", "datadog-b"}
        first.collect_rl_metrics(1, entropy=1.5)
        second.collect_rl_metrics(1, entropy=2.5)
        bus.execute(("rl", "step"), {"entropy": 3.0}, {"step": 1})
        with telemetry.context(run_id="a"):
            bus.execute(("rl", "step"), {"entropy": 4.5}, {"step": 1})
    assert agent() == [
        "rl.entropy:1.5|g|#run_id:a",
        "rl.entropy:2.5|g|#run_id:b",
        "rl.entropy:4.5|g|#run_id:a",
    ]


def test_a_handler_detached_by_hand_is_no_trouble_to_close(bus, agent):
    collector = MetricsCollector("r", enable_datadog=True, registry=bus)
    bus.detach("datadog-r")
    collector.collect_rl_metrics(1, entropy=1.5)
    collector.close()
    assert agent() == []


def test_a_taken_id_is_refused_and_leaves_nothing(bus, agent):
    with (
        bus.attach("datadog-r", ("x",), lambda *_: None),
        pytest.raises(HandlerExistsError, match="'datadog-r' is already attached"),
    ):
        MetricsCollector("r", enable_datadog=True, registry=bus)
    with MetricsCollector("r", enable_datadog=True, registry=bus):
        assert ids(bus) == {"datadog-r"}
    assert ids(bus) == set()


def test_without_datadog_nothing_is_attached_or_imported(run_script):
    done = run_script(
        "import sys, telemetry\n"
        "with telemetry.create_metrics_collector('r') as collector:\n"
        "    collector.collect_training_metrics(0.5, 1.0, 0.1, 1)\n"
        "    collector.get_metrics_summary()\n"
        "print(telemetry.list_handlers(), 'handlers' in sys.modules, 'datadog' in sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("[] False False\n", "")


def test_a_missing_package_says_what_to_install(run_script):
    done = run_script(
        "import sys, telemetry\n"
        "sys.modules['datadog'] = None\n"
        "try:\n"
        "    telemetry.create_metrics_collector('r', enable_datadog=True)\n"
        "except telemetry.MissingExtraError as error:\n"
        "    print(error, telemetry.list_handlers())"
    )
    assert "pip install 'trainbus[datadog]'" in done.stdout
    assert done.stdout.endswith(" []\n")


def test_a_file_of_the_users_that_hides_the_handlers_is_named(run_script, tmp_path):
    (tmp_path / "handlers.py").write_text("")
    done = run_script(
        "import telemetry\n"
        "try:\n"
        "    telemetry.create_metrics_collector('r', enable_datadog=True)\n"
        "except telemetry.ShadowedPackageError as error:\n"
        "    print(error)"
    )
    assert f"'import handlers' finds {tmp_path / 'handlers.py'}" in done.stdout


def test_a_bus_that_is_gone_leaves_nothing_behind(agent):
    from telemetry.collector.datadog import HANDLERS

    before = len(HANDLERS.of_bus)
    bus = Registry()
    MetricsCollector("r", enable_datadog=True, registry=bus).close()
    assert HANDLERS.of_bus[bus] == {}
    del bus
    import gc

    gc.collect()
    assert len(HANDLERS.of_bus) <= before


FORK = """
import os, signal, threading
import telemetry
from telemetry.collector.datadog import HANDLERS

thread = threading.Thread(target=HANDLERS._lock.acquire)  # another thread is attaching
thread.start()
thread.join()
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    telemetry.create_metrics_collector("r", enable_datadog=True).close()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_forked_while_another_thread_attaches_can_attach(run_script):
    done = run_script(FORK)
    assert (done.stdout, done.stderr) == ("7\n", "")
