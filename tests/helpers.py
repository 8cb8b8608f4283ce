"""What several tests need: environments and their tries, plain models to compare with, and the sentence of a
command that refuses."""

from __future__ import annotations

import copy
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from memory_rl.assembly import Setting, make_meter, make_sampling, make_setting
from memory_rl.cli import main
from memory_rl.experiment import make_experiment
from memory_rl.information.entropy import BitsKnown
from memory_rl.information.questions import Listed
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import LEARNERS
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.base import first_prompt
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.runs.store import RunDirectory
from memory_rl.task import Environment, MultiStep, RewardChannel, SecretSpace, SingleStep, make_channel
from memory_rl.task.rewards import credit_rewards
from memory_rl.training.loop import train
from memory_rl.training.meter import Meter
from memory_rl.training.recompute import draw_secrets
from memory_rl.training.tables import Tables


def make_environment(kind: str, N: int, num_secrets: int = 1) -> Environment:
    space = SecretSpace(N)
    return (
        MultiStep.with_noise(space, num_secrets=num_secrets)
        if kind == "multi_step"
        else SingleStep(space, make_channel("binary", N), num_secrets)
    )


def make_trie(environment: Environment, tokenizer) -> AnswerTrie:
    return tokenise_all(
        tokenizer,
        environment.conversations(),
        environment.choices(np.arange(environment.num_forms)),
        environment.first_prompts(),
    )


def walks(trie, shape: tuple[int, ...], random) -> np.ndarray:
    """Conversations (*shape, L) that take any edge of each decision, exits among them."""
    path = np.full((*shape, trie.max_edges), NONE)
    for place in np.ndindex(*shape):
        decision, length = 0, 0
        while decision != NONE:
            ways = trie.decision_edges[np.array(decision)]
            ways = ways[ways != NONE]
            exits = trie.is_exit[ways]
            path[(*place, length)] = random.choice(ways, p=np.where(exits, 0.2, 0.8 / (~exits).sum()))
            decision, length = int(trie.edge_next[path[(*place, length)]]), length + 1
    return path


def setting_of(command: str = "train", **keys) -> Setting:
    """The setting of an experiment with these keys."""
    return make_setting(make_experiment(keys, command))


def secrets_of(command: str = "train", **keys) -> np.ndarray:
    """The secrets (R, M) of an experiment with these keys."""
    return draw_secrets(make_experiment(keys, command))


def run_loop(setting: Setting, policy, spoil=lambda accounts: None) -> Tables:
    """The tables of an experiment once its loop has run, with its meter but without a summary."""
    experiment = setting.experiment
    secrets = draw_secrets(experiment)
    tables = Tables(RunDirectory(Path.cwd()), secrets, experiment.world.seed, experiment.step_size)
    meter = make_meter(setting, secrets, [tables.take], lambda *progress: None, None)
    spoil(meter.accounts)
    train(policy, setting.learner, make_sampling(setting, policy, secrets), meter)
    return tables


def complaint(command: str, words: str, capsys) -> str:
    """The one sentence on standard error of a command that must refuse."""
    assert main([command, *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.endswith((".\n", "?\n"))
    assert not list(Path("runs").glob("*"))  # nothing was left behind
    return captured.err


MEASURED = ("metrics.parquet", "episodes.parquet", "summary.json", "film.parquet")


def snapshot(path: str | Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()
    }


def measured(path: str | Path) -> dict[str, bytes]:
    return {name: content for name, content in snapshot(path).items() if name in MEASURED}


class Stop(Exception):  # noqa: N818
    """Stands for a crash."""


@contextmanager
def stopped_at(episodes: int):
    """Has a run in this block end with an exception after so many episodes."""
    evaluate = Meter._evaluate

    def stopping(self, policy, runs, episode, *more):
        if np.max(episode) >= episodes:
            raise Stop
        return evaluate(self, policy, runs, episode, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meter, "_evaluate", stopping)
        with pytest.raises(Stop):  # it holds the block of the caller
            yield


def merged(policy: TransformerPolicy, run: int):
    """A plain model with one run's adapters added to its weights."""
    model = copy.deepcopy(policy.model)
    for name, (down, up) in policy.adapters.matrices(run).items():
        layer = model.get_submodule(name)
        layer.base.weight.data += layer.scale * up @ down
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.base)
    return model


def plain_log_prob(model, turns) -> float:
    """Teacher-forced log P of all replies of one conversation, in nats, by one ordinary causal forward
    pass."""
    tokens, scored = [], []
    for forced, reply in turns:
        tokens += forced
        scored += range(len(tokens), len(tokens) + len(reply))
        tokens += reply
    with torch.no_grad():
        log_probs = model(torch.tensor([tokens])).logits[0].double().log_softmax(dim=1)
    return sum(log_probs[place - 1, tokens[place]].item() for place in scored)


def all_log_probs(policy, runs) -> np.ndarray:
    """(R, F) of all forms, from a policy with one secret."""
    return policy.log_probs(runs, first_prompt(runs))[:, 0]


def invalid_mass(policy, runs) -> np.ndarray:
    """(R,) the mass on invalid answers, from a policy with one secret."""
    return policy.invalid(runs, first_prompt(runs))[:, 0]


def sample(policy, runs, num_episodes: int):
    """Episodes of a policy with one secret."""
    return policy.sample(runs, first_prompt(runs), num_episodes)


def demonstrate(policy, runs, forms):
    """Episodes that give these answers (R, E), of a policy with one secret."""
    return policy.demonstrate(runs, first_prompt(runs), forms)


def advantages_of(rewards: np.ndarray, algorithm: str, credit: str, **settings) -> np.ndarray:
    """What this learner moves a policy by: (R, B, G, K) to the same."""
    returns, moved = credit_rewards(rewards, credit), []
    policy = SimpleNamespace(update=lambda batch, advantages, learner: moved.append(advantages))
    runs, choices = np.arange(len(returns)), returns.reshape(len(returns), -1, returns.shape[3])
    batch = Batch(runs, first_prompt(runs), choices, choices, np.zeros_like(runs), returns=returns)
    LEARNERS[algorithm](**settings).learn(policy, batch)
    return moved[0].reshape(returns.shape)


def bits_known(log_probs: np.ndarray, secrets: np.ndarray) -> BitsKnown:
    """What each run knows about its secret.

    Args:
        log_probs: (R, N) exact log-probability of every valid answer, in nats.
        secrets: (R,) integers in [0, N).
    """
    of_secret = np.take_along_axis(log_probs, secrets[:, None], axis=1)[:, 0]
    return BitsKnown.of_secret(of_secret, np.logaddexp.reduce(log_probs, axis=1), log_probs.shape[1])


def all_questions(channel: RewardChannel, N: int) -> Listed:
    """The table of all answers and secrets."""
    every = np.arange(N)
    return Listed(channel.classes(every[:, None], every), channel.num_classes)


def likelihoods_of(channel: RewardChannel, answers, secrets) -> np.ndarray:
    """p(level | answer, S) over all levels. Shapes broadcast; the levels are the last axis, (..., L)."""
    rows = np.eye(len(channel.levels)) if channel.outcomes is None else channel.outcomes
    return rows[channel.classes(answers, secrets)]


def without_progress(errors: str) -> str:
    """What stands on standard error but lines about progress, which come every few seconds."""
    return "".join(
        line
        for line in errors.splitlines(keepends=True)
        if not re.match(r"[a-z ]+: .* (so far|left)(,|$)", line)
    )
