"""The two laws hold in honest experiments, and are breached by a policy that has seen the secret and by an
observer with a wrong likelihood."""

import json

import numpy as np
import pytest
from helpers import run_loop, secrets_of, setting_of

import memory_rl
from memory_rl.analysis.laws import OBSERVER_EQUALS_ASKED, POLICY_WITHIN_OBSERVER, check_laws, until_sure
from memory_rl.information.outcomes import Outcomes
from memory_rl.policies import tabular
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.training.recompute import draw_secrets

LAWS = ("policy_within_observer", "observer_equals_asked")


def measure(*, spoil=lambda accounts: None, policy_type=TabularPolicy, **settings):
    """Metrics of a tabular experiment, whose accounts or policy may be spoilt."""
    setting = setting_of(backend="tabular", **settings)
    experiment, environment = setting.experiment, setting.environment
    forms = environment.choices(np.arange(environment.num_forms))
    policy = policy_type(
        forms,
        environment.num_choices,
        num_runs=experiment.stop.num_runs,
        num_prompts=experiment.world.num_secrets,
        learning_rate=experiment.step_size,
        seed=experiment.world.seed,
    )
    policy.secrets = draw_secrets(experiment)
    return run_loop(setting, policy, spoil).metrics


def statuses(metrics, N, stop_at=0.95) -> list[str]:
    checks = check_laws(metrics, N=N, stop_at=stop_at)
    return [checks[law]["status"] for law in LAWS]


HONEST = {
    "binary": {"N": 16},
    "a few episodes of binary": {"N": 100, "max_episodes": 4},
    "binned": {"N": 37, "reward_type": "binned_log_distance", "reward_bins": 5},
    "noisy binary": {"N": 8, "reward_noise": 0.2},
    "noisy distance": {"N": 16, "reward_type": "log_distance", "reward_noise": 0.3},
    "per bit": {"N": 11, "env_type": "multi_step"},
    "noisy bits": {"N": 11, "env_type": "multi_step", "reward_noise": 0.2},
    "noisy sum of bits": {"N": 11, "env_type": "multi_step", "credit": "episode", "reward_noise": 0.2},
    "five secrets": {"N": 8, "num_secrets": 5, "batch_size": 2},
    "three secrets, noisy bits": {
        "N": 11,
        "num_secrets": 3,
        "env_type": "multi_step",
        "reward_noise": 0.2,
        "order": "cycle",
    },
    "four secrets, measured now and then": {
        "N": 16,
        "num_secrets": 4,
        "evaluate_every": 7,
        "reward_type": "log_distance",
    },
    "the posterior of four secrets": {
        "N": 16,
        "num_secrets": 4,
        "algorithm": "posterior",
        "group_size": 1,
        "batch_size": 2,
    },
    "the posterior itself": {"N": 16, "algorithm": "posterior", "group_size": 1},
    "told of sampled answers": {"N": 16, "signal": "teacher", "told": "sampled"},
    "told of sampled bits": {"N": 11, "signal": "teacher", "told": "sampled", "env_type": "multi_step"},
    "told the likeliest answer": {"N": 16, "signal": "teacher", "told": "top_k", "teacher_top_k": 1},
    "told everything about three secrets": {"N": 16, "signal": "teacher", "num_secrets": 3, "batch_size": 2},
    "the observer of noise as teacher": {
        "N": 16,
        "signal": "teacher",
        "teacher": "observer",
        "reward_noise": 0.2,
        "divergence": "forward",
    },
    "the observer of sums of bits as teacher": {
        "N": 11,
        "signal": "teacher",
        "teacher": "observer",
        "env_type": "multi_step",
        "credit": "episode",
        "told": "sampled",
    },
    "the posterior of noisy bits": {
        "N": 16,
        "algorithm": "posterior",
        "env_type": "multi_step",
        "reward_noise": 0.2,
    },
}


@pytest.mark.parametrize("settings", HONEST.values(), ids=HONEST.keys())
@pytest.mark.parametrize("num_runs", [1, 16, 400])
def test_honest_experiments_break_no_law(tmp_path, settings, num_runs):
    settings = {"max_episodes": 120, **settings}
    for seed in range(4 if num_runs < 400 else 1):
        assert statuses(measure(num_runs=num_runs, seed=seed, **settings), settings["N"]) == [
            "holds",
            "holds",
        ]


