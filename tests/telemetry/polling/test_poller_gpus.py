"""GPUs, through NVIDIA's own Python client, which finds a small NVML of the test's making.

It has the entry points that are used, with the signatures of
https://docs.nvidia.com/deploy/nvml-api/, and says what each test makes it say.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

LIBRARY = """
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned int gpu, memory; } utilization;

static unsigned int utilizations[] = UTILIZATIONS;
static unsigned long long used[] = USED;
static int asked, initialized, opened;

int open_sessions(void) { return initialized; }
const char *nvmlErrorString(int code) { return "the test's own error"; }
int nvmlInitWithFlags(unsigned int flags) {
    if (INIT) return INIT;
    initialized++;
    opened++;
    return 0;
}
int nvmlShutdown(void) { initialized--; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    *device = (char *)0 + 1 + index;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) {
    asked++;
    if (FAILS) return FAILS;
    rates->gpu = utilizations[(char *)device - (char *)1];
    rates->memory = 99;
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory *info) {
    if (MEMORY_FAILS) return MEMORY_FAILS;
    info->used = used[(char *)device - (char *)1];
    info->total = 80000000000ULL;
    info->free = info->total - info->used;
    return 0;
}
"""

SCRIPT = """
import ctypes, json, queue, sys
import telemetry
from telemetry import poller

events = queue.SimpleQueue()

def hear(event, measurements, metadata, config):
    events.put([".".join(event), dict(measurements), repr(metadata.get("reason"))])

telemetry.attach("hear", telemetry.ALL, hear)
with poller.start(0.001, host=False, probes={"n": iter(range(1, 100)).__next__}):
    heard = [events.get(timeout=60)]
    while heard[-1][1].get("n", 0) < int(sys.argv[1]):
        heard.append(events.get(timeout=60))
for event in heard:
    if "failure" in event[0]:
        event[1] = {}
print(json.dumps(heard))
if len(sys.argv) > 2:
    print(ctypes.CDLL(sys.argv[2]).open_sessions())
"""


@pytest.fixture
def sampled(tmp_path):
    """The first samples, on a host whose NVML is compiled with these definitions."""
    compiler = shutil.which("gcc") or shutil.which("cc")

    def run(samples=1, **definitions):
        library = tmp_path / "libnvidia-ml.so.1"
        if definitions:
            if compiler is None:
                pytest.skip("there is no C compiler to make an NVML with: install gcc")
            source = tmp_path / "nvml.c"
            source.write_text(LIBRARY)
            defined = {
                "COUNT": 1, "INIT": 0, "FAILS": 0, "MEMORY_FAILS": 0,
                "UTILIZATIONS": "{0}", "USED": "{0}", **definitions,
            }  # fmt: skip
            flags = [f"-D{name}={value}" for name, value in defined.items()]
            command = [compiler, "-shared", "-fPIC", "-nostdlib", *flags]
            subprocess.run([*command, "-o", library, source], check=True)
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)
        done = subprocess.run(
            [sys.executable, "-W", "error", script, str(samples), *[library] * bool(definitions)],
            env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        heard, *sessions = done.stdout.splitlines()
        assert sessions in ([], ["0"]), "NVML was opened and not closed"
        return json.loads(heard)

    return run


def measured(event):
    return {name: value for name, value in event[1].items() if name != "n"}


def test_one_gpu_is_measured_as_nvml_says(sampled):
    (sample,) = sampled(UTILIZATIONS="{37}", USED="{2500000000ULL}")
    assert sample[0] == "performance.sample"
    assert measured(sample) == {"gpu_utilization": 37.0, "gpu_memory_used_gb": 2.5}


def test_of_several_there_is_the_mean_the_sum_and_each(sampled):
    (sample,) = sampled(
        COUNT=3, UTILIZATIONS="{10,20,90}", USED="{1000000000ULL,2000000000ULL,4500000000ULL}"
    )
    assert measured(sample) == {
        "gpu_utilization": 40.0,
        "gpu_memory_used_gb": 7.5,
        "gpu0_utilization": 10.0,
        "gpu0_memory_used_gb": 1.0,
        "gpu1_utilization": 20.0,
        "gpu1_memory_used_gb": 2.0,
        "gpu2_utilization": 90.0,
        "gpu2_memory_used_gb": 4.5,
    }


def test_a_host_without_a_driver_has_no_gpus(sampled):
    assert [measured(event) for event in sampled(samples=3, INIT=9)] == [{}, {}, {}]


def test_a_host_with_a_driver_and_no_gpu_has_none(sampled):
    assert [measured(event) for event in sampled(samples=2, COUNT=0)] == [{}, {}]


def test_this_host_has_what_its_own_library_says(sampled):
    (sample,) = sampled()
    known = {"gpu_utilization", "gpu_memory_used_gb"}
    assert sample[0] == "performance.sample"
    assert {name for name in measured(sample) if name[3] == "_"} in (set(), known)


def test_a_driver_of_another_version_is_a_failure(sampled):
    failure, *samples = sampled(samples=3, INIT=18)
    assert failure[0] == "telemetry.probe.failure"
    assert "NVMLError_LibRmVersionMismatch" in failure[2]
    assert [event[0] for event in samples] == ["performance.sample"] * 3


def test_a_gpu_that_was_lost_is_said_once_and_measured_again_when_it_is_back(sampled):
    heard = sampled(
        samples=4, UTILIZATIONS="{50}", USED="{1000000000ULL}", FAILS="(asked==2||asked==3?15:0)"
    )
    assert [event[0] for event in heard] == [
        "performance.sample",
        "telemetry.probe.failure",
        "performance.sample",
        "performance.sample",
        "performance.sample",
    ]
    assert "NVMLError_GpuIsLost" in heard[1][2]
    found = {"gpu_utilization": 50.0, "gpu_memory_used_gb": 1.0}
    assert [measured(event) for event in heard] == [found, {}, {}, {}, found]


def test_a_driver_that_was_loaded_anew_is_opened_anew(sampled):
    heard = sampled(samples=3, UTILIZATIONS="{50}", FAILS="(opened==1&&asked>1?1:0)")
    assert [event[0].split(".")[1] for event in heard] == ["sample", "probe", "sample", "sample"]
    assert "NVMLError_Uninitialized" in heard[1][2]
    assert [measured(event).get("gpu_utilization") for event in heard] == [50.0, None, None, 50.0]


def test_a_gpu_in_mig_mode_has_memory_and_no_utilization(sampled):
    (sample,) = sampled(COUNT=2, FAILS="(asked==1?3:0)", UTILIZATIONS="{0,30}",
                        USED="{1000000000ULL,3000000000ULL}")  # fmt: skip
    assert measured(sample) == {
        "gpu_utilization": 30.0,
        "gpu_memory_used_gb": 4.0,
        "gpu0_memory_used_gb": 1.0,
        "gpu1_utilization": 30.0,
        "gpu1_memory_used_gb": 3.0,
    }


def test_a_gpu_without_memory_of_its_own_has_utilization(sampled):
    (sample,) = sampled(UTILIZATIONS="{80}", MEMORY_FAILS=3)
    assert measured(sample) == {"gpu_utilization": 80.0}
