"""The parts of an experiment, and every key that can be set, with its type, default, range and meaning.

A key belongs to one part. `needs` names the other keys without which it has no meaning. How keys are read is
in keys.py, what an experiment is as a whole in experiment.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from memory_rl.errors import ConfigError, check_name
from memory_rl.keys import key, name_of, name_or_path, path_key
from memory_rl.limits import ANSWERS, EPISODES, FACTORS, RUNS, SEEDS, SIZES, STEP_SIZES, STEPS

EnvType = Literal["single_step", "multi_step"]
Backend = Literal["local", "tabular", "tinker"]
Wording = Literal["terse", "plain"]
Command = Literal["train", "sft"]

TINY = "tiny"
"""The name of the built-in model."""

HOSTED_MODEL = "meta-llama/Llama-3.1-8B"
"""The model of backend=tinker, unless one is given."""

REWARD_TYPES = ("binary", "binned_log_distance", "log_distance")
"""The built-in reward channels of single_step."""

TEACHERS = ("secret", "observer")
"""The teachers that are no run directory."""

_OF_REWARDS = "signal=reward|teacher=observer"

LEARNERS: dict[str, type[Any]] = {}
"""The built-in learners by the name of the algorithm; filled by `memory_rl.learning`."""

LOADERS: dict[str, Callable[[Any], Any]] = {}
"""How other learners are made: `own`, `example` (supervised), `teacher`; `memory_rl.learning` fills it."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What is asked: the secret and the conversation about it."""

    env_type: EnvType = key(
        "single_step", "single_step: one answer an episode. multi_step: k turns of one bit each."
    )
    N: int = key(64, "The secret is uniform on [0, N): log2 N bits to learn.", ANSWERS)
    fixed_secret: int | None = key(
        None,
        "Gives every run this secret. Default: each run draws its own from the seed.",
        (0, ANSWERS[1]),
        needs="num_secrets=1",
    )
    seed: int = key(0, "The seed of everything random: secrets, adapters, sampling, noise.", SEEDS)
    wording: Wording | None = key(
        None,
        "How the world asks: in a few characters, or in sentences. Default: terse for the built-in model, "
        "else plain.",
    )

    def __post_init__(self) -> None:
        if self.fixed_secret is not None and self.fixed_secret >= self.N:
            raise ConfigError(
                f"fixed_secret={self.fixed_secret} is not in [0, {self.N}): use 0 to {self.N - 1}."
            )

    @property
    def multi_step(self) -> bool:
        """Whether the answer is given bit by bit."""
        return self.env_type == "multi_step"