def test_the_intervals_cover_zero_as_often_as_they_say(tmp_path):
    """The second law's interval is conservative: of 60 experiments it misses 0 in at most three."""
    missed = 0
    for seed in range(60):
        metrics = measure(N=8, num_runs=16, seed=seed, max_episodes=40, reward_noise=0.1)
        low, high = check_laws(metrics, N=8, stop_at=0.95)["observer_equals_asked"]["ci95"]
        missed += not low <= 0 <= high
    assert missed <= 3


class Peeking(TabularPolicy):
    """Moves a little towards the secret, whatever the rewards say."""

    def update(self, rollout, advantages, learner):
        super().update(rollout, advantages, learner)
        self.logits[rollout.runs, 0, self.secrets[rollout.runs, 0]] += 1.0
        self.updates[rollout.runs] += 1
        self._stale[rollout.runs] = True


@pytest.mark.parametrize("num_runs", [16, 100])
def test_a_policy_that_has_seen_the_secret_breaks_the_first_law(tmp_path, num_runs):
    metrics = measure(policy_type=Peeking, N=64, num_runs=num_runs, max_episodes=40)
    assert statuses(metrics, 64)[0] == "breached"


def test_a_leak_in_a_quarter_of_the_runs_is_enough(tmp_path):
    class PeekingSometimes(Peeking):
        def update(self, rollout, advantages, learner):
            TabularPolicy.update(self, rollout, advantages, learner)
            runs = rollout.runs[rollout.runs % 4 == 0]
            self.logits[runs, 0, self.secrets[runs, 0]] += 2.0
            self.updates[runs] += 1
            self._stale[runs] = True

    assert (
        statuses(measure(policy_type=PeekingSometimes, N=64, num_runs=64, max_episodes=12), 64)[0]
        == "breached"
    )


WRONG = {
    "noise that is not there": ({"N": 16, "reward_noise": 0.05}, 0.3),
    "less noise than there is": ({"N": 16, "reward_noise": 0.3}, 0.05),
    "bits": ({"N": 16, "env_type": "multi_step", "reward_noise": 0.2}, 0.05),
}


@pytest.mark.parametrize(("settings", "believed"), WRONG.values(), ids=WRONG.keys())
def test_an_observer_with_a_wrong_likelihood_breaks_the_second_law(tmp_path, settings, believed):
    def spoil(accounts):
        accounts._outcomes = Outcomes(2, np.array([[1 - believed, believed], [believed, 1 - believed]]))

    metrics = measure(spoil=spoil, num_runs=256, max_episodes=60, **settings)
    assert statuses(metrics, 16)[1] == "breached"


def test_laws_are_read_off_when_the_policy_is_sure_of_anything(tmp_path):
    metrics = measure(N=64, num_runs=20, reward_type="log_distance", max_episodes=400)
    public = until_sure(metrics, 0.95)
    wrong = 0
    for run in range(20):
        own, kept = metrics.filter(run=run).sort("episode"), public.filter(run=run)
        sure = own.filter(own["confidence"] >= 0.95)
        last = sure.row(0, named=True) if len(sure) else own.row(-1, named=True)
        assert kept.row(-1, named=True) == last
        assert kept["episode"].to_list() == own.filter(own["episode"] <= last["episode"])["episode"].to_list()
        wrong += last["bits_known"] < 0
    assert wrong > 0  # some were sure of a wrong answer: then this is not where a run ends


def test_a_breach_is_told_by_name(monkeypatch, tmp_path):
    class PeekingByItself(Peeking):
        secrets = secrets_of(backend="tabular", N=64)

    monkeypatch.setattr(tabular, "TabularPolicy", PeekingByItself)
    with pytest.warns(memory_rl.LawBreachWarning) as told:
        result = memory_rl.train(backend="tabular", N=64, max_episodes=40)
    assert result.summary["binary"]["checks"]["policy_within_observer"]["status"] == "breached"
    assert any(f"'{POLICY_WITHIN_OBSERVER}'" in str(warning.message) for warning in told)


def test_without_an_average_over_secrets_the_laws_are_skipped_and_say_why(tmp_path):
    result = memory_rl.train(backend="tabular", N=16, fixed_secret=3, max_episodes=40)
    for law, name in zip(LAWS, (POLICY_WITHIN_OBSERVER, OBSERVER_EQUALS_ASKED), strict=True):
        check = result.summary["binary"]["checks"][law]
        assert (check["law"], check["status"]) == (name, "skipped")
        assert "fixed_secret" in check["why"]
    assert "skipped" in json.dumps(result.summary)
