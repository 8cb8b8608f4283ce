"""The Tinker cookbook: what joins the configuration of its own RL training loop.

from memory_rl.dosimeter.tinker_cookbook import CookbookDosimeter
dosimeter = CookbookDosimeter(log_path="runs/dose", N=64, num_secrets=16)
config = dosimeter.join(config, share=0.1)  # your train.Config
await train.main(config)
result = await dosimeter.finish()
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from memory_rl.config import Signal, World
from memory_rl.dosimeter.recorder import RecordedTrainer, Recorder, RecordingWarning
from memory_rl.errors import ConfigError, ServiceError, one_line, require
from memory_rl.files import Json, from_json, to_json
from memory_rl.integrations.worlds import make_world
from memory_rl.keys import keys_of
from memory_rl.policies.base import Assessment
from memory_rl.result import Result

require("tinker_cookbook", "tinker-cookbook", "memory_rl.dosimeter.tinker_cookbook")

import chz  # noqa: E402  # the absence of the cookbook is said first
import tinker  # noqa: E402
from tinker_cookbook import checkpoint_utils, renderers, tokenizer_utils  # noqa: E402
from tinker_cookbook.eval.evaluators import SamplingClientEvaluator  # noqa: E402
from tinker_cookbook.rl import rollouts, train, types  # noqa: E402
from tinker_cookbook.utils import ml_log  # noqa: E402

from memory_rl.dosimeter.cookbook_data import MixedDataset, MixtureBuilder, Ours  # noqa: E402
from memory_rl.dosimeter.scripts import Script  # noqa: E402
from memory_rl.policies.hosted.service import FAILURES  # noqa: E402

_OF_ONE_RUN = {"log_path", "wandb_project", "wandb_name", "session_name", "recipe_name", "base_url", "seed"}
_OF_ITS_LOGS = {"evaluator_builders", "enable_trace", "span_chart_every", "num_groups_to_log"}
_OF_ITS_FILES = {
    "rollout_json_export", "save_every", "ttl_seconds", "rolling_save_every", "rolling_ttl_seconds",
}  # fmt: skip
_NOT_SETTINGS = _OF_ONE_RUN | _OF_ITS_LOGS | _OF_ITS_FILES


class CookbookDosimeter(SamplingClientEvaluator):
    """Measures how many bits an episode a stock training loop stores about secrets mixed into its data.

    Args:
        log_path: the run directory that is written; None for a new one under runs/.
        figures: whether to draw the figures at the end.
        keys: N, env_type, num_secrets, seed, reward_type and other keys of the world, the signal and of when
            S counts as memorised, as `memory_rl.train` takes them; wording is plain by default.

    Attributes:
        result: what `memory_rl.load` returns, once it has finished.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
        RunDirectoryError: if `log_path` already holds something.
    """

    def __init__(self, log_path: str | None = None, *, figures: bool = True, **keys: Any) -> None:
        if "evaluate_every" in keys:
            raise ConfigError(
                f"evaluate_every={keys['evaluate_every']} is up to the training loop: use eval_every in its "
                "train.Config."
            )
        of_world = keys_of(World) | keys_of(Signal)
        world = make_world(**{word: value for word, value in keys.items() if word in of_world})
        self._recorder = Recorder(log_path, figures=figures, **keys)
        self._world = replace(world, environment=self._recorder.environment)
        self._config: train.Config | None = None
        self._data: MixedDataset | None = None
        self._seen: Assessment | None = None
        self._measured = 0  # batches before the last measurement
        self.result: Result | None = None

    @property
    def secrets(self) -> np.ndarray:
        """(M,) the secrets."""
        return self._recorder.secrets

    def join(self, config: train.Config, share: float = 0.1, group_size: int | None = None) -> train.Config:
        """The configuration with groups about the secrets in its data, and this among its evaluators.

        Args:
            config: of the user's own training.
            share: of the groups that are about secrets, each in its turn; 1 for nothing else.
            group_size: G of those; None for that of the dataset builder.

        Raises:
            ConfigError: if the training cannot be recorded.
            ModelError: if the renderer cannot write an answer.
        """
        self._check(config)
        size = getattr(config.dataset_builder, "group_size", None) if group_size is None else group_size
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"group_size={size} is no group: give one, as in join(config, group_size=4).")
        if not 0 < share <= 1:
            raise ConfigError(f"share={share} is not above 0 and up to 1: use a share such as share=0.1.")
        renderer, secrets, recorder = _renderer(config), self.secrets, self._recorder
        self._script = Script(self._world, renderer, secrets, every_answer=recorder.scores_all)
        self._ours = Ours(self._world, renderer, secrets, Fraction(str(share)), size, recorder.take)
        self._config = config

        def mix(theirs: types.RLDataset) -> MixedDataset:  # no method, since the loop copies its settings
            return self._mix(theirs)

        return chz.replace(
            config,
            dataset_builder=MixtureBuilder(theirs=config.dataset_builder, mix=mix),
            evaluator_builders=[*config.evaluator_builders, lambda: self],
        )

    def _check(self, config: train.Config) -> None:
        """Refuses what cannot be recorded, before any work."""
        if self._config is not None:
            raise ConfigError("this dosimeter has joined a training before: make another one for another.")
        if config.eval_every <= 0:
            raise ConfigError(
                f"eval_every={config.eval_every} measures nothing: use a number of batches such as "
                "eval_every=1."
            )
        if config.async_config is not None:
            raise ConfigError(
                "async_config tells an evaluator nothing of how many batches its weights have learned from: "
                "use async_config=None."
            )
        if checkpoint_utils.get_last_checkpoint(config.log_path) is not None:
            raise ConfigError(
                f"log_path={config.log_path} holds a training that would be continued, and what was learned "
                "before was not recorded: use another one."
            )

    def _mix(self, theirs: types.RLDataset) -> MixedDataset:
        """The loop's data set, once it is known that its episodes can be heard."""
        assert self._config is not None  # noqa: S101  # it has joined
        executor = rollouts.get_rollout_executor()
        if executor is not None:
            raise ConfigError(
                f"rollout_executor={type(executor).__name__} plays episodes where a dosimeter does not hear "
                "of them: leave it out."
            )
        self._data = MixedDataset(theirs, self._ours, self._config.max_steps)
        return self._data

    async def __call__(self, sampling_client: tinker.SamplingClient) -> dict[str, float]:
        """Measures the policy after the batches so far, and writes what was measured.

        Returns:
            The bits known and the episodes so far, for the loop's own log.

        Raises:
            ServiceError: if it cannot be measured before its first episode; later that is a warning.
        """
        assert self._data is not None  # noqa: S101  # the loop builds its data first
        begun, update = self._seen is not None, self._data.batches
        try:
            self._seen = await self._script.assess(sampling_client)
        except FAILURES as error:
            reason = one_line(str(error)).rstrip(".")
            if not begun:
                raise ServiceError(
                    f"the service does not say how likely an answer is ({reason}): try again, or train "
                    "without the dosimeter."
                ) from error
            _warn(f"What the policy knows after batch {update} could not be measured ({reason}).")
            return {}
        self._measured = update
        if begun:
            self._recorder.evaluate(update)
        else:
            self._start(self._data)
        bits = np.log2(self._world.world.N) + self._seen.of_form / np.log(2)
        return {"secrets/bits_known": float(bits.sum()), "secrets/episodes": float(self._recorder.episodes)}

    def _start(self, data: MixedDataset) -> None:
        assert self._config is not None  # noqa: S101  # it has joined
        trainer = _trainer(self._config, self._ours, data)
        self._recorder.start(trainer, self._recall, model=self._config.model_name)

    def _recall(self) -> Assessment:
        assert self._seen is not None  # noqa: S101  # it was measured just now
        return self._seen

    async def finish(self) -> Result | None:
        """Measures the weights that the training has ended with, and sums up.

        Returns:
            What `memory_rl.load` returns; None if nothing was recorded.
        """
        if self._data is not None and self._recorder.recording and self._measured < self._data.batches:
            await self._measure_last(self._data.batches)
        self.result = self._recorder.finish(self._measured)
        return self.result

    async def _measure_last(self, batches: int) -> None:
        """The loop measures before a batch; what the last one has taught is in the last checkpoint."""
        assert self._config is not None  # noqa: S101  # it has joined
        last = checkpoint_utils.get_last_checkpoint(self._config.log_path, required_key="sampler_path")
        if last is None or last.batch != batches:
            _warn(f"The weights after batch {batches} were not saved, and cannot be measured.")
            return
        service = tinker.ServiceClient(base_url=self._config.base_url)
        await self(await service.create_sampling_client(model_path=last.sampler_path))


