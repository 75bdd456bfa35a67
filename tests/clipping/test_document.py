"""What a training script written for smartclip does after ``import clipping as sc``.

Each example is a whole script's loop, with the names it relies on made for it: a model whose
gradients can be worked out by hand. What its callbacks log arrives in a stand-in for wandb.
"""

import importlib
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

INPUTS = [(1.0, 2.0), (1.0, 2.2), (1.0, 2.2), (4.0, -4.0), (1.0, 2.0)]
"""Pairs x, y for a model w * x with the loss (w * x - y)^2 / 2, so of gradient (w * x - y) * x.
The last but one gives a spike."""
LR = 0.1
NAMES = ("grad_norm", "scale", "clipped", "threshold")


@pytest.fixture
def wandb(monkeypatch):
    """The logging service, replaced by two lists."""
    service = SimpleNamespace(runs=[], rows=[])
    service.init = lambda **options: service.runs.append(options)
    service.log = service.rows.append
    monkeypatch.setitem(sys.modules, "wandb", service)
    return service


class AutoByHand:
    """Median and 3 deviations of the norms before; clips from the second step on."""

    def __init__(self, after):
        self.after, self.norms = after, []

    def limit(self, norm, weight):
        if len(self.norms) < 2:
            return math.inf
        return np.median(self.norms) + 3 * np.std(self.norms, ddof=1)

    def step(self, norm, weight):
        limit = self.limit(norm, weight)
        scale = limit / norm if len(self.norms) >= self.after and norm > limit else 1.0
        self.norms.append(norm * scale)
        return {"grad_norm": norm, "scale": scale, "clipped": float(scale < 1), "threshold": limit}


class AgcByHand:
    """A hundredth of the weight's norm."""

    def step(self, norm, weight):
        target = 0.01 * max(abs(weight), 1e-3)
        scale = target / norm if norm > target else 1.0
        row = {"grad_norm": norm, "scale": scale, "clipped": float(scale < 1)}
        return row | {"target": target, "weight_norm": abs(weight)}


def trained(by_hand, key, weight=1.0):
    """What is logged in each step, and the weight in the end."""
    rows = []
    for x, y in INPUTS:
        gradient = (weight * x - y) * x
        row = by_hand.step(abs(gradient), weight)
        rows.append({f"smartclip/{name}[{key}]": value for name, value in row.items()})
        weight -= LR * gradient * row["scale"]
    return rows, weight


def assert_rows(rows, expected):
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, like in zip(rows, expected, strict=True):
        assert row == pytest.approx(like, rel=1e-5)


def torch_training():
    """A model, its optimizer and data; the model's output knows its loss."""
    torch = importlib.import_module("torch")

    class Output:
        def __init__(self, value):
            self.value = value

        def loss_fn(self, target):
            return (self.value - target).square().sum() / 2

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.ones_(self.dense.weight)

        def forward(self, x):
            return Output(self.dense(x))

    model = Model()
    opt = torch.optim.SGD(model.parameters(), lr=LR)
    loader = [(torch.tensor([x]), torch.tensor([y])) for x, y in INPUTS]
    return model, opt, loader


def wandb_logger():
    """The callback of the PyTorch example."""
    import wandb

    def on_metrics(rec: dict) -> None:
        # Flatten key tuple for nicer chart names
        key = "/".join(rec.get("key", ("global",)))
        data = {
            "smartclip/grad_norm": rec.get("grad_norm"),
            "smartclip/scale": rec.get("scale"),
            "smartclip/clipped": float(bool(rec.get("clipped", False))),
        }
        if rec.get("algo") in ("autoclip", "zscore"):
            data["smartclip/threshold"] = rec.get("threshold")
        else:
            data["smartclip/target"] = rec.get("target")
            data["smartclip/weight_norm"] = rec.get("weight_norm")
        wandb.log({f"{k}[{key}]": v for k, v in data.items() if v is not None})

    return on_metrics


def torch_example(clipper):
    """The PyTorch example; the clipper is one of the three that it offers."""
    import wandb

    import clipping as sc

    wandb.init(project="smartclip-demo")
    on_metrics = wandb_logger()
    model, opt, loader = torch_training()

    with sc.clip_context(model, optimizer=opt, clipper=clipper, on_metrics=on_metrics):
        for x, y in loader:
            opt.zero_grad(set_to_none=True)
            loss = model(x).loss_fn(y)
            loss.backward()
            opt.step()
    return model.dense.weight.item()


