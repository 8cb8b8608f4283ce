"""An experiment as a whole: its parts, what follows from several of them, and what makes two the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memory_rl.catalogue import KEEP, OF_ONE_RUN, PARTS, experiment_keys, settings_of
from memory_rl.config import (
    LEARNERS,
    REWARD_TYPES,
    Command,
    with_threshold,
)
from memory_rl.errors import ConfigError, check_name
from memory_rl.key_files import with_file
from memory_rl.keys import accept_some, fill, name_of, read, split_words, unmet
from memory_rl.limits import MAX_ANSWERS_KEPT, MAX_N, MAX_N_OF_FILM, MAX_N_OF_PATHS, MAX_STEPS
from memory_rl.parts import Parts


def make_experiment(values: Mapping[str, Any], command: Command = "train") -> Experiment:
    """An experiment from Python values.

    Args:
        values: by key.
        command: "sft" for supervised learning: the signal is the answer itself.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
    """
    return _build(_spelled_out(values), command, typed=True)


def parse_experiment(words: Iterable[str], command: Command = "train") -> Experiment:
    """An experiment from key=value arguments."""
    return _build(split_words(words), command, typed=False)


def command_line(experiment: Experiment) -> str | None:
    """The command that runs it again, with the keys that are not at their defaults, quoted for a shell.

    None where a reward or a learner is an object in Python, which no command can name.
    """
    given = (experiment.signal.reward_type, experiment.updates.algorithm)
    if not all(isinstance(one, str | None) for one in given):
        return None
    keys, supervised = experiment_keys(), experiment.command == "sft"
    words = [
        f"{word}={value}"
        for word, value in experiment.flat().items()
        if word not in OF_ONE_RUN
        and (word == "N" or value != keys[word].default)
        and not (supervised and word == "signal")
    ]
    return shlex.join(["memory-rl", "sft-train" if supervised else "train", *words])


def meaningful(given: Mapping[str, Any], command: Command = "train") -> dict[str, Any]:
    """Those of the keys that are known and have a meaning together with the others."""
    keys, given = experiment_keys(), _with_signal(given, command)
    values = accept_some(keys, given)
    return {
        word: value for word, value in given.items() if word in keys and unmet(keys, word, values) is None
    }


def old_experiment(manifest: Mapping[str, Any]) -> Experiment:
    """The experiment of a manifest, wherever it was kept; version 0.1 also wrote keys without a meaning."""
    command: Command = "sft" if manifest["kind"] == "sft" else "train"
    config = {word: value for word, value in manifest["config"].items() if word not in KEEP}
    return make_experiment(meaningful(config, command), command)


def _with_signal(given: Mapping[str, Any], command: Command) -> dict[str, Any]:
    if command == "train":
        return dict(given)
    if given.get("signal", "example") != "example":
        raise ConfigError(
            f"signal={given['signal']} is not supervised learning: use train, or leave signal out."
        )
    return {"signal": "example", **given}


def _spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with a built-in learner's name and settings in place of its class or object."""
    given = values.get("algorithm")
    kind = given if isinstance(given, type) else type(given)
    name = next((name for name, known in LEARNERS.items() if known is kind), None)
    if name is None:
        return dict(values)
    settings = (
        {} if kind is given else {word: getattr(given, one.field) for word, one in settings_of(kind).items()}
    )
    twice = sorted(settings.keys() & values.keys())
    if twice:
        raise ConfigError(
            f"{twice[0]} is given twice, in algorithm={name_of(given)} too: leave one of them out."
        )
    return {**values, **settings, "algorithm": name}


def _build(given: Mapping[str, Any], command: Command, *, typed: bool) -> Experiment:
    keys = experiment_keys()
    given = with_file(given, keys, _with_signal({}, command))
    values = with_threshold(read(keys, _with_signal(given, command), typed=typed))
    settings = {
        one.field: values[word] for word, one in keys.items() if one.part == "settings" and word in values
    }
    return Experiment(**{part: fill(kind, values) for part, kind in PARTS.items()}, settings=settings)


def _has_file(given: Any) -> bool:
    """Whether a reward or a learner is a built-in one, or one of a file."""
    return given is None or (isinstance(given, str) and (":" not in given or ".py:" in given))


