"""Steps of training loops, of about 5 ms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIZE = 128
"""Of the square matrices that a step multiplies."""
INPUTS, WIDTH, OUTPUTS = 256, 512, 10


def products(work: int) -> Callable[[], object]:
    """So many products of small matrices: each wants the interpreter back."""
    matrix = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    target = np.empty_like(matrix)

    def step() -> None:
        for _ in range(work):
            np.matmul(matrix, matrix, out=target)

    return step


def network(work: int) -> Callable[[], object]:
    """A step of Adam with so many examples, for a network of three layers."""
    import torch  # noqa: PLC0415 -- takes seconds

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, WIDTH),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTH, WIDTH),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTH, OUTPUTS),
    )
    optimizer = torch.optim.Adam(model.parameters())
    inputs, wanted = torch.randn(work, INPUTS), torch.randn(work, OUTPUTS)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), wanted).backward()
        optimizer.step()

    return step


STEPS: dict[str, Callable[[int], Callable[[], object]]] = {"products": products, "torch": network}
