"""What an experiment is: every key that can be set, its default, its meaning, and what is wrong with a bad
value.

A configuration object that exists is valid as far as it can be without looking at models or files. Each
message names the key, the value and what to type instead.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Collection
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import chz

from memory_rl.errors import ConfigError, suggest

EnvType = Literal["single_step", "multi_step"]
Backend = Literal["local", "tabular", "tinker"]
Algorithm = Literal["reinforce", "grpo", "rloo", "ppo", "posterior"]
Baseline = Literal["group", "none"]
Credit = Literal["step", "reward_to_go", "episode"]
Optimiser = Literal["adam", "sgd"]
Targets = Literal["all", "attention", "mlp"]
AdapterKind = Literal["lora", "shared", "full"]
Scoring = Literal["all", "paths"]
Order = Literal["uniform", "cycle", "blocks"]
Wording = Literal["terse", "plain"]
DType = Literal["float32", "bfloat16", "float16"]
Device = Literal["cpu", "cuda", "mps"]

TINY = "tiny"
"""The name of the built-in model."""

REWARD_TYPES = ("binary", "binned_log_distance", "log_distance")
"""The built-in reward channels of single_step."""

MAX_N = {
    ("local", "single_step"): 2048,
    ("local", "multi_step"): 512,
    ("tabular", "single_step"): 4096,
    ("tabular", "multi_step"): 4096,
}
"""The policies score all N answers, the local one as a trie of tokens in every pass; beyond these N that gets
too large."""

MAX_N |= {
    ("tinker", "single_step"): 4096,
    ("tinker", "multi_step"): 512,
}  # the ledger and the trie are the limit, since not all answers need be scored

MAX_N_OF_PATHS = 2**20
"""Beyond this the tokens of all answers take too much memory even where only some are scored."""

MAX_RUNS = 2**14
"""Beyond this the bootstrap over runs takes gigabytes."""

MAX_ANSWERS_KEPT = 2**26
"""Of all runs and secrets: the distributions over more of them take gigabytes."""

MAX_TABULATED_N = 4096
"""Beyond this N the table of all answers and secrets gets too large for the ceilings of channels that have no
closed form."""

STEP_SIZES = {
    ("local", "adam"): 5e-4,
    ("local", "sgd"): 0.03,
    ("tabular", "adam"): 0.3,
    ("tabular", "sgd"): 1.0,
}
STEP_SIZES |= {
    ("tinker", "adam"): 3e-4
}  # the Tinker cookbook's rule for a LoRA on Llama-3.1-8B, 5e-4 (2000 / 4096)^0.781, rounded
"""The learning rate of each backend and optimiser, unless one is given."""

ADAPTER_STEP_SIZES = {
    ("shared", "adam"): 0.1,
    ("shared", "sgd"): 1.0,
    ("full", "adam"): 2e-4,
    ("full", "sgd"): 0.03,
}
"""The same of the other kinds of adapters on the transformer."""

OPERATIONAL_KEYS = (
    *(
        "log_path",
        "quiet",
        "resume",
        "checkpoint_every",
        "save_adapters",
        "wandb_project",
        "trackio_project",
        "tensorboard",
    ),
    *("tinker_base_url", "max_tokens_total"),
)
"""Keys that change nothing in what is measured: a run may be gone on with under other values of them."""

HOSTED_MODEL = "meta-llama/Llama-3.1-8B"
"""The model of backend=tinker, unless one is given."""

_OF_LORA = ("lora_rank", "lora_alpha", "lora_targets", "lora_layers")
_OF_OUR_ENGINE = (
    "dtype",
    "device",
    "gradient_checkpointing",
    "base_seed",
    "adapter",
    "adapter_parameters",
    "save_adapters",
)
_OF_THE_SERVICE = ("tinker_base_url", "max_tokens_total")
_OF_THE_TRANSFORMER = ("model_name", "wording", "warmup", *_OF_OUR_ENGINE, *_OF_LORA, "scoring")
_IGNORED = {
    "tabular": (*_OF_THE_TRANSFORMER, *_OF_THE_SERVICE),
    "local": ("tabular_bits", *_OF_THE_SERVICE),
    "tinker": ("tabular_bits", *_OF_OUR_ENGINE, "lora_alpha", "lora_layers", "threads"),
}
"""Keys without a meaning, by backend."""


def _hosted_unless_named(config: LearnerConfig, name: str) -> str:
    """There is no built-in model on the service, so that its default is another."""
    return HOSTED_MODEL if config.backend == "tinker" and name == TINY else name


@chz.chz(typecheck=True)
class WorldConfig:
    """The secret and the conversation about it."""

    env_type: EnvType = chz.field(
        default="single_step", doc="single_step: one answer an episode. multi_step: k turns of one bit each."
    )
    N: int = chz.field(default=64, doc="The secret is uniform on [0, N): log2 N bits to learn.")
    fixed_secret: int | None = chz.field(
        default=None, doc="Gives every run this secret. Default: each run draws its own from the seed."
    )
    seed: int = chz.field(default=0, doc="Of everything random: secrets, adapters, sampling, noise.")
    wording: Wording | None = chz.field(
        default=None,
        doc="How the world asks: terse, in a few characters, or plain, in sentences. Default: terse for the built-in model, plain for others.",
    )

    @chz.validate
    def _check_world(self) -> None:
        if self.N < 2:
            raise ConfigError(
                f"N={self.N} leaves nothing to learn: use an integer of at least 2, such as N=64."
            )
        if self.fixed_secret is not None and not 0 <= self.fixed_secret < self.N:
            raise ConfigError(
                f"fixed_secret={self.fixed_secret} is not in [0, {self.N}): use 0 to {self.N - 1}."
            )
        _at_least("seed", self.seed, 0)

    @property
    def wording_in_use(self) -> Wording:
        """How the world asks."""
        return self.wording or "terse"


@chz.chz(typecheck=True)
class ChannelConfig(WorldConfig):
    """What an answer is told, and what a step of it is credited with."""

    reward_type: Any = chz.field(
        default=None,
        doc=f"The reward channel of single_step: {', '.join(REWARD_TYPES)}, or your own as file.py:Name. Default: binary. (multi_step rewards each bit.)",
    )
    reward_bins: int | None = chz.field(default=None, doc="B, the levels of binned_log_distance.")
    reward_noise: float = chz.field(
        default=0.0, doc="Probability that a reward is replaced by a different level, drawn uniformly."
    )
    credit: Credit = chz.field(
        default="step",
        doc="What a step is credited with: its own reward, all rewards to come, or the episode's sum.",
    )

    @chz.validate
    def _check_channel(self) -> None:
        if self.env_type == "multi_step":
            for key in ("reward_type", "reward_bins"):
                if getattr(self, key) is not None:
                    raise ConfigError(
                        f"{key}={getattr(self, key)} has no meaning with env_type=multi_step, which rewards each bit: leave {key} out."
                    )
        if (
            isinstance(self.reward_type, str)
            and self.reward_type not in REWARD_TYPES
            and ":" not in self.reward_type
        ):
            raise ConfigError(
                f"reward_type={self.reward_type} is not a choice: {suggest(self.reward_type, [*REWARD_TYPES, 'file.py:Name'])}"
            )
        if not (
            self.reward_type is None
            or isinstance(self.reward_type, str)
            or callable(self.reward_type)
            or hasattr(self.reward_type, "reward")
        ):
            raise ConfigError(
                f"reward_type={self.reward_type} is not a reward: give a name, a function reward(answer, secret), or a class with such a method."
            )
        if self.channel_name == "binned_log_distance":
            if self.reward_bins is None:
                raise ConfigError(
                    "reward_type=binned_log_distance needs the number of levels: add reward_bins=8."
                )
            _at_least("reward_bins", self.reward_bins, 2)
        elif self.reward_bins is not None:
            raise ConfigError(
                f"reward_bins={self.reward_bins} goes with reward_type=binned_log_distance alone: leave reward_bins out or add that reward_type."
            )
        if not 0 <= self.reward_noise < 1:
            raise ConfigError(
                f"reward_noise={self.reward_noise:g} is not in [0, 1): use a probability such as reward_noise=0.1."
            )

    @property
    def own_reward(self) -> bool:
        """Whether the reward is the user's own."""
        return self.reward_type is not None and self.reward_type not in REWARD_TYPES

    @property
    def channel_name(self) -> str:
        """The reward channel: per_bit for multi_step, the last name of a reward of one's own."""
        if self.env_type == "multi_step":
            return "per_bit"
        if not self.own_reward:
            return self.reward_type or "binary"
        return name_of(self.reward_type).rpartition(":")[2]

    @property
    def condition(self) -> str:
        """What tables and figures call this experiment."""
        parts = [self.channel_name if self.env_type == "single_step" else self.env_type]
        if self.reward_bins is not None:
            parts.append(f"B={self.reward_bins}")
        if self.credit != "step" and self.env_type == "multi_step":
            parts.append(f"credit={self.credit}")
        if self.reward_noise > 0:
            parts.append(f"noise={self.reward_noise:g}")
        return " ".join(parts)


