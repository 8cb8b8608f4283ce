"""Agents of plain numpy under the dosimeter's wrapper: what they know against their own probabilities, what
their episodes told against a brute-force observer, and a learner against our engine."""

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="Gymnasium is not installed: pip install 'memory-rl[gymnasium]'")

import gymnasium
from helpers import complaint, secrets_of

import memory_rl
from memory_rl.analysis.survival import log_rank, pool
from memory_rl.dosimeter.gymnasium import DosimeterWrapper
from memory_rl.errors import ConfigError, DamageWarning, RunDirectoryError

N = 8


class Softmax:
    """REINFORCE with a group's mean as its baseline, one logit an answer, Adam as everywhere."""

    def __init__(self, seed, rate=0.3):
        self.logits, self.random, self.rate = np.zeros(N), np.random.default_rng(seed), rate
        self.first, self.second, self.steps = np.zeros(N), np.zeros(N), 0

    @property
    def probabilities(self):
        weights = np.exp(self.logits - self.logits.max())
        return weights / weights.sum()

    def answer(self):
        return int(self.random.choice(N, p=self.probabilities))

    def learn(self, answers, rewards):
        advantages = np.array(rewards) - np.mean(rewards)
        if not advantages.any():
            return
        gradient = np.zeros(N)
        for answer, advantage in zip(answers, advantages, strict=True):
            gradient += advantage * (np.eye(N)[answer] - self.probabilities) / len(answers)
        self.steps += 1
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient**2 - self.second)
        corrected = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        self.logits += self.rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)


def play(env, agent, groups, seed):
    env.reset(seed=seed)
    for _ in range(groups):
        answers, rewards = [], []
        for _ in range(4):
            env.reset()
            answers.append(agent.answer())
            rewards.append(env.step(answers[-1])[1])
        agent.learn(answers, rewards)
    env.close()
    return env.result


def test_what_an_agent_knows_and_was_told_is_recorded():
    env = gymnasium.make("memory_rl/SecretInteger-v0", N=N, reward_type="log_distance")
    agent, known = Softmax(0), []

    def probabilities():
        known.append(math.log2(N) + math.log2(agent.probabilities[S]))
        return agent.probabilities

    S = int(secrets_of(N=N, num_runs=1, seed=5)[0, 0])
    env = DosimeterWrapper(env, "agent", probabilities=probabilities, evaluate_every=4, figures=False)
    result = play(env, agent, 20, seed=5)
    assert result.config["seed"] == 5
    assert result.metrics["secret"].unique().to_list() == [S]
    assert result.metrics["bits_known"].to_list() == pytest.approx(known)
    assert result.metrics["episode"].to_list() == [*range(0, 81, 4)]
    possible, told = set(range(N)), []
    for answer, reward in result.episodes.select("answer", "reward").rows():
        level = {one: max(0.0, 1 - math.log2(1 + abs(answer - one)) / math.log2(N)) for one in range(N)}
        assert reward == pytest.approx(level[S])
        possible = {one for one in possible if abs(level[one] - reward) < 1e-9}
        told.append(math.log2(N / len(possible)))
    assert result.ledger["observer_bits"].to_list() == pytest.approx(told)
    assert result.metrics["observer_bits"].to_list() == pytest.approx([0.0, *told[3::4]])
    checks = result.summary["log_distance"]["checks"]
    assert [law["status"] for law in checks.values()] == ["holds", "holds"]
    assert memory_rl.report(runs="agent", quiet=True).is_file()


def test_a_learner_in_numpy_memorises_as_our_own_does():
    keys = {"backend": "tabular", "learning_rate": 0.3, "stop_at": 0.6}
    own = memory_rl.train(N=N, num_runs=64, max_episodes=400, **keys, quiet=True, figures=False)
    times = []
    for seed in range(16):
        env, agent = gymnasium.make("memory_rl/SecretInteger-v0", N=N), Softmax(seed)
        env = DosimeterWrapper(
            env,
            f"agent{seed}",
            probabilities=lambda agent=agent: agent.probabilities,
            evaluate_every=4,
            figures=False,
        )
        times.append(play(env, agent, 40, seed).cell.times)
    assert log_rank(own.cell.times, pool(times)) > 0.01


