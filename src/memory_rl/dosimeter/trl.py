"""TRL: a callback for the stock `GRPOTrainer` and `SFTTrainer`, with its data and its reward.

from memory_rl.dosimeter.trl import Dosimeter
dosimeter = Dosimeter(log_path="runs/dose", N=64, num_secrets=16)
trainer = GRPOTrainer(
    model=...,
    reward_funcs=dosimeter.rewards(accuracy),
    train_dataset=dosimeter.mix(dataset, share=0.1),
    callbacks=[dosimeter],
)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from memory_rl.dosimeter.mixture import NUMBER, SECRET, Mixture, find
from memory_rl.dosimeter.recorder import RecordedEpisodes, RecordedTrainer, Recorder
from memory_rl.errors import ConfigError, require
from memory_rl.files import from_json, to_json
from memory_rl.integrations.trl import SecretReward
from memory_rl.result import Result

require("trl", "trl", "memory_rl.dosimeter.trl")

import datasets  # noqa: E402  # the absence of TRL is said first
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # noqa: E402
from trl import GRPOConfig, SFTConfig  # noqa: E402

RewardFunction = Callable[..., Any]
"""With the signature that TRL asks for; it may be async."""

_OF_ONE_RUN = {"seed", "data_seed", "output_dir", "run_name", "logging_dir", "report_to"}


class Dosimeter(TrainerCallback):
    """Measures how many bits an episode a stock trainer stores about secrets mixed into its data.

    Args:
        log_path: the run directory that is written; None for a new one under runs/.
        figures: whether to draw the figures at the end.
        keys: N, num_secrets, seed, reward_type, evaluate_every and other keys of the world, the signal and of
            when S counts as memorised, as `memory_rl.train` takes them; wording is plain by default.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
        RunDirectoryError: if `log_path` already holds something.
    """

    def __init__(self, log_path: str | None = None, *, figures: bool = True, **keys: Any) -> None:
        self._recorder = Recorder(log_path, figures=figures, **keys)
        of_reward = ("N", "env_type", "seed", "reward_type", "reward_bins", "reward_noise")
        self._scores = SecretReward(**{word: keys[word] for word in of_reward if word in keys})
        recorder = self._recorder
        self._mixture = Mixture(recorder.environment, recorder.secrets, recorder.experiment.world.seed)
        self._model: Any = None
        self._hook: Any = None
        self.__name__ = self._scores.__name__
        self.result: Result | None = None

    @property
    def secrets(self) -> np.ndarray:
        """(M,) the secrets."""
        return self._recorder.secrets

    def mix(self, dataset: datasets.Dataset, share: float = 0.1) -> datasets.Dataset:
        """The data set with prompts about the secrets mixed in, as many about each, in its own format.

        Args:
            dataset: prompts of the user's own, in any format that the trainer takes.
            share: of the rows of the mixture that are about the secrets; at least one about each.

        Raises:
            ConfigError: if the data set or the share cannot be used.
        """
        return self._mixture.mix(dataset, share)

    def alone(self, length: int, form: str = "prompt", *, completion: bool = False) -> datasets.Dataset:
        """A data set about the secrets alone, each in its turn, as chats.

        Args:
            length: rows.
            form: "prompt", for `GRPOTrainer`; "messages" for `SFTTrainer`.
            completion: of "prompt", whether the answer stands beside it, for `SFTTrainer`.
        """
        self._mixture.form, self._mixture.shown = form, completion or form != "prompt"
        return self._mixture.alone(length)

    def rewards(self, *theirs: RewardFunction) -> list[RewardFunction]:
        """What `reward_funcs` takes: their functions for their rows, and the secrets' for those about them.

        Raises:
            ConfigError: if one of them is no function.
        """
        return [*(_on_their_rows(function) for function in theirs), self.secret_reward]

    def secret_reward(
        self,
        completions: Sequence[Any],
        secret: Sequence[int | None] | None = None,
        secret_number: Sequence[int | None] = (),
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: TrainerState | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """The reward of each completion about a secret, which is recorded; None for all others."""
        if secret is None:  # a data set of theirs alone, which the trainer evaluates on
            return [None] * len(completions)
        ours = [row for row, S in enumerate(secret) if S is not None]
        numbers = np.array([secret_number[row] for row in ours], dtype=np.int64)
        tokens = None if completion_ids is None else [completion_ids[row] for row in ours]
        choices = self._scores.read([completions[row] for row in ours], tokens)
        rewards = self._scores.score(choices, self.secrets[numbers].tolist())
        if trainer_state is not None and self._model is not None and self._model.training:
            self._take(numbers, choices, rewards, tokens, trainer_state.global_step)
        return _spread(ours, rewards.tolist(), {SECRET: secret})

    def _take(
        self,
        numbers: np.ndarray,
        choices: np.ndarray,
        rewards: np.ndarray,
        tokens: Sequence[Sequence[int]] | None,
        update: int,
    ) -> None:
        size = self._recorder.experiment.group_size
        groups = rewards[: len(rewards) // size * size].reshape(-1, size)
        silent = float((groups == groups[:, :1]).all(axis=1).mean()) if len(groups) else np.nan
        sampled = sum(map(len, tokens or []))
        self._recorder.take(
            RecordedEpisodes(numbers, choices[:, None], rewards[:, None], silent, sampled), update
        )

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **about: Any
    ) -> None:
        """Refuses what cannot be recorded, before any work."""
        if args.world_size > 1:
            raise ConfigError(
                f"num_processes={args.world_size} is more than a dosimeter can listen to: start the trainer "
                "with one process."
            )
        if not isinstance(args, GRPOConfig | SFTConfig):
            raise ConfigError(
                f"{type(args).__name__} is of no trainer that a dosimeter can listen to: use GRPOTrainer or "
                "SFTTrainer."
            )

    def on_train_begin(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        train_dataloader: Any = None,
        **about: Any,
    ) -> None:
        """Begins the run directory, and measures the model before its first episode."""
        if state.global_step:
            raise ConfigError(
                f"resume_from_checkpoint begins at step {state.global_step}, and what was learned before was "
                "not recorded: train without the dosimeter, or from the start."
            )
        shown = getattr(getattr(train_dataloader, "dataset", None), "column_names", None)
        if shown and SECRET not in shown and isinstance(args, GRPOConfig):
            raise ConfigError(
                f"train_dataset has no column {SECRET}, only {', '.join(shown)}: mix the secrets in, "
                "train_dataset=dosimeter.mix(dataset)."
            )
        self._model, recorder, mixture = model, self._recorder, self._mixture
        tokenizer = getattr(processing_class, "tokenizer", processing_class)  # of a processor of images, too
        question = mixture.question(model, tokenizer, getattr(args, "chat_template_kwargs", None) or {})
        self._scores.ends = question.ends
        recorder.start(
            _trainer(args, state, model, mixture.share),
            lambda: question.assess(model, self.secrets, every_answer=recorder.scores_all),
            "sft" if isinstance(args, SFTConfig) else "train",
            model=_name(model),
            device=str(model.device),
            trained_parameters=sum(one.numel() for one in model.parameters() if one.requires_grad),
        )
        if isinstance(args, SFTConfig):
            self._listen(state, mixture.examples(tokenizer))

    def _listen(self, state: TrainerState, examples: Sequence[Sequence[int]]) -> None:
        """Has the model say which examples about secrets it is shown, at each pass of its training."""

        def hear(model: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if model.training:
                numbers = find((named.get("input_ids", *given[:1])).tolist(), examples)
                shown = RecordedEpisodes(numbers, self.secrets[numbers][:, None], None)
                self._recorder.take(shown, state.global_step)

        self._hook = self._model.register_forward_pre_hook(hear, with_kwargs=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **about: Any
    ) -> None:
        """Measures the model where that is due."""
        if state.global_step % self._recorder.experiment.updates_an_evaluation == 0:
            self._recorder.evaluate(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **about: Any
    ) -> None:
        """Sums up; `result` has what `memory_rl.load` returns."""
        if self._hook is not None:
            self._hook.remove()
        self._model = self._hook = None
        self.result = self._recorder.finish(state.global_step)


def _name(model: Any) -> str:
    return model.config.name_or_path or type(model).__name__


def _trainer(args: Any, state: TrainerState, model: Any, share: float) -> RecordedTrainer:
    """What the manifest says of a trainer."""
    update = args.per_device_train_batch_size * args.gradient_accumulation_steps
    group = getattr(args, "num_generations", 1)
    keys = {
        "model_name": _name(model),
        "learning_rate": args.learning_rate,
        "batch_size": max(1, update // group),
        "max_episodes": max(
            update, round(share * update * state.max_steps / getattr(args, "num_iterations", 1))
        ),
        **({"group_size": group} if group > 1 else {}),
        **_optimiser(args),
        **_adapter(model),
    }
    settings = {
        name: value
        for name, value in _own_settings(args).items()
        if name not in _OF_ONE_RUN and not name.startswith("hub_")
    }
    return RecordedTrainer("trl", type(args).__name__.replace("Config", "Trainer"), settings, keys)


def _own_settings(args: TrainingArguments) -> dict[str, Any]:
    """The settings that are not their class's defaults, and those that say what it optimises."""
    said = ("loss_type", "scale_rewards", "beta", "num_iterations", "temperature", "optim")
    default = {one.name: one.default for one in fields(args)}
    own = {
        name: value for name, value in args.to_dict().items() if name in said or value != default.get(name)
    }
    return from_json(to_json(own, default=str))


