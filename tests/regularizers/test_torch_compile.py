"""Under ``torch.compile`` the loss is left out of the graphs; its functions can be compiled."""

import subprocess
import sys

import pytest
import torch

import telemetry
from regularizers import CustomLoss, RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

SPECS = [
    RegularizerSpec(penalties.l1, 0.1, "sparsity"),
    RegularizerSpec(lambda data, x: (x.square().sum(), {"largest": x.max()}), 0.2, "decay"),
]
# What the compiler itself does, of any tensor that is no leaf, and in importing its code generator.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
]
EVENTS = ["start", "start", "stop", "start", "stop", "stop"]


def nll(data, x):
    return -(data * x).mean()


@pytest.fixture(autouse=True)
def forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Model(torch.nn.Module):
    """With the loss inside, as a LightningModule has it."""

    def __init__(self, *, track):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 2)
        self.loss = CustomLoss(nll, SPECS, track_grad_norms=track)

    def forward(self, inputs, data):
        logprobs = self.layer(inputs).log_softmax(-1)
        output = self.loss(data, logprobs, wrt=self.parameters())
        return output.loss * 2, output


def call_function(model, inputs, data):
    logprobs = model.layer(inputs).log_softmax(-1)
    output = custom_loss(data, logprobs, nll, regularizers=SPECS, track_grad_norms=True)
    return output.loss * 2, output


def results(call, model, inputs, data):
    model.zero_grad()
    with capture(telemetry.ALL) as events:
        loss, output = call(inputs, data)
    loss.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    return [event.event[-1] for event in events], output.to_dict(), [loss.detach(), *grads]


@pytest.mark.parametrize("track", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_model_with_the_loss_inside_sends_events_in_every_call(backend, track):
    model = Model(track=track)
    compiled = torch.compile(model, backend=backend)
    for step in range(3):
        inputs, data = torch.randn(4, 3), torch.rand(4, 2)
        kinds, metrics, tensors = results(compiled, model, inputs, data)
        model.loss.step = step
        _, expected_metrics, expected = results(model, model, inputs, data)
        assert kinds == EVENTS
        assert metrics["regularizers"]["decay"]["custom"].keys() == {"largest"}
        assert metrics.keys() == expected_metrics.keys()
        assert metrics["loss_total"] == pytest.approx(expected_metrics["loss_total"], rel=1e-5)
        torch.testing.assert_close(tensors, expected)
        assert model.loss.step == step + 1


def test_a_compiled_function_may_call_custom_loss():
    model = Model(track=True)
    compiled = torch.compile(call_function, backend="aot_eager")
    for _ in range(2):
        inputs, data = torch.randn(4, 3), torch.rand(4, 2)
        kinds, metrics, tensors = results(lambda *a: compiled(model, *a), model, inputs, data)
        _, expected_metrics, expected = results(
            lambda *a: call_function(model, *a), model, inputs, data
        )
        assert kinds == EVENTS
        assert metrics == expected_metrics
        torch.testing.assert_close(tensors, expected)


def test_what_a_loss_runs_is_not_compiled_with_its_caller():
    compiled = []

    def remembering(data, x):
        compiled.append(torch.compiler.is_compiling())
        return x.sum()

    def call(x):
        compiled.append(torch.compiler.is_compiling())
        specs = [RegularizerSpec(remembering, 1.0, "sum")]
        return custom_loss(None, x * 2, remembering, regularizers=specs).loss * 2

    torch.compile(call, backend="aot_eager")(torch.ones(2, requires_grad=True))
    assert compiled == [True, False, False]


def test_a_single_graph_cannot_have_the_loss_inside_and_the_error_says_why():
    compiled = torch.compile(Model(track=False), backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="it says on the bus what each call amounts to"):
        compiled(torch.randn(4, 3), torch.rand(4, 2))


@pytest.mark.parametrize("track", [False, True])
def test_functions_may_be_compiled_by_themselves(track):
    """Those handed to a loss, and the model before it; compiled they are, once each."""
    compiled_graphs = []

    def counting(graph, inputs):
        compiled_graphs.append(graph)
        return graph

    penalties.l1(None, torch.ones(1))  # a single graph has no place for importing the backend
    specs = [
        RegularizerSpec(torch.compile(penalties.l1, backend=counting, fullgraph=True), 0.1, "l1"),
        RegularizerSpec(torch.compile(SPECS[1].fn, backend=counting), 0.2, "decay"),
    ]
    model = torch.compile(torch.nn.Linear(3, 2), backend=counting)
    loss = CustomLoss(torch.compile(nll, backend=counting), specs, track_grad_norms=track)
    plain = CustomLoss(nll, SPECS, track_grad_norms=track)
    for _ in range(2):
        inputs, data = torch.randn(4, 3), torch.rand(4, 2)
        logprobs = model(inputs)
        output, expected = loss(data, logprobs), plain(data, logprobs)
        assert output.loss_total == pytest.approx(expected.loss_total, rel=1e-6)
        if track:
            assert output.total_grad_norm == pytest.approx(expected.total_grad_norm, rel=1e-6)
        output.loss.backward()
    assert len(compiled_graphs) == 4


def test_nothing_of_the_compiler_is_imported_by_a_loss():
    code = (
        "import sys, torch; from regularizers import *\n"
        "x = torch.ones(2, requires_grad=True)\n"
        "spec = RegularizerSpec(penalties.l1, 1.0, 'l1')\n"
        "custom_loss(None, x, penalties.l2, regularizers=[spec], track_grad_norms=True)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "False"