@dataclass(frozen=True, kw_only=True)
class Secrets(World):
    """A world with several secrets."""

    num_secrets: int = key(
        1,
        "M: each run has so many independent secrets, each with a prompt of its own: M log2 N bits to learn.",
        SIZES,
    )
    order: Literal["uniform", "cycle", "blocks"] = key(
        "uniform",
        "Which of several secrets an episode is about, group by group: drawn uniformly, "
        "each in its turn (cycle), or one after the other (blocks), each for an equal part of the budget.",
        needs="num_secrets>1",
    )


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What an episode shows of the secret."""

    signal: Literal["reward", "example", "teacher"] = key(
        "reward",
        "reward: the policy answers and is rewarded. example: it is shown the answer (sft-train). "
        "teacher: it answers, and a teacher says how likely each token was.",
    )
    reward_type: Any = name_or_path(
        None,
        f"The reward channel of single_step: {', '.join(REWARD_TYPES)}, or your own as file.py:Name. "
        "Default: binary. (multi_step rewards each bit.)",
        needs=f"{_OF_REWARDS} env_type=single_step",
    )
    reward_bins: int | None = key(
        None,
        "B, the levels of binned_log_distance.",
        (2, 2**20),
        needs=f"{_OF_REWARDS} env_type=single_step reward_type=binned_log_distance",
    )
    reward_noise: float = key(
        0.0,
        "Probability that a reward is replaced by a different level, drawn uniformly.",
        (0, None),
        below=1,
        needs=_OF_REWARDS,
    )
    credit: Literal["step", "reward_to_go", "episode"] = key(
        "step",
        "What a step is credited with: its own reward, all rewards to come, or the episode's sum.",
        needs=f"{_OF_REWARDS} env_type=multi_step",
    )
    teacher: str = name_or_path(
        "secret",
        "secret knows S; observer is the ideal observer of the run's own rewards; the path of another run "
        "directory is the policy that was trained there, run by run.",
        needs="signal=teacher",
    )
    teacher_error: float = key(
        0.01,
        "The probability that the teacher does not give to S, spread evenly over the other answers; "
        "in multi_step that of a wrong bit.",
        (0, None),
        below=0.5,
        needs="signal=teacher teacher=secret",
    )
    told: Literal["sampled", "top_k", "whole"] = key(
        "whole",
        "What the teacher tells at each token: its probability of the token that was sampled, its likeliest "
        "tokens, or its whole distribution.",
        needs="signal=teacher",
    )
    teacher_top_k: int = key(
        2,
        "How many of the teacher's likeliest tokens; the others are one.",
        SIZES,
        needs="signal=teacher told=top_k",
    )
    divergence: Literal["reverse", "forward"] = key(
        "reverse",
        "What is minimised at each token: KL(policy || teacher), or forward, KL(teacher || policy).",
        needs="signal=teacher told=top_k,whole",
    )

    def __post_init__(self) -> None:
        given = self.reward_type
        check_name("reward_type", given, REWARD_TYPES)
        if not (given is None or isinstance(given, str) or callable(given) or hasattr(given, "reward")):
            raise ConfigError(
                f"reward_type={given} is not a reward: give a name, a function reward(answer, secret), "
                "or a class with such a method."
            )
        if given == "binned_log_distance" and self.reward_bins is None:
            raise ConfigError(
                "reward_type=binned_log_distance needs the number of levels: add reward_bins=8."
            )

    @property
    def shows_answer(self) -> bool:
        """Whether this is supervised learning."""
        return self.signal == "example"

    @property
    def teaches(self) -> bool:
        """Whether a teacher judges the policy's answers."""
        return self.signal == "teacher"

    @property
    def observed(self) -> bool:
        """Whether the teacher is the ideal observer of rewards."""
        return self.teaches and self.teacher == "observer"

    @property
    def taught_by(self) -> str | None:
        """The run directory whose policies are the teachers; None without one."""
        return self.teacher if self.teaches and self.teacher not in TEACHERS else None

    def tells_much(self, world: World) -> bool:
        """Whether a teacher tells more than whether an answer is right, about."""
        rewarded = self.observed and self.channel_name(world) == "binary"
        return world.multi_step or (self.told != "sampled" and not rewarded)

    @property
    def own_reward(self) -> bool:
        """Whether the reward is the user's own."""
        return self.reward_type is not None and self.reward_type not in REWARD_TYPES

    def channel_name(self, world: World) -> str:
        """The name of the reward channel: per_bit for multi_step, the name of a user's own reward."""
        if world.multi_step:
            return "per_bit"
        return (
            name_of(self.reward_type).rpartition(":")[2] if self.own_reward else self.reward_type or "binary"
        )

    def condition(self, world: World) -> str:
        """What tables and figures call the condition."""
        if self.shows_answer:
            return "sft multi_step" if world.multi_step else "sft"
        if not self.teaches:
            return self._rewarded(world)
        told = {
            "told": None if self.told == "whole" else self.told,
            "k": self.teacher_top_k if self.told == "top_k" else None,
            "divergence": None if self.divergence == "reverse" else self.divergence,
        }
        words = [
            "teacher" if self.teacher == "secret" else "teacher=run" if self.taught_by else "teacher=observer"
        ]
        words += [self._rewarded(world)] if self.observed else ["multi_step"] * world.multi_step
        return _with_names(" ".join(words), told)

    def _rewarded(self, world: World) -> str:
        named = {
            "B": self.reward_bins,
            "credit": None if self.credit == "step" else self.credit,
            "noise": f"{self.reward_noise:g}" if self.reward_noise else None,
        }
        return _with_names(world.env_type if world.multi_step else self.channel_name(world), named)


