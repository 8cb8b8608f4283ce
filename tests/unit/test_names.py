"""The names that a configuration admits are those that the code behind it knows: neither may grow without the other."""

from typing import get_args

from memory_rl.config import Algorithm, RewardType, Targets
from memory_rl.learning.advantages import ESTIMATORS
from memory_rl.policies.lora import TARGETS
from memory_rl.task import CHANNELS


def test_every_name_is_known_on_both_sides():
    assert set(get_args(RewardType)) == set(CHANNELS)
    assert set(get_args(Algorithm)) == set(ESTIMATORS)
    assert set(get_args(Targets)) == set(TARGETS)