def secrets_to_memorise(num_secrets: int, share: float) -> int:
    """The least number of secrets that is at least this share of them."""
    return math.ceil(share * num_secrets - 1e-9)


def name_of(reward_type: Any) -> str:
    """A reward as the manifest names it: its own text, or the name of a Python object."""
    if isinstance(reward_type, str):
        return reward_type
    named = reward_type if hasattr(reward_type, "__qualname__") else type(reward_type)
    return f"{named.__module__}:{named.__qualname__}"


@chz.chz(typecheck=True)
class BoundsConfig(ChannelConfig):
    """A channel whose ceilings are asked for."""

    memorised_at: float = chz.field(
        default=0.5, doc="The ideal questioner has memorised S once P(S) is at least this."
    )

    @chz.validate
    def _check_bounds(self) -> None:
        _check_memorised_at(self.memorised_at, self.N)
        closed = (
            self.env_type == "single_step"
            and not self.own_reward
            and self.channel_name in ("binary", "log_distance")
            and self.reward_noise == 0
        )
        limit = MAX_N["local", "multi_step"] if self.env_type == "multi_step" else MAX_TABULATED_N
        if limit < self.N and not closed:
            raise ConfigError(
                f"N={self.N} is too large to tabulate this channel: use N={limit} or less, or reward_type=binary."
            )