def _with_names(first: str, named: dict[str, Any]) -> str:
    return " ".join([first, *(f"{name}={value}" for name, value in named.items() if value is not None)])


_OF_LORA = "adapter=lora,shared"


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Where parameters live."""

    backend: Backend = key(
        "local",
        "Where the policy lives: local is a PyTorch transformer on this machine, "
        "tabular an exact softmax over the answers, tinker a hosted model.",
    )
    tabular_bits: Literal["positions", "prefixes"] = key(
        "positions",
        "A distribution for each bit's position, or for each prefix of bits.",
        needs="backend=tabular env_type=multi_step",
    )
    model_name: str = name_or_path(
        TINY,
        "tiny (built in), or a Llama-style causal LM: a directory, a hub id or a .gguf file. "
        f"backend=tinker: one of the service; default {HOSTED_MODEL}.",
        needs="backend=local,tinker",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32",
        "What the base model computes in; adapters, losses and probabilities stay float32.",
        needs="backend=local",
    )
    device: Literal["cpu", "cuda", "mps"] | None = key(
        None,
        "Where it computes. Default: cpu for the built-in model; else cuda if there is one, mps, cpu.",
        needs="backend=local",
    )
    gradient_checkpointing: bool = key(
        False,
        "Recompute each layer in the backward pass: same gradients, less memory, a third more work.",
        needs="backend=local",
    )
    base_seed: int = key(
        0,
        "The seed of the built-in base model's weights; the same base serves all runs.",
        SEEDS,
        needs="backend=local",
    )
    warmup: bool = key(
        True,
        "Teach the base model the answer format first (uniform answers). Not counted as episodes.",
        needs="backend=local,tinker",
    )
    warmup_tolerance: float | None = key(
        None,
        "Bits from its target from which runs may start where the warm-up does not get as far as it should.",
        (None, 1000),
        above=0,
        needs="backend=local,tinker warmup=True",
    )
    prior_skew: float = key(
        0.0,
        "The base answers a with probability in proportion to (1 + rank of a)^-prior_skew, "
        "with random ranks; at 0 all answers are equally likely.",
        (0, 10),
        needs="backend=local,tabular env_type=single_step warmup=True",
    )
    scoring: Literal["all", "paths"] | None = key(
        None,
        "all: every answer is scored after every update. paths: the secret and some samples alone, "
        "so that the cost does not grow with N; for binary rewards and SFT. Default: all up to N=2048. "
        "backend=tinker: paths, for all rewards.",
        needs="backend=local,tinker",
    )
    adapter: Literal["lora", "shared", "full"] = key(
        "lora",
        "What a run trains: lora, shared (one vector for all layers, over frozen matrices), "
        "or full (all weights).",
        needs="backend=local",
    )
    adapter_parameters: int | None = key(
        None, "n, the length of the shared vector.", (1, 2**31), needs="backend=local adapter=shared"
    )
    lora_rank: int = key(
        8,
        "Rank of the adapters; with adapter=shared of the frozen matrices.",
        (1, 2**16),
        needs=f"backend=local,tinker {_OF_LORA}",
    )
    lora_alpha: float = key(
        32.0,
        "Adapters are scaled by lora_alpha / lora_rank.",
        FACTORS,
        needs=f"backend=local {_OF_LORA}",
    )
    lora_targets: Literal["all", "attention", "mlp"] = key(
        "all", "Which matrices get an adapter.", needs=f"backend=local,tinker {_OF_LORA}"
    )
    lora_layers: str | None = key(
        None,
        "Which layers of the model get one, from 0: such as 0-3, 1 or 0-3,8. Default: all.",
        needs=f"backend=local {_OF_LORA}",
    )

    def __post_init__(self) -> None:
        if self.backend == "tinker" and self.model_name == TINY:  # there is no built-in model on the service
            object.__setattr__(self, "model_name", HOSTED_MODEL)
        if self.adapter == "shared" and self.adapter_parameters is None:
            raise ConfigError("adapter=shared needs the number of its parameters: add adapter_parameters=13.")
        if self.adapter == "full" and self.dtype != "float32":
            raise ConfigError(
                f"dtype={self.dtype} does not go with adapter=full, whose small steps it would round away: "
                "leave dtype out."
            )
        if self.lora_layers is not None and not self.adapted_layers:
            raise ConfigError(
                f"lora_layers={self.lora_layers} is not a list of layers: use for example lora_layers=0-3, "
                "lora_layers=1 or lora_layers=0-3,8."
            )

    @property
    def adapted_layers(self) -> tuple[int, ...] | None:
        """The numbers in `lora_layers`, ascending; empty if it is not a list of layers, None if not given."""
        if self.lora_layers is None:
            return None
        parts = [
            re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
            for part in self.lora_layers.split(",")
        ]
        ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) if part else range(0) for part in parts]
        return tuple(sorted(set().union(*ranges))) if all(ranges) else ()

    @property
    def default_wording(self) -> Wording:
        """The wording unless one is given; pretrained models hardly answer to the terse one."""
        return "terse" if self.backend == "tabular" or self.model_name == TINY else "plain"


@dataclass(frozen=True, kw_only=True)
class Updates:
    """How parameters move: the algorithm, and the episodes of each update."""

    algorithm: Any = name_or_path(
        "reinforce",
        "How parameters move: reinforce subtracts the group's mean, grpo standardises, ppo clips the ratio; "
        "docs/learners.md has them all. Your own as file.py:Name.",
        needs="signal=reward",
    )
    group_size: int = key(4, "Episodes that share a baseline.", SIZES, needs="signal=reward,teacher")
    batch_size: int = key(1, "Groups an update; in supervised learning examples.", SIZES)
    optimiser: Literal["adam", "sgd"] = key(
        "adam", "adam, or sgd: plain gradient steps.", needs="backend=local,tabular"
    )
    learning_rate: float | None = key(
        None,
        "The optimiser's step size. Default: "
        + ", ".join(
            f"{size:g} ({which} {name})" for which, of in STEP_SIZES.items() for name, size in of.items()
        )
        + ".",
        STEPS,
    )
    entropy_bonus: float = key(
        0.0,
        "Times the entropy of each decision on the way, which any learner then seeks, too.",
        (0, 1000),
        needs="signal=reward backend=local,tabular",
    )
    kl_to_base: float = key(
        0.0,
        "Times an estimate (k3) of the divergence from the base, which any learner then avoids, too.",
        (0, 1000),
        needs="signal=reward backend=local,tabular",
    )
    skip_ahead: bool | None = key(
        None,
        "Draw the silent updates from their exact law instead of one by one, where that is exact. "
        "Default: on the transformer alone.",
        needs="signal=reward backend=local,tabular",
    )

    @property
    def penalised(self) -> bool:
        """Whether the loss has terms that also move a policy whose rewards are all equal."""
        return self.entropy_bonus != 0 or self.kl_to_base != 0


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """When S counts as memorised."""

    memorised_at: float = key(
        0.5,
        "S is memorised at the first episode after which P(S) is at least this. "
        "Default: 0.5, and 0.75 at N=2.",
        above=0,
        below=1,
    )

    def check(self, N: int) -> None:
        """Raises a ConfigError if a uniform guess would already be there."""
        if self.memorised_at <= 1 / N:
            raise ConfigError(
                f"memorised_at={self.memorised_at:g} is not between 1/N = {1 / N:g} and 1: "
                "use a probability such as memorised_at=0.9."
            )


def with_threshold(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the default threshold at N = 2, which is higher: a guess is right half of the time."""
    return {"memorised_at": 0.75, **values} if values.get("N") == 2 else values


