"""The names that a configuration admits are those that the code behind it knows: neither may grow without the
other. And no two classes share a name."""

import ast
import pkgutil
from collections import defaultdict
from pathlib import Path
from typing import get_args

import memory_rl
from memory_rl.catalogue import experiment_keys
from memory_rl.config import LEARNERS, REWARD_TYPES, Backend
from memory_rl.learning.optimisers import OPTIMISERS
from memory_rl.limits import MAX_N, STEP_SIZES
from memory_rl.policies.lora import TARGETS
from memory_rl.task import CHANNELS

SOURCE = Path(memory_rl.__file__).parent


def choices(word: str) -> set[str]:
    return set(get_args(experiment_keys()[word].hint))


def test_every_name_is_known_on_both_sides():
    assert set(REWARD_TYPES) == set(CHANNELS)
    assert set(LEARNERS) == {
        "cispo",
        "corpo",
        "dppo",
        "evolution",
        "grpo",
        "gspo",
        "maxrl",
        "moving_average",
        "pairs",
        "pass_at_k",
        "posterior",
        "ppo",
        "raft",
        "reinforce",
        "reinforce_plus_plus",
        "replay",
        "rloo",
        "sapo",
        "signs",
    }
    assert choices("lora_targets") == set(TARGETS)
    assert choices("optimiser") == set(OPTIMISERS)
    assert set(get_args(Backend)) == choices("backend") == set(MAX_N)
    assert set(STEP_SIZES) == choices("backend") | choices("adapter") - {"lora"}


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert len(places) > 100  # the package was really read
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_hides_a_name_that_the_package_exports():
    modules = {module.name for module in pkgutil.iter_modules(memory_rl.__path__)}
    assert "experiment" in modules  # the package was really listed
    assert not modules & {
        *memory_rl.__all__
    }  # importing memory_rl.run would replace the function memory_rl.run


def test_a_completion_offers_what_is_imported_only_when_it_is_asked_for():
    assert {"load", "sweep", "Result", *memory_rl.__all__} <= {*dir(memory_rl)}
    assert not {"Any", "TYPE_CHECKING", "import_module"} & {*dir(memory_rl)}