@dataclass(frozen=True, kw_only=True)
class Experiment(Parts):
    """A population of learners in a world; checked as far as is possible without models when it is made."""

    def __post_init__(self) -> None:
        self.stop.check(self.world.N)
        check_name("algorithm", self.updates.algorithm, LEARNERS)
        self._check_learner()
        if not self.own_learner:
            self.check_sizes()
        self._check_updates()
        self._check_teacher()

    def _check_learner(self) -> None:
        """What a built-in learner does must go with where the policy lives, and with what a loss adds."""
        if self.signal.shows_answer or self.own_learner:
            return
        kind, name = type(self.learner), f"algorithm={self.updates.algorithm}"
        if kind.not_hosted and self.policy.backend == "tinker":
            raise ConfigError(
                f"{name} {kind.not_hosted}, which backend=tinker cannot: use algorithm=reinforce, or "
                "backend=local."
            )
        if self.updates.penalised and not kind.follows_loss:
            raise ConfigError(
                f"{self._added} has no meaning beside {name}, which follows no loss: "
                f"leave {self._added.partition('=')[0]} out."
            )

    @property
    def _added(self) -> str:
        """The first key that adds something to the loss, with its value; only if one does."""
        updates = self.updates
        if updates.entropy_bonus:
            return f"entropy_bonus={updates.entropy_bonus:g}"
        return f"kl_to_base={updates.kl_to_base:g}"

    def check_sizes(self) -> None:
        """N, runs and secrets must fit what the learner needs.

        A learner of the user's own is asked only before a run: what it left behind is read without its file.
        """
        self._check_size()
        self._check_memory()

    def _check_size(self) -> None:
        backend, N, scoring = self.policy.backend, self.world.N, self.policy.scoring
        reason = self.why_not_paths
        if scoring == "paths" and self.scores_paths and reason:
            raise ConfigError(f"scoring=paths does not go with {reason}: leave scoring out.")
        limit = MAX_N_OF_PATHS if self.scores_paths and reason is None else self._largest_table
        if limit < N:
            asked_all = scoring == "all" and backend == "local" and reason is None
            because, instead = ("scoring=all", ", or leave scoring out") if asked_all else (reason, "")
            more = "" if backend != "local" or because is None else f" and {because}"
            raise ConfigError(
                f"N={N} is too large for backend={backend} with env_type={self.world.env_type}{more}: "
                f"use N={limit} or less{instead}."
            )

    def _check_memory(self) -> None:
        """What is kept of each run and secret: a number for each answer, where all are scored or observed."""
        N, secrets, runs = self.world.N, self.world.num_secrets, self.stop.num_runs
        needed = not self.scores_paths or self.learner.wants_beliefs
        most = MAX_ANSWERS_KEPT // (N if needed or (self.stop.ledger and not self.only_hits) else 1)
        more = "" if needed else ", or ledger=False"
        if runs > most:
            raise ConfigError(
                f"num_runs={runs} is too large for N={N}, since an observer of each run keeps a number for "
                f"every answer: use num_runs={most} or less{more}."
            )
        if runs * secrets > most:
            raise ConfigError(
                f"num_secrets={secrets} is too large for num_runs={runs} and N={N}: "
                f"use num_secrets={most // runs} or less{more}."
            )

    def _check_updates(self) -> None:
        updates, one = self.updates, self.episodes_an_update
        built_in = not (self.signal.shows_answer or self.own_learner)
        if built_in and updates.group_size == 1 and self.learner.silent_if_equal:
            raise ConfigError(
                f"group_size=1 with batch_size={updates.batch_size} can never carry a signal, "
                "since an episode is compared with its own group: use group_size=4, or baseline=none."
            )
        if built_in and one < self.learner.fewest_episodes:
            raise ConfigError(
                f"algorithm={updates.algorithm} compares the episodes of an update, and group_size=1 with "
                "batch_size=1 has one: use group_size=4."
            )
        product = "batch_size" if self.signal.shows_answer else "group_size * batch_size"
        runs, steps = self.stop.num_runs, (self.world.N - 1).bit_length() if self.world.multi_step else 1
        most = MAX_STEPS // (runs * steps)
        if one > most:
            raise ConfigError(
                f"{product} = {one} is too large for num_runs={runs}, since an update of all runs would not "
                f"fit into memory: use {product} = {most} or less."
            )
        if self.budget < one:
            raise ConfigError(
                f"max_episodes={self.budget} is less than one update of {product} = {one} episodes: use "
                f"max_episodes={one} or more."
            )

    def _check_teacher(self) -> None:
        signal, one, runs, N = self.signal, self.episodes_an_update, self.stop.num_runs, self.world.N
        most = max(1, MAX_ANSWERS_KEPT // (runs * N))
        if (
            signal.teaches
            and self.policy.backend == "tinker"
            and (signal.told != "sampled" or signal.taught_by)
        ):
            raise ConfigError(
                f"told={signal.told} with teacher={signal.teacher} does not go with backend=tinker: use "
                "told=sampled with teacher=secret or teacher=observer, or backend=local."
            )
        if signal.teaches and one > most and not self.scores_paths:
            raise ConfigError(
                f"group_size * batch_size = {one} is too large for num_runs={runs} and "
                f"N={N} with signal=teacher: use group_size * batch_size = {most} or less."
            )
        groups = self.updates.batch_size
        if signal.observed and self.world.num_secrets > 1 and groups > most:
            raise ConfigError(
                f"batch_size={groups} is too large for num_runs={runs} and N={N} with teacher=observer, "
                f"which has a belief about each group: use batch_size={most} or less."
            )

    @property
    def _largest_table(self) -> int:
        return MAX_N[self.policy.backend][self.world.multi_step]

    @property
    def _wants_paths(self) -> bool:
        """Asked for, or because N is too large for anything else, or because it is several times faster."""
        scoring, N = self.policy.scoring, self.world.N
        if scoring is not None or self._largest_table < N:
            return scoring != "all"
        faster = self.policy.backend == "local" and N > MAX_N_OF_FILM and not self._may_skip
        return faster and self.why_not_paths is None

    @property
    def scores_paths(self) -> bool:
        """Whether only the secret and some samples are scored, and the answers of skipped updates unknown.

        A hosted policy skips none: whatever it scores, every answer is really given, and the ledger is exact.
        """
        return self.policy.backend != "tinker" and self._wants_paths

    @property
    def scores_all(self) -> bool:
        """Whether every answer is scored after every update."""
        return self.policy.scoring == "all" if self.policy.backend == "tinker" else not self._wants_paths

    @property
    def why_not_paths(self) -> str | None:
        """What keeps the experiment from scoring only some answers; None if nothing does."""
        signal = self.signal
        if self.policy.backend == "tabular":
            return "backend=tabular"
        if signal.taught_by:
            return f"teacher={signal.taught_by}"
        if signal.shows_answer:
            return None
        return None if self.learner.samples_suffice else f"algorithm={name_of(self.updates.algorithm)}"

    @property
    def only_hits(self) -> bool:
        """Whether only some answers are scored, and nothing of an answer matters but whether it is S.

        Then episodes without a signal are skipped, and their answers stay unknown.
        """
        one_answer = not self.world.multi_step and self.world.num_secrets == 1
        return self.scores_paths and one_answer and (self.signal.shows_answer or self._skips_misses)

    @property
    def _skips_misses(self) -> bool:
        """Whether the reward only says hit or miss, and groups of equal rewards teach nothing."""
        signal = self.signal
        hits = (
            not signal.own_reward and signal.channel_name(self.world) == "binary" and not signal.reward_noise
        )
        return hits and self.silent_if_equal and self.updates.skip_ahead is not False

    @property
    def why_not_skip(self) -> str | None:
        """Why silent updates cannot be skipped exactly, or None if they can."""
        if self.world.num_secrets > 1:
            return "the next group may be about another secret"
        if self.world.multi_step:
            return "in multi_step nearly every group carries a signal"
        if self.signal.shows_answer or not self.silent_if_equal:
            return "a group of equal rewards carries a signal, too"
        return None

    @property
    def skips_ahead(self) -> bool:
        """Whether silent updates are skipped."""
        return self._may_skip and (self.only_hits or not self.scores_paths)

    @property
    def _may_skip(self) -> bool:
        wanted = self.updates.skip_ahead
        wanted = self.policy.backend == "local" if wanted is None else wanted
        return wanted and self.why_not_skip is None

    def flat(self) -> dict[str, Any]:
        """Every key that has a meaning here, with its value in a form that JSON can hold."""
        keys = experiment_keys()
        values = {
            word: self.settings.get(one.field, one.default)
            if one.part == "settings"
            else getattr(getattr(self, one.part), one.field)
            for word, one in keys.items()
        }
        for word in ("reward_type", "algorithm"):
            values[word] = None if values[word] is None else name_of(values[word])
        return {word: value for word, value in values.items() if unmet(keys, word, values) is None}

    def resolved(self) -> dict[str, Any]:
        """All keys that determine what is measured, with every default worked out.

        Two experiments measure the same if these are equal, and so are the files that they name (inputs.py).
        """
        worked_out = {
            "wording": self.wording,
            "reward_type": name_of(self.signal.reward_type or REWARD_TYPES[0]),
            "learning_rate": self.step_size,
            "max_episodes": self.budget,
            "evaluate_every": self.updates_an_evaluation,
            "scoring": "all" if self.scores_all else "paths",
            "skip_ahead": self.skips_ahead,
        }
        return {word: worked_out.get(word, value) for word, value in self.flat().items() if word not in KEEP}