def test_an_agent_without_probabilities_has_a_ledger_and_every_reader_says_so(capsys):
    env = gymnasium.make("memory_rl/SecretInteger-v0", N=N, reward_type="log_distance")
    result = play(DosimeterWrapper(env, "agent"), Softmax(0), 20, seed=5)
    assert result.metrics["bits_known"].null_count() == len(result.metrics) == 2
    assert result.outcome is memory_rl.Outcome.UNMEASURED
    assert result.metrics["observer_bits"][-1] == result.ledger["observer_bits"][-1] > 0
    said = (
        "What the agent knows was not measured, since it gave no probabilities; what its 80 episodes told is "
        "3 of 3 bits."
    )
    assert said in repr(memory_rl.load("agent"))
    laws = result.summary["log_distance"]["checks"]
    assert laws["policy_within_observer"]["why"] == "what the policy knows was not measured"
    assert laws["observer_equals_asked"]["status"] == "holds"
    why = "agent holds no bits known, since its agent gave no probabilities: read what its episodes told"
    with pytest.raises(RunDirectoryError, match=why):
        result.plot()
    with pytest.raises(RunDirectoryError, match=why):
        memory_rl.report(runs="agent", quiet=True)
    assert why in complaint("report", "runs=agent", capsys)
    memory_rl.train(N=N, backend="tabular", num_runs=2, log_path="ours", quiet=True, figures=False)
    with pytest.warns(DamageWarning, match="^agent is without bits known and left out: the page says why"):
        page = memory_rl.report(runs="agent,ours", quiet=True)
    assert why.replace("'", "&#39;") in page.read_text()
    with pytest.raises(
        RunDirectoryError, match="agent is left out, since it is without bits known: agent holds no"
    ):
        memory_rl.compare(["agent", "ours"])
    assert memory_rl.list_runs("agent")["memorised"].to_list() == [None]


def test_bits_one_by_one_and_an_episode_that_is_left():
    """Its other turns are forfeited, and tell nothing; what was told before counts."""
    env = DosimeterWrapper(gymnasium.make("memory_rl/SecretBits-v0", N=N), "agent", figures=False)
    env.reset(seed=3)
    S = int(secrets_of(N=N, num_runs=1, seed=3, env_type="multi_step")[0, 0])
    reward = env.step(1)[1]
    env.reset()
    for bit in (0, 1, 0):
        env.step(bit)
    env.close()
    assert reward == float(S >> 2 == 1)
    answers = env.result.episodes["answer"].to_list()
    assert answers == [1, None, None, 0, 1, 0]
    assert env.result.ledger["observer_bits"].to_list() == pytest.approx([1.0, 3.0])
    assert env.result.episodes["reward"].to_list()[3:] == [
        float(bit == S >> place & 1) for bit, place in zip((0, 1, 0), (2, 1, 0), strict=True)
    ]


@pytest.mark.parametrize("given", ["secret=", "options", "nothing"])
def test_the_secret_of_a_recording_can_be_found_again(given):
    keys = {"secret": 6} if given == "secret=" else {}
    env = DosimeterWrapper(gymnasium.make("memory_rl/SecretInteger-v0", N=N, **keys), "agent", figures=False)
    env.reset(options={"secret": 6} if given == "options" else None)
    env.step(2)
    env.close()
    config, S = env.result.config, env.unwrapped.secret
    assert config["fixed_secret"] == (None if given == "nothing" else 6)
    assert env.result.metrics["secret"].unique().to_list() == [S]
    if given == "nothing":
        assert secrets_of(N=N, num_runs=1, seed=config["seed"])[0, 0] == S


def test_what_cannot_be_recorded_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="holds no secret: use memory_rl/SecretInteger-v0 or"):
        DosimeterWrapper(gymnasium.make("CartPole-v1"))
    secret = gymnasium.make("memory_rl/SecretInteger-v0", N=N)
    with pytest.raises(ConfigError, match="learning_rate=1 is up to the trainer that is recorded"):
        DosimeterWrapper(secret, learning_rate=1)
    assert not Path("runs").exists()
    env = DosimeterWrapper(secret, "agent", figures=False)
    env.reset(seed=1)
    env.step(0)
    with pytest.raises(
        ConfigError, match=r"seed=None and options={'secret': .* change the secret that is rec"
    ):
        env.reset(options={"secret": (env.unwrapped.secret + 1) % N})
    env.close()
    assert len(env.result.episodes) == 1  # what was recorded before is kept
    with pytest.raises(RunDirectoryError, match=r"already holds a run .*, which is never overwritten"):
        DosimeterWrapper(secret, "agent")
