"""Stacked optimisers against torch.optim with one parameter a row."""

import numpy as np
import pytest
import torch

from memory_rl.learning.optimisers import OPTIMISERS, StackedAdam, StackedSGD

ROWS, PARAMETERS, STEPS = 6, 5, 60
RATE = 0.3


def random_steps(seed: int = 0):
    """Random subsets of the rows in random order, some empty, and a gradient for each row of the subset;
    their scales differ by orders of magnitude."""
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        rows = rng.permutation(ROWS)[: rng.integers(ROWS + 1)]
        yield (
            rows,
            torch.from_numpy(
                rng.normal(size=(len(rows), PARAMETERS)) * 10.0 ** rng.integers(-3, 2, size=(len(rows), 1))
            ),
        )


@pytest.mark.parametrize(("name", "reference"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)])
def test_each_row_moves_as_a_torch_parameter_of_its_own(name, reference):
    start = torch.from_numpy(np.random.default_rng(1).normal(size=(ROWS, PARAMETERS)))
    values, stacked = start.clone(), OPTIMISERS[name](RATE, start)
    alone = [start[row].clone().requires_grad_() for row in range(ROWS)]
    singles = [reference([parameter], lr=RATE) for parameter in alone]
    for rows, gradients in random_steps():
        before = values.clone()
        stacked.step(values, rows, gradients)
        for row, gradient in zip(rows, gradients, strict=True):
            alone[row].grad = gradient.clone()
            singles[row].step()
        np.testing.assert_allclose(
            values.numpy(), torch.stack(alone).detach().numpy(), rtol=1e-10, atol=1e-12
        )
        resting = np.setdiff1d(np.arange(ROWS), rows)
        assert torch.equal(values[resting], before[resting])
    assert (values != start).all()


def test_a_row_that_rests_does_not_age():
    """The bias correction of Adam's first step makes it as long as the learning rate, however often the
    others were stepped before."""
    values = torch.zeros(2, 1, dtype=torch.float64)
    adam = StackedAdam(RATE, values)
    for _ in range(50):
        adam.step(values, np.array([0]), torch.ones(1, 1, dtype=torch.float64))
    adam.step(values, np.array([1]), torch.full((1, 1), 7.0, dtype=torch.float64))
    assert values[1].item() == pytest.approx(-RATE)


def test_the_names_are_those_of_the_optimisers():
    assert {"adam": StackedAdam, "sgd": StackedSGD} == OPTIMISERS
