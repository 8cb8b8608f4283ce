"""Bits known against values worked out by hand."""

import numpy as np
import pytest
from helpers import bits_known


def test_bits_known_of_simple_policies():
    probabilities = np.array(
        [
            [0.25, 0.25, 0.25, 0.25],  # knows nothing
            [0.0, 1.0, 0.0, 0.0],  # knows all
            [0.5, 0.5, 0.0, 0.0],  # one of two bits
            [0.125, 0.125, 0.125, 0.125],  # nothing, and half its mass is invalid
            [0.125, 0.375, 0.0, 0.0],
        ]
    )
    with np.errstate(divide="ignore"):
        bits = bits_known(np.log(probabilities), np.array([3, 1, 0, 0, 1]))
    np.testing.assert_allclose(bits.total, [0, 2, 1, -1, 2 + np.log2(0.375)])
    np.testing.assert_allclose(bits.format, [0, 0, 0, -1, -1], atol=1e-15)
    np.testing.assert_allclose(bits.content, [0, 2, 1, 0, 2 + np.log2(0.75)], atol=1e-15)


def test_bits_known_averaged_over_secrets_are_minus_the_divergence_from_uniform():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(37))
    bits = bits_known(np.log(np.tile(probabilities, (37, 1))), np.arange(37))
    divergence = (np.log2(1 / 37) - np.log2(probabilities)).mean()
    assert bits.total.mean() == pytest.approx(-divergence)
    assert divergence > 0