@chz.chz(typecheck=True)
class LearnerConfig(WorldConfig):
    """The policy, its parameters and when a run ends; shared by reinforcement and supervised learning."""

    backend: Backend = chz.field(
        default="local",
        doc="Where the policy lives: local is a PyTorch transformer on this machine, tabular an exact softmax over the answers, tinker a hosted model.",
    )
    tabular_bits: Literal["positions", "prefixes"] = chz.field(
        default="positions",
        doc="backend=tabular, env_type=multi_step: a distribution for each bit's position, or for each prefix of bits.",
    )
    model_name: str = chz.field(
        default=TINY,
        munger=_hosted_unless_named,
        doc=f"tiny (built in), or a Llama-style causal LM: a directory, a hub id or a .gguf file. backend=tinker: one of the service; default {HOSTED_MODEL}.",
    )
    dtype: DType = chz.field(
        default="float32",
        doc="What the base model computes in; adapters, losses and probabilities stay float32.",
    )
    device: Device | None = chz.field(
        default=None,
        doc="Where it computes. Default: cpu for the built-in model; else cuda if there is one, mps, cpu.",
    )
    gradient_checkpointing: bool = chz.field(
        default=False,
        doc="Recompute each layer in the backward pass: same gradients, less memory, a third more work.",
    )
    tinker_base_url: str | None = chz.field(
        default=None,
        doc="backend=tinker: where the service is. Default: the SDK's own, and so TINKER_BASE_URL.",
    )
    max_tokens_total: int | None = chz.field(
        default=None,
        doc="backend=tinker: the experiment stops before it has sampled, prefilled and trained more tokens than this, all runs together.",
    )
    base_seed: int = chz.field(
        default=0, doc="Of the built-in base model's weights; the same base serves all runs."
    )
    warmup: bool = chz.field(
        default=True,
        doc="Teach the base model the answer format first (uniform answers). Not counted as episodes.",
    )
    num_runs: int = chz.field(
        default=16, doc="Independent learners in lockstep, each with its own parameters and random streams."
    )
    num_secrets: int = chz.field(
        default=1,
        doc="M: each run has so many independent secrets to learn, each asked for by a prompt of its own: M log2 N bits.",
    )
    order: Order = chz.field(
        default="uniform",
        doc="Which of several secrets an episode is about, group by group: drawn uniformly, each in its turn (cycle), or one after the other (blocks), each "
        "for an equal part of the budget.",
    )
    evaluate_every: int | None = chz.field(
        default=None,
        doc="Updates of a run between two evaluations. Default: 1; with several secrets, a quarter of their number if that is more.",
    )
    adapter: AdapterKind = chz.field(
        default="lora",
        doc="What a run trains: lora, shared (one vector for all layers, over frozen random matrices), or full (all weights).",
    )
    adapter_parameters: int | None = chz.field(
        default=None, doc="adapter=shared: n, the length of that vector; 1 and up."
    )
    lora_rank: int = chz.field(
        default=8, doc="Rank of the adapters; with adapter=shared of the frozen matrices."
    )
    lora_alpha: float = chz.field(default=32.0, doc="Adapters are scaled by lora_alpha / lora_rank.")
    lora_targets: Targets = chz.field(default="all", doc="Which matrices get an adapter.")
    lora_layers: str | None = chz.field(
        default=None, doc="Which layers of the model get one, from 0: such as 0-3, 1 or 0-3,8. Default: all."
    )
    scoring: Scoring | None = chz.field(
        default=None,
        doc="all: every answer is scored after every update. paths: the secret and some samples alone, so that the cost does not grow with N; "
        "for binary rewards and SFT. Default: all up to N=2048. backend=tinker: paths, for all rewards.",
    )
    optimiser: Optimiser = chz.field(default="adam", doc="adam, or sgd: plain gradient steps.")
    learning_rate: float | None = chz.field(
        default=None,
        doc="The optimiser's step size. Default: "
        + ", ".join(
            f"{size:g} ({' '.join(which)})" for which, size in (STEP_SIZES | ADAPTER_STEP_SIZES).items()
        )
        + ".",
    )
    memorised_at: float = chz.field(
        default=0.5, doc="A run has memorised S at the first episode after which P(S) is at least this."
    )
    stop_at: float = chz.field(default=0.95, doc="A run ends once P(S) is at least this.")
    memorised_share: float = chz.field(
        default=0.95,
        doc="With several secrets: the share of them that must be memorised for the run to have memorised.",
    )
    ledger: bool = chz.field(
        default=True,
        doc="Keep account of what an ideal observer of the same episodes knows. Changes nothing in what is learned.",
    )
    threads: int = chz.field(
        default=1,
        doc="CPU threads. One is enough for the built-in model and fights with no other process; a large model wants more.",
    )
    wandb_project: str | None = chz.field(
        default=None,
        doc="Follow the experiment in this project of Weights & Biases. Changes nothing in what is measured.",
    )
    trackio_project: str | None = chz.field(
        default=None, doc="Follow the experiment in this project of Trackio."
    )
    tensorboard: bool = chz.field(
        default=False, doc="Write an event file for TensorBoard, in tensorboard/ in the run directory."
    )
    log_path: str | None = chz.field(default=None, doc="The run directory. Default: a new one under runs/.")
    resume: bool = chz.field(
        default=False,
        doc="Go on with the run in log_path from its last checkpoint; one that is complete is only read.",
    )
    checkpoint_every: float | None = chz.field(
        default=None,
        doc="Seconds between checkpoints, 0 for one after each update. Default: 60, or more where one takes over 0.6; with backend=tinker 0.",
    )
    save_adapters: bool = chz.field(
        default=False,
        doc="At the end, keep each run's adapter in adapters/run-<i>/, as PEFT loads it, or transformers.",
    )
    quiet: bool = chz.field(default=False, doc="Print nothing.")

    @chz.validate
    def _check_survival(self) -> None:
        if self.resume and self.log_path is None:
            raise ConfigError(
                "resume=True needs the directory of the run to go on with: add log_path=runs/..."
            )
        if self.checkpoint_every is not None and not (
            self.checkpoint_every >= 0 and math.isfinite(self.checkpoint_every)
        ):
            raise ConfigError(
                f"checkpoint_every={self.checkpoint_every:g} is not a number of seconds: use for example checkpoint_every=60."
            )

    @chz.validate
    def _check_learner(self) -> None:
        if self.num_runs > MAX_RUNS:
            raise ConfigError(f"num_runs={self.num_runs} is too large: use num_runs={MAX_RUNS} or less.")
        for key in ("num_runs", "lora_rank", "threads", "num_secrets"):
            _at_least(key, getattr(self, key), 1)
        if self.evaluate_every is not None:
            _at_least("evaluate_every", self.evaluate_every, 1)
        _at_least("base_seed", self.base_seed, 0)
        if self.learning_rate is not None:
            _positive("learning_rate", self.learning_rate, f"{self.own_step_size:g}")
        _positive("lora_alpha", self.lora_alpha, "32")
        _check_memorised_at(self.memorised_at, self.N)
        if not self.memorised_at <= self.stop_at < 1:
            raise ConfigError(
                f"stop_at={self.stop_at:g} is not in [memorised_at, 1) = [{self.memorised_at:g}, 1): use stop_at=0.95."
            )

    @chz.validate
    def _check_secrets(self) -> None:
        most = MAX_ANSWERS_KEPT // (self.num_runs * self.N)
        if self.num_secrets > max(1, most):
            raise ConfigError(
                f"num_secrets={self.num_secrets} is too large for num_runs={self.num_runs} and N={self.N}: use num_secrets={max(1, most)} or less."
            )
        if not 0 < self.memorised_share <= 1:
            raise ConfigError(
                f"memorised_share={self.memorised_share:g} is not in (0, 1]: use a share such as memorised_share=0.95."
            )
        if self.num_secrets == 1:
            for key in ("order", "memorised_share"):
                if getattr(self, key) != chz.chz_fields(self)[key]._default:
                    raise ConfigError(
                        f"{key}={getattr(self, key)} has no meaning with one secret: leave {key} out or add num_secrets=16."
                    )
        elif self.fixed_secret is not None:
            raise ConfigError(
                f"fixed_secret={self.fixed_secret} fixes one secret and num_secrets={self.num_secrets} asks for more: leave one of them out."
            )

    @chz.validate
    def _check_trackers(self) -> None:
        for key in ("wandb_project", "trackio_project"):
            name = getattr(self, key)
            if name is not None and not re.fullmatch(r"[\w .-]{1,128}", name):
                raise ConfigError(
                    f"{key}={name} is not the name of a project: use up to 128 letters, digits, spaces, dots, - and _, such as {key}=memory-rl."
                )

    @chz.validate
    def _check_backend(self) -> None:
        self._check_size()
        for key in _IGNORED[self.backend]:
            if getattr(self, key) != chz.chz_fields(self)[key]._default:
                raise ConfigError(
                    f"{key}={getattr(self, key)} has no meaning with backend={self.backend}: leave {key} out."
                )
        if self.tabular_bits == "prefixes" and self.env_type == "single_step":
            raise ConfigError(
                "tabular_bits=prefixes has no meaning with env_type=single_step: leave tabular_bits out or add env_type=multi_step."
            )

    @chz.validate
    def _check_adapter(self) -> None:
        if self.adapter == "shared" and self.adapter_parameters is None:
            raise ConfigError("adapter=shared needs the number of its parameters: add adapter_parameters=13.")
        if self.adapter != "shared" and self.adapter_parameters is not None:
            raise ConfigError(
                f"adapter_parameters={self.adapter_parameters} goes with adapter=shared alone: leave adapter_parameters out or add adapter=shared."
            )
        if self.adapter_parameters is not None:
            _at_least("adapter_parameters", self.adapter_parameters, 1)
        for key in _OF_LORA if self.adapter == "full" else ():
            if getattr(self, key) != chz.chz_fields(self)[key]._default:
                raise ConfigError(
                    f"{key}={getattr(self, key)} has no meaning with adapter=full: leave {key} out."
                )
        if self.adapter == "full" and self.dtype != "float32":
            raise ConfigError(
                f"dtype={self.dtype} does not go with adapter=full, whose small steps it would round away: leave dtype out."
            )
        if self.lora_layers is not None and not self.adapted_layers:
            raise ConfigError(
                f"lora_layers={self.lora_layers} is not a list of layers: use for example lora_layers=0-3, lora_layers=1 or lora_layers=0-3,8."
            )

    @property
    def adapted_layers(self) -> tuple[int, ...] | None:
        """The numbers in `lora_layers`, ascending; none if it is no list of layers, None if it is not
        given.
        """
        if self.lora_layers is None:
            return None
        parts = [
            re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
            for part in self.lora_layers.split(",")
        ]
        ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) if part else range(0) for part in parts]
        return tuple(sorted(set().union(*ranges))) if all(ranges) else ()

    @chz.validate
    def _check_service(self) -> None:
        if self.backend != "tinker":
            return
        if self.optimiser != "adam":
            raise ConfigError(
                f"optimiser={self.optimiser} is not what backend=tinker has: leave optimiser out."
            )
        if self.tinker_base_url is not None and not re.match(r"https?://.", self.tinker_base_url):
            raise ConfigError(
                f"tinker_base_url={self.tinker_base_url} is not an address: use one such as tinker_base_url=http://127.0.0.1:8000."
            )
        if self.max_tokens_total is not None:
            _at_least("max_tokens_total", self.max_tokens_total, 1)

    def _check_size(self) -> None:
        reason = None if self.backend == "tinker" else self.why_not_paths
        if self.scoring == "paths" and reason:
            raise ConfigError(f"scoring=paths does not go with {reason}: leave scoring out.")
        limit = MAX_N_OF_PATHS if self.scores_paths else MAX_N[self.backend, self.env_type]
        if limit < self.N:
            more = f" and {reason}" if reason not in (None, "backend=tabular", "env_type=multi_step") else ""
            raise ConfigError(
                f"N={self.N} is too large for backend={self.backend} with env_type={self.env_type}{more}: use N={limit} or less."
            )

    @property
    def why_not_paths(self) -> str | None:
        """What keeps the experiment from scoring only some answers; None if nothing does."""
        if self.backend == "tabular":
            return "backend=tabular"
        if self.num_secrets > 1:
            return f"num_secrets={self.num_secrets}"
        return "env_type=multi_step" if self.env_type == "multi_step" else None

    @property
    def wording_in_use(self) -> Wording:
        """How the world asks: pretrained models hardly answer to the terse wording."""
        return self.wording or ("terse" if self.backend == "tabular" or self.model_name == TINY else "plain")

    @property
    def scores_paths(self) -> bool:
        """Whether only the secret and some samples are known of the policy, and not even which answers are
        given in the updates that are skipped.

        A hosted policy skips none: whatever it scores, every answer is really given, and the ledger is exact.
        """
        if self.backend == "tinker":
            return False
        if self.scoring is not None:
            return self.scoring == "paths"
        return self.why_not_paths is None and MAX_N[self.backend, self.env_type] < self.N

    @property
    def information(self) -> float:
        """The bits that a run has learned by when it counts as memorised: log2 N for each secret that must
        be.
        """
        return self.secrets_to_memorise * math.log2(self.N)

    @property
    def secrets_to_memorise(self) -> int:
        """How many of its secrets a run must have memorised to count as memorised."""
        return secrets_to_memorise(self.num_secrets, self.memorised_share)

    @property
    def updates_an_evaluation(self) -> int:
        """Updates of a run between two evaluations."""
        return self.evaluate_every if self.evaluate_every is not None else max(1, self.num_secrets // 4)

    @property
    def scores_all(self) -> bool:
        """Whether every answer is scored after every update."""
        return self.scoring == "all" if self.backend == "tinker" else not self.scores_paths

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds between checkpoints, None for as many as cost little. An update of a hosted model was paid
        for.
        """
        return 0.0 if self.checkpoint_every is None and self.backend == "tinker" else self.checkpoint_every

    @property
    def step_size(self) -> float:
        """The learning rate in use."""
        return self.learning_rate if self.learning_rate is not None else self.own_step_size

    @property
    def own_step_size(self) -> float:
        """The learning rate unless one is given."""
        own = ADAPTER_STEP_SIZES.get((self.adapter, self.optimiser)) if self.backend == "local" else None
        return (
            STEP_SIZES.get((self.backend, self.optimiser), STEP_SIZES[self.backend, "adam"])
            if own is None
            else own
        )


@chz.chz(typecheck=True)
class TrainConfig(ChannelConfig, LearnerConfig):
    """Reinforcement learning: the policy answers, the channel rewards."""

    algorithm: Algorithm = chz.field(
        default="reinforce",
        doc="Group-mean baseline; grpo standardises, rloo leaves one out, ppo clips the ratio; posterior trains towards what an ideal observer believes.",
    )
    baseline: Baseline = chz.field(
        default="group",
        doc="What a return is compared with: its group, or nothing (reinforce and ppo alone).",
    )
    group_size: int = chz.field(default=4, doc="Episodes that share a baseline.")
    batch_size: int = chz.field(default=1, doc="Groups an update.")
    ppo_epochs: int = chz.field(default=4, doc="Gradient steps on the same episodes (algorithm=ppo).")
    ppo_clip: float = chz.field(default=0.2, doc="The ratio is clipped to 1 +- this (algorithm=ppo).")
    posterior_epochs: int = chz.field(
        default=16, doc="Gradient steps towards the same posterior (algorithm=posterior)."
    )
    skip_ahead: bool | None = chz.field(
        default=None,
        doc="Draw the silent updates from their exact law instead of one by one, where that is exact. Default: on the transformer alone.",
    )
    max_episodes: int | None = chz.field(
        default=None,
        doc="Budget of each run. Default: 4000, or 60 N if that is more, for each of its secrets.",
    )

    @chz.validate
    def _check_learning(self) -> None:
        for key in ("group_size", "batch_size", "ppo_epochs", "posterior_epochs"):
            _at_least(key, getattr(self, key), 1)
        _positive("ppo_clip", self.ppo_clip, "0.2")
        if self.baseline == "none" and self.algorithm not in ("reinforce", "ppo"):
            raise ConfigError(
                f"baseline=none has no meaning with algorithm={self.algorithm}: use algorithm=reinforce or ppo, or leave baseline out."
            )
        if self.group_size == 1 and self.baseline == "group" and self.algorithm != "posterior":
            raise ConfigError(
                f"group_size=1 with batch_size={self.batch_size} can never carry a signal, since an episode is compared with its own group: "
                "use group_size=4, or baseline=none."
            )
        if self.max_episodes is not None and self.max_episodes < self.episodes_per_update:
            raise ConfigError(
                f"max_episodes={self.max_episodes} is less than one update of group_size * batch_size = {self.episodes_per_update} episodes: "
                f"use max_episodes={self.episodes_per_update} or more."
            )

    @chz.validate
    def _check_hosted(self) -> None:
        if self.backend != "tinker":
            return
        if self.algorithm == "posterior":
            raise ConfigError(
                "algorithm=posterior trains on every answer at once, which backend=tinker cannot: use algorithm=reinforce, or backend=local."
            )
        if self.skip_ahead:
            raise ConfigError(
                "skip_ahead=True needs the probability of every answer, which backend=tinker does not tell: leave skip_ahead out."
            )

    @property
    def why_not_paths(self) -> str | None:
        """See `LearnerConfig`: only where a reward says no more than hit or miss do the other answers not
        matter.
        """
        if self.own_reward or self.channel_name not in ("binary", "per_bit"):
            return f"reward_type={name_of(self.reward_type)}"
        hinders = {
            f"reward_noise={self.reward_noise:g}": self.reward_noise > 0,
            f"algorithm={self.algorithm}": self.algorithm == "posterior",
            f"baseline={self.baseline}": self.baseline == "none",
            f"skip_ahead={self.skip_ahead}": self.skip_ahead is False,
        }
        return next((what for what, so in hinders.items() if so), None) or super().why_not_paths

    @property
    def skips_ahead(self) -> bool:
        """Whether silent updates are to be skipped, where that is exact."""
        return self.backend == "local" if self.skip_ahead is None else self.skip_ahead

    @property
    def episodes_per_update(self) -> int:
        """Episodes of one run between two updates."""
        return self.group_size * self.batch_size

    @property
    def budget(self) -> int:
        """The most episodes of one run."""
        return (
            self.max_episodes if self.max_episodes is not None else max(4000, 60 * self.N) * self.num_secrets
        )


@chz.chz(typecheck=True)
class SFTConfig(LearnerConfig):
    """Supervised learning: the policy is shown the answer."""

    data_dir: str = chz.field(
        default="data",
        doc="Where sft_data_gen.py wrote the examples of fixed_secret. Without fixed_secret each run is shown its own.",
    )
    batch_size: int = chz.field(
        default=1,
        doc="Examples an update. All examples are the same, so a larger batch would pay for bits that one example already carries.",
    )
    max_episodes: int | None = chz.field(
        default=None,
        doc="Examples shown to each run at most; the data are repeated if they are fewer. Default: 1000 for each of its secrets.",
    )

    @chz.validate
    def _check_sft(self) -> None:
        _at_least("batch_size", self.batch_size, 1)
        _at_least("max_episodes", self.budget, self.batch_size)

    @property
    def condition(self) -> str:
        """What tables and figures call this experiment."""
        return "sft" if self.env_type == "single_step" else "sft multi_step"

    @property
    def budget(self) -> int:
        """The most examples shown to one run."""
        return self.max_episodes if self.max_episodes is not None else 1000 * self.num_secrets


Experiment = TrainConfig | SFTConfig
"""The configuration of a population of learners."""


def episodes_an_update(config: Experiment) -> int:
    """Episodes of one run between two updates."""
    return config.episodes_per_update if isinstance(config, TrainConfig) else config.batch_size


def episodes_a_block(config: Experiment) -> int:
    """Episodes in a row that are about the same secret, with order=blocks: an equal part of the budget, in
    whole groups.
    """
    group = config.group_size if isinstance(config, TrainConfig) else 1
    return max(1, config.budget // group // config.num_secrets) * group


@chz.chz(typecheck=True)
class SFTDataConfig(WorldConfig):
    """Labelled examples for supervised learning, as chat messages."""

    num_train: int = chz.field(default=1000, doc="Lines of train.jsonl.")
    num_test: int = chz.field(default=200, doc="Lines of test.jsonl.")
    data_dir: str = chz.field(default="data", doc="The folder that gets a folder for this N and secret.")
    quiet: bool = chz.field(default=False, doc="Print nothing.")

    @chz.validate
    def _check_sizes(self) -> None:
        _at_least("num_train", self.num_train, 1)
        _at_least("num_test", self.num_test, 1)


ConfigT = TypeVar("ConfigT")


def make_config(kind: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """A configuration from Python values.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
    """
    hints = get_type_hints(kind)
    accepted = {}
    for key, value in values.items():
        _known(key, value, hints)
        accepted[key] = _accept(key, value, hints[key])
    return kind(**accepted)


def parse_config(kind: type[ConfigT], argv: list[str]) -> ConfigT:
    """A configuration from key=value arguments.

    Raises:
        ConfigError: one sentence about the first argument that is not key=value, unknown or bad.
    """
    hints = get_type_hints(kind)
    given: dict[str, str] = {}
    for argument in argv:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument!r} is not of the form key=value: type for example N=64.")
        _known(key, text, hints)
        if key in given:
            raise ConfigError(f"{key} is given twice ({given[key]} and {text}): give it once.")
        given[key] = text
    try:
        return chz.Blueprint(kind).make_from_argv(argv)
    except chz.blueprint.InvalidBlueprintArg as error:
        key = next(key for key in given if f"'{key}'" in str(error))
        raise _bad_value(key, given[key], hints[key]) from None


def as_values(config: WorldConfig) -> dict[str, Any]:
    """Every key with its value, as JSON can hold it."""
    values = dict(chz.asdict(config))
    if isinstance(config, ChannelConfig) and config.reward_type is not None:
        values["reward_type"] = name_of(config.reward_type)
    return values


def describe_keys(kind: type[Any]) -> str:
    """The help text: a line for each key with its type, default and meaning."""
    return chz.Blueprint(kind).get_help()


def _known(key: str, value: Any, keys: Collection[str]) -> None:
    if key not in keys:
        raise ConfigError(f"{key}={value} is not a known key: {suggest(key, keys)}")


def _members(hint: Any) -> tuple[Any, ...]:
    """The types or literal values that a field admits, unions opened."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for part in get_args(hint) for member in _members(part))
    return (hint,)


_WANTED = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}
_SAMPLE = {int: "64", float: "0.001", bool: "True", str: "name"}


def _accept(key: str, value: Any, hint: Any) -> Any:
    """The value if the field admits it (an int also where a float is wanted), else a ConfigError."""
    if hint is Any:
        return value
    for member in _members(hint):
        if get_origin(member) is Literal:
            if value in get_args(member):
                return value
        elif type(value) is member:
            return value
        elif member is float and type(value) is int:
            return float(value)
    raise _bad_value(key, value, hint)


def _bad_value(key: str, value: Any, hint: Any) -> ConfigError:
    members = _members(hint)
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    if choices:
        return ConfigError(f"{key}={value} is not a choice: {suggest(str(value), choices)}")
    wanted = next(member for member in members if member in _WANTED)
    return ConfigError(f"{key}={value} is not {_WANTED[wanted]}: type for example {key}={_SAMPLE[wanted]}.")


def _check_memorised_at(memorised_at: float, N: int) -> None:
    if not 1 / N < memorised_at < 1:
        raise ConfigError(
            f"memorised_at={memorised_at:g} is not between 1/N = {1 / N:g} and 1: use a probability such as memorised_at=0.9."
        )


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{key}={value} is too small: use {key}={least} or more.")


def _positive(key: str, value: float, example: str) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{key}={value:g} is not a positive number: use for example {key}={example}.")