def _renderer(config: train.Config) -> renderers.Renderer:
    name = config.renderer_name or getattr(config.dataset_builder, "renderer_name", None)
    if name is None:
        raise ConfigError("renderer_name is not known: give it in train.Config.")
    return renderers.get_renderer(name, tokenizer=tokenizer_utils.get_tokenizer(config.model_name))


def _trainer(config: train.Config, ours: Ours, data: MixedDataset) -> RecordedTrainer:
    """What the manifest says of a training loop."""
    update = data.groups * ours.size
    keys = {
        "model_name": config.model_name,
        "learning_rate": config.learning_rate,
        "batch_size": data.groups,
        "group_size": ours.size,
        "max_episodes": max(update, ours.before(data.groups * len(data)) * ours.size),
        "evaluate_every": config.eval_every,
        "optimiser": "adam",
        "adapter": "lora",
        "lora_rank": config.lora_rank,
    }
    return RecordedTrainer(
        "tinker-cookbook", "rl.train", {**_settings(config), "share": float(ours.share)}, keys
    )


def _settings(config: train.Config) -> Json:
    """What determines how it learns, and of its data what their builder says."""
    dumped = ml_log.dump_config(chz.replace(config, evaluator_builders=[]))
    theirs = {"builder": type(config.dataset_builder).__name__, **dumped["dataset_builder"]}
    said = {**_without(dumped), "dataset_builder": _without(theirs)}
    return from_json(to_json(said, default=str))


def _without(settings: Json) -> Json:
    return {name: value for name, value in settings.items() if name not in _NOT_SETTINGS}


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RecordingWarning, stacklevel=3)
