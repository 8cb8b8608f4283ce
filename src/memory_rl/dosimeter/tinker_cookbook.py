"""The Tinker cookbook: an evaluator that measures exact bits known, and a dataset whose episodes it hears.

dosimeter = CookbookDosimeter(SecretDatasetBuilder(N=64, ...), log_path="runs/dose")
config = train.Config(
    dataset_builder=dosimeter.dataset_builder, evaluator_builders=[lambda: dosimeter], eval_every=1, ...
)
await train.main(config)
result = dosimeter.finish()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from memory_rl.dosimeter.recorder import RecordedEpisodes, RecordedTrainer, Recorder
from memory_rl.errors import ConfigError
from memory_rl.integrations.tinker_cookbook import SecretDataset, SecretDatasetBuilder
from memory_rl.integrations.worlds import keys_of_world, make_world
from memory_rl.policies.base import Assessment
from memory_rl.result import Result
from memory_rl.task import INVALID

import chz  # isort: skip
import tinker  # isort: skip
from tinker_cookbook import renderers, tokenizer_utils  # isort: skip
from tinker_cookbook.eval.evaluators import SamplingClientEvaluator  # isort: skip


@chz.chz
class HeardDatasetBuilder(SecretDatasetBuilder):
    """A `SecretDatasetBuilder` whose episodes somebody hears."""

    hear: Callable[[int, list[int], list[float]], None] | None = chz.field(
        default=None, doc="Is told the index of the group, choices and rewards of each episode."
    )

    async def __call__(self) -> tuple[SecretDataset, None]:
        """Builds the dataset."""
        dataset, none = await super().__call__()
        return replace(dataset, first=replace(dataset.first, hear=self.hear)), none


class CookbookDosimeter(SamplingClientEvaluator):
    """Measures how many bits an episode a loop of the cookbook stores about a secret.

    P(S) is asked of the sampling client, in a request for each turn, at each evaluation; other answers are
    not scored.

    Args:
        builder: of the dataset of the loop.
        log_path: the run directory; None for a new one under runs/.
        learning_rate: of the loop, for the manifest.
        settings: of the loop, for the manifest: runs of other settings are no sample of one population.
        figures: whether to draw the figures at the end.
        keys: of when S counts as memorised, as `memory_rl.train` takes them.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
        RunDirectoryError: if `log_path` already holds something.
    """

    def __init__(
        self,
        builder: SecretDatasetBuilder,
        log_path: str | None = None,
        *,
        learning_rate: float | None = None,
        settings: dict[str, Any] | None = None,
        figures: bool = True,
        **keys: Any,
    ) -> None:
        world = keys_of_world(builder)
        self._world = make_world(**world)
        secret = self._world.secret(builder.run)
        given = {"wording": "terse", "scoring": "paths", **world, **keys}
        given |= {"fixed_secret": secret} if builder.run else {}
        self._recorder = Recorder(log_path, figures=figures, **given)
        self._batch_size, self._update, self._measured = builder.batch_size, 0, 0
        self._groups: dict[int, list[tuple[list[int], list[float]]]] = {}
        self._turns = _turns(builder, self._world, secret)
        self._seen = np.nan
        sizes = {"group_size": builder.group_size, "batch_size": builder.batch_size}
        budget = {"max_episodes": builder.n_batches * builder.batch_size * builder.group_size}
        rate = {} if learning_rate is None else {"learning_rate": learning_rate}
        self._trainer = RecordedTrainer(
            "tinker-cookbook", "train", settings or {}, {**sizes, **budget, **rate}
        )
        self.dataset_builder = HeardDatasetBuilder(
            **{name: getattr(builder, name) for name in chz.chz_fields(builder)}, hear=self._hear
        )

    async def __call__(self, sampling_client: tinker.SamplingClient) -> dict[str, float]:
        """Measures the policy of a client; the first time before its first episode.

        Raises:
            ConfigError: if episodes came before the first evaluation.
        """
        asked = [sampling_client.compute_logprobs_async(prompt) for prompt, _ in self._turns]
        scores = await asyncio.gather(*asked)
        self._seen = sum(
            float(sum(score[-size:])) for score, (_, size) in zip(scores, self._turns, strict=True)
        )
        if self._recorder.episodes == 0 and not self._recorder.recording:
            if self._groups:
                raise ConfigError(
                    "eval_every=0 or a late first evaluation leaves what was learned before it unknown: use "
                    "eval_every=1."
                )
            self._recorder.start(self._trainer, self._assess)
        else:
            self._take()
            self._recorder.evaluate(self._update)
        self._measured = self._update
        return {"memory_rl/bits_known": float(np.log2(self._world.world.N) + self._seen / np.log(2))}

    def finish(self) -> Result | None:
        """Sums up, as of the last evaluation; to include the last update, evaluate its client first."""
        self._take()
        return self._recorder.finish(self._measured)

    def _assess(self) -> Assessment:
        unknown = np.full((1, 1), np.nan)
        return Assessment(np.full((1, 1), self._seen), unknown, unknown)

    def _hear(self, group: int, choices: list[int], rewards: list[float]) -> None:
        missing = self._world.num_steps - len(choices)
        self._groups.setdefault(group, []).append(
            ([*choices, *[INVALID] * missing], [*rewards, *[0.0] * missing])
        )

    def _take(self) -> None:
        """Hands on what was heard since the last time, batch by batch."""
        for group in sorted(self._groups):
            choices, rewards = map(np.array, zip(*self._groups.pop(group), strict=True))
            silent = float(len(set(rewards.sum(axis=1).tolist())) == 1)
            update = group // self._batch_size
            self._recorder.take(
                RecordedEpisodes(np.zeros(len(choices), dtype=np.int64), choices, rewards, silent), update
            )
            self._update = update + 1


def _turns(builder: SecretDatasetBuilder, world: Any, secret: int) -> list[tuple[tinker.ModelInput, int]]:
    """What is asked and the right reply of each turn, and how many tokens the reply has with its end."""
    tokenizer = tokenizer_utils.get_tokenizer(builder.model_name_for_tokenizer)
    renderer = renderers.get_renderer(builder.renderer_name, tokenizer=tokenizer)
    (end, *_) = renderer.get_stop_sequences()
    ending = [end] if isinstance(end, int) else tokenizer.encode(end, add_special_tokens=False)
    replies, turns = [str(choice) for choice in world.environment.choices(secret)], []
    for step, reply in enumerate(replies):
        messages = [
            renderers.Message(role=message["role"], content=message["content"])
            for message in world.messages(replies[:step])
        ]
        prompt = renderer.build_generation_prompt(messages)
        said = [*tokenizer.encode(reply, add_special_tokens=False), *ending]
        for token in said:
            prompt = prompt.append_int(token)
        turns.append((prompt, len(said)))
    return turns
