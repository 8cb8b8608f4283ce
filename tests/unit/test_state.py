"""What can be put back to where it stood: each kind of leaf, in place where it can be, to the bit."""

import json

import numpy as np
import pytest
import torch

from memory_rl.learning.learners import Learner
from memory_rl.state import Stateful


class Inner(Stateful):
    kept = ("count",)

    def __init__(self, count: int = 0) -> None:
        self.count = count


class Everything(Stateful):
    """One attribute of each kind, named by it."""

    kept = (
        "array", "tensor", "parameter", "generator", "generators", "inner", "inners", "named", "number",
        "flag", "text", "nothing", "shown", "_private",
    )  # fmt: skip

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.array = random.random((2, 3))
        self.tensor = torch.from_numpy(random.random(4))
        self.parameter = torch.nn.Parameter(torch.from_numpy(random.random(3)).float())
        self.generator = np.random.default_rng(seed)
        self.generators = [np.random.default_rng((seed, place)) for place in range(2)]
        self.inner, self.inners = Inner(seed), [Inner(seed + 1), Inner(seed + 2)]
        self.named = {"array": random.random(2), "inner": Inner(seed + 3), "number": seed}
        self.number, self.flag, self.text, self.nothing = seed / 3, bool(seed % 2), f"at {seed}", None
        self.shown = list(range(seed))  # grows
        self._private = np.arange(3) * seed
        self.untouched = object()


def looks(thing: Everything) -> dict:
    """All that it holds, in plain numbers; its generators by what they draw next."""
    return {
        "arrays": [thing.array.tolist(), thing.named["array"].tolist(), thing._private.tolist()],
        "tensors": [thing.tensor.tolist(), thing.parameter.tolist()],
        "drawn": [stream.random() for stream in (thing.generator, *thing.generators)],
        "inner": [one.count for one in (thing.inner, *thing.inners, thing.named["inner"])],
        "plain": [thing.named["number"], thing.number, thing.flag, thing.text, thing.nothing, thing.shown],
    }


def test_all_is_put_back_in_another_object():
    first, second = Everything(3), Everything(8)
    first.generator.random(7)
    second.restore(first.state())
    assert looks(second) == looks(first)
    assert looks(second) == looks(first)  # the streams continue alike


def test_names_are_without_underscores():
    assert set(Everything(1).state()) == {name.lstrip("_") for name in Everything.kept}


@pytest.mark.parametrize("name", ["array", "tensor", "parameter", "inner", "generator", "_private"])
def test_what_can_be_changed_in_place_is(name):
    """Others hold views of these: an optimiser of a parameter, a sampling of its streams."""
    thing = Everything(8)
    before, untouched = getattr(thing, name), thing.untouched
    thing.restore(Everything(3).state())
    assert getattr(thing, name) is before
    assert thing.untouched is untouched


def test_parts_of_lists_and_dicts_are_changed_in_place_too():
    thing = Everything(8)
    before = [*thing.generators, *thing.inners, thing.named["array"], thing.named["inner"]]
    thing.restore(Everything(3).state())
    now = [*thing.generators, *thing.inners, thing.named["array"], thing.named["inner"]]
    assert all(one is other for one, other in zip(now, before, strict=True))


def test_a_parameter_keeps_its_gradient_and_its_type():
    thing = Everything(8)
    (2 * thing.parameter).sum().backward()
    thing.restore(Everything(3).state())
    assert thing.parameter.requires_grad
    assert thing.parameter.dtype == torch.float32
    assert thing.parameter.grad.tolist() == [2.0] * 3


def test_a_state_of_streams_is_what_json_can_hold():
    state = Everything(3).state()
    for part in ("generator", "generators", "inner", "inners", "number", "flag", "text", "nothing", "shown"):
        assert json.loads(json.dumps(state[part])) == state[part]


def test_a_state_of_another_shape_or_without_a_part_is_an_error():
    state = Everything(3).state()
    with pytest.raises(ValueError, match="broadcast"):
        Everything(3).restore({**state, "array": np.zeros(5)})
    with pytest.raises(KeyError, match="tensor"):
        Everything(3).restore({name: part for name, part in state.items() if name != "tensor"})


def test_what_keeps_nothing_has_an_empty_state():
    class Nothing(Stateful):
        pass

    assert Nothing().state() == {}
    Nothing().restore({})


def test_what_a_learner_remembers_may_have_grown():
    class Remembers(Learner):
        kept = ("_seen", "_by_name", "_count")

        def start(self, seed, num_runs):
            self._seen, self._by_name, self._count = np.zeros((num_runs, 0)), {}, 0

    one, other = Remembers(), Remembers()
    for learner in (one, other):
        learner.start(0, 3)
    one._seen, one._by_name["means"], one._count = np.arange(6.0).reshape(3, 2), np.ones(3), 2
    other.restore(one.state())
    assert other._seen.tolist() == one._seen.tolist()
    assert other._by_name["means"].tolist() == [1, 1, 1]
    assert other._count == 2