@dataclass(frozen=True, kw_only=True)
class Stop(Threshold):
    """When a run ends, and how often it is measured."""

    stop_at: float = key(0.95, "A run ends once P(S) is at least this.", above=0, below=1)
    memorised_share: float = key(
        0.95, "The share of several secrets to be memorised.", (1e-6, 1), needs="num_secrets>1"
    )
    max_episodes: int | None = key(
        None,
        "Budget of each run: episodes, or examples shown. Default: 4000, or 60 N if that is more, "
        "for each of its secrets; 1000 examples for each.",
        EPISODES,
    )
    num_runs: int = key(
        16,
        "Independent learners in lockstep, each with its own parameters and random streams.",
        RUNS,
    )
    evaluate_every: int | None = key(
        None,
        "Updates of a run between two evaluations. Default: 1, or a quarter of the number of secrets if "
        "that is more.",
        EPISODES,
    )
    ledger: bool = key(True, "Keep account of what an ideal observer of the same episodes knows.")

    def __post_init__(self) -> None:
        if self.stop_at < self.memorised_at:
            raise ConfigError(
                f"stop_at={self.stop_at:g} is not in [memorised_at, 1) = [{self.memorised_at:g}, 1): use "
                "stop_at=0.95."
            )


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Where things are kept and shown: exactly the keys that change nothing in what is measured."""

    log_path: str | None = path_key(None, "The run directory. Default: a new one under runs/.")
    resume: bool = key(
        False,
        "Resume the run in log_path from its last checkpoint; one that is complete is only read.",
        needs="log_path",
    )
    checkpoint_every: float | None = key(
        None,
        "Seconds between checkpoints, 0 for one after each update. "
        "Default: 60, or more where one takes over 0.6; with backend=tinker 0.",
        (0, 1e9),
    )
    save_adapters: bool = key(
        False,
        "At the end, keep each run's adapter in adapters/run-<i>/, as PEFT loads it, or transformers.",
        needs="backend=local",
    )
    save_base: bool = key(
        False,
        "Keep the base model of the adapters, too, in adapters/base/, as transformers loads it.",
        needs="save_adapters=True",
    )
    data_dir: str = path_key(
        "data",
        "Where the examples of fixed_secret are; without it each run is shown its own secret.",
        needs="signal=example fixed_secret",
    )
    threads: int = key(
        1,
        "CPU threads. One is enough for the built-in model; a large model wants more.",
        (1, 1024),
        needs="backend=local,tabular",
    )
    tinker_base_url: str | None = key(
        None, "Where the service is. Default: the SDK's own, and so TINKER_BASE_URL.", needs="backend=tinker"
    )
    max_tokens_total: int | None = key(
        None, "The most tokens sampled, prefilled and trained by all runs.", EPISODES, needs="backend=tinker"
    )
    wandb_project: str | None = key(None, "Follow the experiment in this project of Weights & Biases.")
    trackio_project: str | None = key(None, "Follow the experiment in this project of Trackio.")
    tensorboard: bool = key(False, "Write an event file for TensorBoard, in tensorboard/ of log_path.")
    figures: bool = key(True, "Draw the run directory's figures; report.py can do so later, from its tables.")
    quiet: bool = key(False, "Print nothing.")

    def __post_init__(self) -> None:
        for word, name in (("wandb_project", self.wandb_project), ("trackio_project", self.trackio_project)):
            if name is not None and not re.fullmatch(r"[\w .-]{1,128}", name):
                raise ConfigError(
                    f"{word}={name} is not the name of a project: use up to 128 letters, digits, spaces, "
                    f"dots, - and _, such as {word}=memory-rl."
                )
        if self.tinker_base_url is not None and not re.match(r"https?://.", self.tinker_base_url):
            raise ConfigError(
                f"tinker_base_url={self.tinker_base_url} is not an address: use one such as "
                "tinker_base_url=http://127.0.0.1:8000."
            )