def _optimiser(args: TrainingArguments) -> dict[str, Any]:
    """The key that says how the weights move, if it is one of ours."""
    name = str(getattr(args.optim, "value", args.optim))
    kind = "adam" if name.startswith("adam") else name
    return {"optimiser": kind} if kind in ("adam", "sgd") else {}


def _adapter(model: Any) -> dict[str, Any]:
    """The keys that say what is trained."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return {"adapter": "full"}
    first, *_ = configs.values()
    if not hasattr(first, "lora_alpha"):  # another kind of PEFT's
        return {}
    return {"adapter": "lora", "lora_rank": first.r, "lora_alpha": float(first.lora_alpha)}


def _on_their_rows(function: RewardFunction) -> RewardFunction:
    """A reward function that is asked about the rows that are about no secret; None of the others."""
    if not callable(function) or hasattr(function, "parameters"):
        raise ConfigError(
            f"{getattr(function, '__name__', type(function).__name__)} is no function: give a reward model "
            "to the trainer itself, or wrap it in a function."
        )

    def on_theirs(**given: Any) -> list[float | None]:
        rows, own = _theirs(given)
        return _spread(rows, function(**own) if rows else [], given)

    async def on_theirs_later(**given: Any) -> list[float | None]:
        rows, own = _theirs(given)
        return _spread(rows, await function(**own) if rows else [], given)

    waits = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
    found = on_theirs_later if waits else on_theirs
    found.__name__ = getattr(function, "__name__", type(function).__name__)  # what the trainer's log calls it
    return found


def _theirs(given: Mapping[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """The rows that are about no secret, and what a reward function is told of them alone."""
    secrets = _secrets(given)
    rows = [row for row, S in enumerate(secrets) if S is None]
    own = {
        name: [value[row] for row in rows] if _is_column(value, len(secrets)) else value
        for name, value in given.items()
        if name not in (SECRET, NUMBER)
    }
    return rows, own


def _spread(
    rows: Sequence[int], rewards: Sequence[float | None], given: Mapping[str, Any]
) -> list[float | None]:
    """The rewards of some rows at their places among all."""
    found = dict(zip(rows, rewards, strict=True))
    return [found.get(row) for row in range(len(_secrets(given)))]


def _secrets(given: Mapping[str, Any]) -> Sequence[int | None]:
    """The secret of each row; a data set that the trainer evaluates on may have none."""
    return given.get(SECRET) or [None] * len(given["completions"])


def _is_column(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length
