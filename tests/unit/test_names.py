"""The names that a configuration admits are those that the code behind it knows: neither may grow without the
other."""

from typing import get_args

from memory_rl.learning.advantages import ESTIMATORS

from memory_rl.config import REWARD_TYPES, Algorithm, Targets
from memory_rl.policies.lora import TARGETS
from memory_rl.task import CHANNELS


def test_every_name_is_known_on_both_sides():
    assert set(REWARD_TYPES) == set(CHANNELS)
    assert set(get_args(Algorithm)) == {*ESTIMATORS, "posterior"}
    assert set(get_args(Targets)) == set(TARGETS)
