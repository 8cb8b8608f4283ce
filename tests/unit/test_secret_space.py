"""Secrets: canonical form, bit strings, draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_rl.seeding import generator
from memory_rl.task.secret_space import SecretSpace, parse_integer


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("42", 42), (" 42\n", 42), ("\t7", 7), ("63", 63)])
def test_canonical_answers_are_read(text, value):
    assert parse_integer(text, 64) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "64",
        "-1",
        "+1",
        "07",
        "00",
        "4 2",
        "4.0",
        "0x1",
        "1e1",
        "forty",
        "42.",
        "٤٢",
        "４２",
        "²",
        "9" * 50,
        "42\N{NO-BREAK SPACE}",
    ],
)
def test_everything_else_is_invalid(text):
    assert parse_integer(text, 64) is None


@given(st.text(max_size=6))
def test_a_text_is_valid_exactly_if_it_is_the_canonical_string_of_an_answer(text):
    canonical = {str(answer): answer for answer in range(100)}
    assert parse_integer(text, 100) == canonical.get(text.strip(" \t\r\n"))


@pytest.mark.parametrize("N", [2, 3, 16, 37, 64, 1000, 2**20, 2**20 + 1])
def test_bits_spell_the_secret_most_significant_first(N):
    space = SecretSpace(N)
    assert space.num_bits == math.ceil(math.log2(N))
    for secret in {0, 1, N // 2, N - 1}:
        assert "".join(map(str, space.to_bits(secret))) == format(secret, f"0{space.num_bits}b")


def test_secrets_are_uniform():
    space = SecretSpace(5)
    counts = np.bincount([space.draw(generator(seed, "secrets", 0)) for seed in range(5000)], minlength=5)
    assert ((counts - 1000) ** 2 / 1000).sum() < 18.5  # chi-square with 4 degrees of freedom, p = 0.001