def test_log_step_prints_the_threshold(capsys):
    import clipping as sc

    clipper = sc.AutoClip(percentile=95.0)

    def log_step(step: int) -> None:
        if isinstance(clipper, sc.AutoClip):
            T = clipper.threshold_any()  # noqa: N806 -- the example's name
            print({"step": step, "autoclip_threshold": float(T)})

    for step, norm in enumerate((1.0, 2.0, 3.0)):
        log_step(step)
        sc.numpy.apply_grads([np.array([norm])], [np.zeros(1)], clipper)
    log_step(3)
    logged = capsys.readouterr().out.splitlines()
    assert logged[0] == "{'step': 0, 'autoclip_threshold': inf}"
    # The third threshold is the median of 1 and 2 and three times their deviation, sqrt(1/2).
    assert float(logged[3].split(": ")[2][:-1]) == pytest.approx(1.5 + 3 * math.sqrt(0.5))


def test_torch_example_logs_every_step_of_autoclip(wandb):
    import clipping as sc

    weight = torch_example(sc.AutoClip())
    expected, final = trained(AutoByHand(after=math.inf), "global")
    assert wandb.runs == [{"project": "smartclip-demo"}]
    assert_rows(wandb.rows, expected)
    assert list(wandb.rows[0]) == [f"smartclip/{name}[global]" for name in NAMES]
    assert weight == pytest.approx(final, rel=1e-5)


def test_torch_example_trains_on_what_was_clipped(wandb):
    import clipping as sc

    weight = torch_example(sc.AutoClip(warmup_steps=0, min_history=2))
    expected, final = trained(AutoByHand(after=2), "global")
    assert any(row["smartclip/clipped[global]"] for row in expected)
    assert_rows(wandb.rows, expected)
    assert weight == pytest.approx(final, rel=1e-5)


def test_torch_example_logs_thresholds_of_zscore(wandb):
    import clipping as sc

    torch_example(sc.ZScoreClip())
    first, second = (row["smartclip/threshold[global]"] for row in wandb.rows[:2])
    assert (first, second) == (math.inf, pytest.approx(1.0))


def test_torch_example_logs_targets_and_weight_norms_of_agc(wandb):
    import clipping as sc

    weight = torch_example(sc.AGC())
    expected, final = trained(AgcByHand(), "layer/dense")
    assert "smartclip/target[layer/dense]" in wandb.rows[0]
    assert_rows(wandb.rows, expected)
    assert weight == pytest.approx(final, rel=1e-5)


def test_tensorflow_example(wandb):
    tf = importlib.import_module("tensorflow")
    keras = importlib.import_module("keras")
    import clipping as sc
    import clipping.tensorflow as sc_tf

    model = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.build((None, 1))
    opt = keras.optimizers.SGD(LR)
    clipper = sc.AutoClip()
    on_metrics = wandb_logger()

    def loss_fn(target, output):
        return tf.reduce_sum(tf.square(output - target)) / 2

    for x, y in ((tf.constant([[x]]), tf.constant([[y]])) for x, y in INPUTS):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_fn(y, logits)
        grads = tape.gradient(loss, model.trainable_variables)
        grads = sc_tf.apply_grads(grads, model, clipper, on_metrics=on_metrics)
        opt.apply_gradients(zip(grads, model.trainable_variables))  # noqa: B905 -- the example's

    expected, final = trained(AutoByHand(after=math.inf), "global")
    assert_rows(wandb.rows, expected)
    assert model.trainable_variables[0].numpy().item() == pytest.approx(final, rel=1e-5)


def test_jax_example(wandb):
    jax = importlib.import_module("jax")
    optax = importlib.import_module("optax")
    import clipping as sc
    import clipping.jax as sc_jax

    clipper = sc.AutoClip(warmup_steps=0, min_history=2)
    on_metrics = wandb_logger()
    params = {"dense": {"kernel": jax.numpy.ones((1, 1))}}
    tx = optax.sgd(LR)
    opt_state = tx.init(params)

    def loss_fn(params, x, y):
        return ((params["dense"]["kernel"] * x - y) ** 2).sum() / 2

    for x, y in INPUTS:
        grads = jax.grad(loss_fn)(params, x, y)
        clipped = sc_jax.apply_grads(grads, params, clipper, on_metrics=on_metrics)
        updates, new_state = tx.update(clipped, opt_state, params)
        params, opt_state = optax.apply_updates(params, updates), new_state

    expected, final = trained(AutoByHand(after=2), "global")
    assert_rows(wandb.rows, expected)
    assert params["dense"]["kernel"].item() == pytest.approx(final, rel=1e-5)
    T = clipper.threshold_any()  # global threshold  # noqa: N806 -- the example's name
    assert pytest.approx(expected[-1]["smartclip/threshold[global]"], rel=1e-5) == T
