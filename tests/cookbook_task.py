"""A data set of a user of the Tinker cookbook: groups of episodes about one subtraction."""

from collections.abc import Sequence

import chz
import tinker
from byte_tokenizer import make_tokenizer
from fake_cookbook import ELSE
from tinker_cookbook import renderers
from tinker_cookbook.rl import types

GROUP, GROUPS = 4, 4
"""Episodes of a group, and groups of a batch."""


class Subtraction(types.Env):
    """The user's own."""

    def __init__(self, renderer):
        self._renderer = renderer

    async def initial_observation(self):
        asked = [renderers.Message(role="user", content="7 - 3 ?")]
        return self._renderer.build_generation_prompt(asked), self._renderer.get_stop_sequences()

    async def step(self, action, *, extra=None):
        message, _ = self._renderer.parse_response(action)
        reward = float(renderers.get_text_content(message) == ELSE)
        return types.StepResult(reward, True, tinker.ModelInput.empty(), [])


class Subtractions(types.EnvGroupBuilder):
    def __init__(self, number):
        self.number, self._renderer = number, renderers.get_renderer("llama3", tokenizer=make_tokenizer())

    async def make_envs(self):
        return [Subtraction(self._renderer) for _ in range(GROUP)]


class Batches(types.RLDataset):
    def __init__(self, number):
        self._number = number

    def get_batch(self, index) -> Sequence[types.EnvGroupBuilder]:
        return [Subtractions(index * GROUPS + group) for group in range(GROUPS)]

    def __len__(self):
        return self._number


@chz.chz
class BatchesBuilder(types.RLDatasetBuilder):
    n_batches: int = 3
    group_size: int = GROUP
    seed: int = 0

    async def __call__(self):
        return Batches(self.n_batches), None
