"""The hosted policy against the local one: the same tokens, the same log-probabilities, the same step of the
optimiser, on a service in memory."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("tinker.types", reason="the tinker SDK is not installed: pip install 'memory-rl[tinker]'")
from fake_tinker import FakeService
from helpers import all_log_probs, demonstrate, invalid_mass, sample

from memory_rl.config import LEARNERS
from memory_rl.errors import ConfigError, ModelError, NotFiniteError, ServiceError, TokensSpentError
from memory_rl.learning.imitation import Imitation
from memory_rl.learning.learners import Learner, Reinforce
from memory_rl.learning.ratios import CISPO, PPO
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.base import first_prompt
from memory_rl.policies.hosted import policy as policy_module
from memory_rl.policies.hosted.drawn import blank
from memory_rl.policies.hosted.policy import HostedBatch, hosted_loss
from memory_rl.policies.hosted.policy import make_hosted as make_tinker_policy
from memory_rl.policies.hosted.service import Service
from memory_rl.policies.hosted.settings import HostedSettings
from memory_rl.policies.teaching import OfForms

RUNS = np.arange(2)


@pytest.fixture
def make_hosted(make_policy):
    """A hosted policy, the service under it, and a local policy with the same adapters."""

    def make(kind="single_step", N=8, moved=True, num_secrets=1, **settings):
        local, host = (make_policy(kind, N, moved=moved, num_secrets=num_secrets) for _ in range(2))
        service = FakeService(host)
        defaults = {
            "num_answers": N,
            "episodes": 4,
            "epochs": 1,
            "sampled": True,
            "scores_all": False,
            "max_tokens": None,
        }
        whole = HostedSettings(
            model_name="fake",
            num_runs=2,
            rank=4,
            targets="all",
            learning_rate=1e-3,
            seed=0,
            **{**defaults, **settings},
        )
        return make_tinker_policy(Service(service, service), local.trie, whole), service, local

    return make


def with_log_probs(local, forms, prompts=None):
    """Valid episodes as if they had been sampled, for the hosted policy, and the same for the local one."""
    prompts = first_prompt(RUNS) if prompts is None else prompts
    shown = local.demonstrate(RUNS, prompts, forms)
    records = blank(forms.shape, local.trie.max_edges)
    records["path"] = shown.path
    records["log_probs"] = np.where(shown.path == NONE, 0.0, of_edges(local, shown.path, prompts))
    path = records["path"]
    return HostedBatch(RUNS, prompts, shown.choices, path, shown.updates, records=records, shown=False), shown


def of_edges(local, path, prompts=None):
    """What the local policy gives these edges (R, E, L)."""
    edges = local._edges(RUNS, first_prompt(RUNS) if prompts is None else prompts)
    return np.take_along_axis(
        np.repeat(edges, path.shape[1] // edges.shape[1], axis=1), np.maximum(path, 0), axis=2
    )


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_log_probs_are_those_of_the_local_policy(make_hosted, kind):
    hosted, _, local = make_hosted(kind, scores_all=True)
    forms = np.array([3, 6])
    seen, wanted = hosted.assess(RUNS, forms[:, None], 8), local.assess(RUNS, forms[:, None], 8)
    assert seen.of_form == pytest.approx(wanted.of_form, abs=1e-5)
    assert seen.of_valid == pytest.approx(wanted.of_valid, abs=1e-5)
    assert seen.of_best == pytest.approx(wanted.of_best, abs=1e-5)
    assert all_log_probs(hosted, RUNS) == pytest.approx(all_log_probs(local, RUNS)[:, :8], abs=1e-5)
    assert invalid_mass(hosted, RUNS) == pytest.approx(invalid_mass(local, RUNS), abs=1e-5)


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize(
    ("learner", "name"),
    [
        (Reinforce(), "importance_sampling"),
        (PPO(clip=0.02, epochs=3), "ppo"),
        (PPO(clip=0.02, clip_high=0.5, epochs=3), "ppo"),
        (CISPO(clip=1.01, epochs=3), "cispo"),
    ],
    ids=["importance_sampling", "ppo", "dapo", "cispo"],
)
def test_an_update_moves_the_weights_as_the_local_one_does(make_hosted, kind, learner, name):
    hosted, service, local = make_hosted(kind, scores_all=True, epochs=learner.epochs)
    forms = np.array([[1, 3, 6, 3], [0, 7, 2, 5]])
    rollout, shown = with_log_probs(local, forms)
    advantages = np.random.default_rng(0).normal(size=shown.choices.shape)
    hosted.update(rollout, advantages, learner)
    local.update(shown, advantages, learner)
    before = local.adapters.vectors[0].detach().numpy().copy()
    assert service.host.adapters.vectors[0].detach().numpy() == pytest.approx(before, abs=2e-5)
    hosted.assess(RUNS, forms[:, :1], 8)
    assert all_log_probs(hosted, RUNS) == pytest.approx(all_log_probs(local, RUNS)[:, :8], abs=1e-3)
    assert hosted.updates.tolist() == local.updates.tolist() == [learner.epochs] * 2
    assert {loss for loss, _, _ in service.data} == {name}


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_a_teacher_of_sampled_tokens_moves_the_weights_as_the_local_one_does(make_hosted, kind):
    hosted, service, local = make_hosted(kind, scores_all=True)
    rollout, shown = with_log_probs(local, np.array([[1, 3, 6, 3], [0, 7, 2, 5]]))
    taught = OfForms(np.random.default_rng(0).dirichlet(np.ones(8), size=(2, 1)))
    for policy, batch in ((hosted, rollout), (local, shown)):
        policy.imitate(dataclasses.replace(batch, taught=taught), Imitation(told="sampled"))
    hosted.assess(RUNS, np.array([[1], [0]]), 8)
    assert all_log_probs(hosted, RUNS) == pytest.approx(all_log_probs(local, RUNS)[:, :8], abs=1e-3)
    assert hosted.updates.tolist() == local.updates.tolist() == [1, 1]
    [(loss, _, data), *_] = service.data
    assert loss == "importance_sampling"
    gains = np.array(data[0].loss_fn_inputs["advantages"].tolist())
    path = rollout.path[:1, :1]
    edges = path[path != NONE]
    of_edges = taught.on_path(local.trie, rollout.path)[:1, :1]
    q = np.take_along_axis(of_edges, local.trie.column(path)[..., None], axis=3)[..., 0][path != NONE]
    assert gains[gains != 0] == pytest.approx(
        (np.log(q) - rollout.records["log_probs"][0, 0][: len(edges)]) / 4
    )


class OwnAdvantages(Learner):
    """Uses the service's loss."""

    def advantages(self, returns):
        return returns - 0.5


class OwnSamples(Learner):
    """No service can be asked in its way."""

    silent_if_equal = False

    def sample(self, policy, runs, prompts, num_episodes):
        return policy.sample(runs, prompts, num_episodes)


class OwnLoss(Learner):
    """No service can compute it."""

    def loss(self, log_probs, before, advantages):
        return log_probs.sum()


def test_a_loss_that_the_service_has_not_is_refused(make_hosted):
    assert hosted_loss(OwnAdvantages()) == ("importance_sampling", None)
    assert hosted_loss(LEARNERS["corpo"]()) == ("importance_sampling", None)
    thresholds = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.28}
    assert hosted_loss(PPO(clip_high=0.28)) == ("ppo", thresholds)
    thresholds = {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}
    assert hosted_loss(CISPO(clip=4.0)) == ("cispo", thresholds)
    for name in ("gspo", "dppo", "sapo", "pairs"):
        with pytest.raises(ConfigError, match="has a loss of its own, which backend=tinker cannot compute"):
            hosted_loss(LEARNERS[name]())
    with pytest.raises(ConfigError, match="samples in a way of its own, which backend=tinker cannot"):
        hosted_loss(OwnSamples())
    with pytest.raises(ConfigError, match=r"OwnLoss has a loss of its own, .* use backend=local"):
        hosted_loss(OwnLoss())


def test_supervised_learning_is_cross_entropy_on_the_reply_alone(make_hosted):
    hosted, service, local = make_hosted(scores_all=True, sampled=False, episodes=1)
    forms = np.array([[3], [6]])
    for policy in (hosted, local):
        policy.update(demonstrate(policy, RUNS, forms), np.ones((2, 1, 1)), Reinforce())
    hosted.assess(RUNS, forms[:, :1], 8)
    assert all_log_probs(hosted, RUNS) == pytest.approx(all_log_probs(local, RUNS)[:, :8], abs=1e-3)
    loss, _, [datum] = service.data[0]
    assert loss == "cross_entropy"
    weights, targets = (
        np.array(datum.loss_fn_inputs[name].tolist()) for name in ("weights", "target_tokens")
    )
    edges = local.trie.form_edges[3][local.trie.form_edges[3] != NONE]
    assert targets[weights > 0].tolist() == local.trie.edge_token[edges].tolist()
    assert weights.sum() == len(edges)


def test_each_token_carries_the_advantage_of_its_step(make_hosted):
    """multi_step at N = 8: three bits, each followed by the end of its turn, and nothing of the user's
    turns."""
    hosted, service, local = make_hosted("multi_step")
    forms = np.array([[5, 5, 2, 0], [1, 1, 1, 1]])
    rollout, _ = with_log_probs(local, forms)
    advantages = np.zeros((2, 4, 3))
    advantages[0, 0] = [0.4, -0.8, 1.2]
    hosted.update(rollout, advantages, Reinforce())
    [(_, _, data)] = service.data  # run 1 has no signal, and makes no step
    assert service.calls["optim_step"] == 1
    datum = data[0]
    gains, log_probs, targets = (
        np.array(datum.loss_fn_inputs[name].tolist()) for name in ("advantages", "logprobs", "target_tokens")
    )
    places = np.nonzero(gains)[0]
    assert gains[places] == pytest.approx(
        np.repeat([0.1, -0.2, 0.3], 2)
    )  # divided by the four episodes, as the local mean is
    edges = local.trie.form_edges[5]
    assert targets[places].tolist() == local.trie.edge_token[edges].tolist()
    assert log_probs[places] == pytest.approx(rollout.records["log_probs"][0, 0], abs=1e-6)
    assert log_probs[np.setdiff1d(np.arange(len(gains)), places)] == pytest.approx(0)
    assert datum.model_input.to_ints()[1:] == targets[:-1].tolist()
    assert datum.model_input.to_ints()[: len(local.trie.prompt)] == local.trie.prompt.tolist()


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_samples_follow_the_exact_distribution_exits_included(make_hosted, kind):
    hosted, service, local = make_hosted(kind, N=4, episodes=600)
    run = np.array([0])
    rollout = sample(hosted, run, 600)
    probabilities = np.exp(all_log_probs(local, run)[0])
    expected = np.append(probabilities, 1 - probabilities.sum()) * 600
    answers = (rollout.choices[0] * [[1]] if kind == "single_step" else rollout.choices[0] @ [[2], [1]])[:, 0]
    invalid = (rollout.choices[0] == NONE).any(axis=1)
    counts = np.append(np.bincount(answers[~invalid], minlength=4), invalid.sum())
    small = expected < 5
    seen, wanted = (np.append(values[~small], values[small].sum()) for values in (counts, expected))
    assert stats.chisquare(seen + 1e-9, wanted + 1e-9).pvalue > 1e-4
    edges = np.take_along_axis(local._edge_log_probs[0], np.maximum(rollout.path[0], 0), axis=1)
    inner = (rollout.path[0] != NONE) & ~local.trie.is_exit[rollout.path[0]]
    assert rollout.records["log_probs"][0][inner] == pytest.approx(edges[inner], abs=1e-5)
    assert ((rollout.records["exit_token"][0] != NONE) == invalid).all()
    assert service.calls["sample"] == (
        1 if kind == "single_step" else 3
    )  # one a turn and conversation so far


def test_an_exit_is_trained_as_the_token_that_was_drawn(make_hosted):
    hosted, service, local = make_hosted()
    rollout, _ = with_log_probs(local, np.array([[1, 3, 6, 3], [0, 7, 2, 5]]))
    exit_edge = np.nonzero(local.trie.is_exit)[0][0]
    rollout.path[0, 0], rollout.records["log_probs"][0, 0], rollout.records["exit_token"][0, 0] = (
        [exit_edge, NONE],
        [-3.0, 0.0],
        40,
    )
    hosted.update(rollout, np.ones((2, 4, 1)), Reinforce())
    datum = service.data[0][2][0]
    assert datum.loss_fn_inputs["target_tokens"].tolist()[-1] == 40
    assert datum.loss_fn_inputs["advantages"].tolist()[-1] == pytest.approx(0.25)
    assert datum.loss_fn_inputs["logprobs"].tolist()[-1] == pytest.approx(-3.0)


def test_valid_mass_is_estimated_from_the_samples_that_are_not_the_secret(make_hosted):
    hosted, _, local = make_hosted()
    exit_edge = np.nonzero(local.trie.is_exit)[0][0]
    drawn = hosted._drawn
    drawn._last["path"][0, :5] = local.trie.form_edges[2]  # the secret tells nothing of the others
    drawn._last["path"][0, 5:8] = local.trie.form_edges[4]
    drawn._last["path"][0, 8] = [exit_edge, NONE]
    assert np.exp(drawn.of_valid(0, np.array([2]), np.log([0.6]))) == pytest.approx(0.6 + 0.4 * 3 / 4)
    assert np.exp(drawn.of_valid(1, np.array([2]), np.log([0.6]))) == pytest.approx(1.0)  # nothing was seen


def test_all_runs_are_asked_before_any_is_waited_for(make_hosted):
    hosted, service, local = make_hosted()
    hosted.assess(RUNS, np.array([[3], [6]]), 8)
    service.events.clear()
    rollout, _ = with_log_probs(local, np.array([[1, 3, 6, 3], [0, 7, 2, 5]]))
    hosted.update(rollout, np.ones((2, 4, 1)), Reinforce())
    assert service.events == ["forward_backward", "optim_step"] * 2 + ["result"] * 4
    service.events.clear()
    hosted.assess(RUNS, np.array([[3], [6]]), 8)
    assert service.events[:4] == ["save_weights_and_get_sampling_client"] * 2 + ["result"] * 2
    assert service.events[4:8] == ["compute_logprobs"] * 2 + ["sample"] * 2


def test_what_is_measured_becomes_the_next_episodes(make_hosted):
    hosted, service, _ = make_hosted()
    hosted.assess(RUNS, np.array([[3], [6]]), 8)
    asked = service.calls["sample"]
    for _ in range(4):  # 16 samples of each run were drawn for the measurement
        sample(hosted, RUNS, 4)
    assert service.calls["sample"] == asked
    sample(hosted, RUNS, 4)
    assert service.calls["sample"] == asked + 2


def test_counts_are_what_the_service_saw(make_hosted):
    hosted, service, _ = make_hosted("multi_step")
    for _ in range(3):
        hosted.assess(RUNS, np.array([[3], [6]]), 8)
        hosted.update(sample(hosted, RUNS, 4), np.random.default_rng(0).normal(size=(2, 4, 3)), Reinforce())
    hosted.state()
    counts = hosted.spending.as_dict()
    assert {name: count for name, count in counts["requests"].items() if name != "total"} == dict(
        service.calls
    )
    assert counts["tokens"] == {**service.tokens, "total": service.tokens.total()}
    assert counts["requests"]["total"] == service.calls.total()


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize("scores_all", [False, True])
def test_no_update_costs_more_than_was_reserved_for_it(make_hosted, kind, scores_all):
    hosted, _, _ = make_hosted(kind, scores_all=scores_all)
    costs = hosted.costs
    hosted.assess(RUNS, np.array([[3], [6]]), 8)
    assert hosted.spending.spent.tokens <= costs.start.tokens
    for _ in range(5):
        before = hosted.spending.spent
        hosted.update(
            sample(hosted, RUNS, 4),
            np.random.default_rng(0).normal(size=(2, 4, hosted.trie.num_steps)),
            Reinforce(),
        )
        hosted.assess(RUNS, np.array([[3], [6]]), 8)
        assert hosted.spending.spent.tokens - before.tokens <= 2 * costs.update.tokens
        assert hosted.spending.spent.requests - before.requests <= 2 * costs.update.requests
    assert hosted.spending.spent.tokens <= costs.most(5).tokens


def test_the_hard_stop_comes_before_the_update_that_might_not_fit(make_hosted):
    hosted, service, _ = make_hosted(max_tokens=2000)
    hosted.assess(RUNS, np.array([[3], [6]]), 8)

    def learn_on():
        while True:
            hosted.update(sample(hosted, RUNS, 4), np.ones((2, 4, 1)), Reinforce())
            hosted.assess(RUNS, np.array([[3], [6]]), 8)

    with pytest.raises(TokensSpentError, match="max_tokens_total=2000"):
        learn_on()
    assert 2000 - 2 * hosted.costs.update.tokens < service.tokens.total() <= 2000


def test_a_saved_state_brings_back_weights_optimiser_and_samples(make_hosted):
    hosted, service, local = make_hosted()
    forms, advantages = (
        np.array([[1, 3, 6, 3], [0, 7, 2, 5]]),
        np.random.default_rng(0).normal(size=(2, 4, 1)),
    )
    rollout, shown = with_log_probs(local, forms)
    hosted.update(rollout, advantages, Reinforce())
    local.update(shown, advantages, Reinforce())
    hosted.assess(RUNS, np.array([[3], [6]]), 8)
    state = hosted.state()
    for vector in service.host.adapters.vectors:
        vector.data.zero_()  # as if the service had lost what is not saved
    restored = make_tinker_policy(Service(service, service), local.trie, hosted.settings)
    restored.restore(state)
    assert sample(restored, RUNS, 4).path.tolist() == sample(hosted, RUNS, 4).path.tolist()
    rollout, shown = with_log_probs(local, forms)
    restored.update(rollout, advantages, Reinforce())
    local.update(shown, advantages, Reinforce())
    assert service.host.adapters.vectors[1].detach().numpy() == pytest.approx(
        local.adapters.vectors[1].detach().numpy(), abs=5e-5
    )
    assert restored.updates.tolist() == [2, 2]
    assert service.calls["create_training_client_from_state_with_optimizer"] == 2


def test_old_states_go_once_no_checkpoint_names_them(make_hosted):
    hosted, service, local = make_hosted()
    rollout, _ = with_log_probs(local, np.array([[1, 3, 6, 3], [0, 7, 2, 5]]))
    named = []
    for _ in range(4):
        hosted.update(rollout, np.ones((2, 4, 1)), Reinforce())
        named.append(hosted.state()["clients"]["saved"][:2])
        kept = set(service.states)
        assert set(named[-1]) <= kept  # of the checkpoint that is being written
        assert len(named) < 2 or set(named[-2]) <= kept  # and of the one that counts until it is
        assert len(kept) <= 4
    hosted.state()  # nothing has moved: nothing is saved again
    assert service.calls["save_state"] == 8
    hosted.close(completed=True)
    assert not service.states


def test_a_failure_is_a_sentence_without_the_key(make_hosted, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", "tml-very-secret")
    hosted, service, _ = make_hosted()
    service.failures["sample"] = RuntimeError("adapters exhausted for tml-very-secret")
    with pytest.raises(
        ServiceError, match=r"model_name=fake \(adapters exhausted for the TINKER_API_KEY\)"
    ) as caught:
        sample(hosted, RUNS, 4)
    assert "tml-very-secret" not in str(caught.value)


def test_a_reply_without_an_end_is_told(make_hosted):
    hosted, _, _ = make_hosted()
    hosted._clients.sample_from([0])
    hosted._clients._samplers[0]._sequence = lambda said, params: type(
        "Sequence", (), {"tokens": [6], "logprobs": [-1.0]}
    )()
    with pytest.raises(ServiceError, match=r"answered \[6\] without an end"):
        sample(hosted, np.array([0]), 4)


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_the_warm_up_makes_the_answers_uniform_for_all_runs(make_hosted, kind):
    """From a base model that is moved away from uniform: all runs then begin with one policy, under 0.0145
    bits from uniform, and so over 99 % valid."""
    hosted, service, local = make_hosted(kind, warms_up=True, scores_all=True)
    service.host.adapters.vectors[0].data.copy_(local.adapters.vectors[0].data)
    before = all_log_probs(local, np.array([0]))[0, :8]
    assert -before.mean() / np.log(2) - 3 > 0.05
    seen = hosted.assess(RUNS, np.array([[3], [6]]), 8)
    log_probs = all_log_probs(hosted, RUNS)
    assert log_probs[0] == pytest.approx(log_probs[1], abs=1e-6)
    divergence = -log_probs[0].mean() / np.log(2) - 3
    assert divergence == pytest.approx(hosted.warmup["divergence"], abs=1e-5)
    assert 0 <= divergence < 0.0145
    assert (np.exp(seen.of_valid) > 0.99).all()
    assert service.calls["create_training_client_from_state"] == 2
    assert hosted.spending.spent.tokens < hosted.costs.warmup.tokens
    state = hosted.state()
    restored = make_tinker_policy(Service(service, service), local.trie, hosted.settings)
    restored.restore(state)
    sample(restored, RUNS, 4)
    assert service.calls["create_lora_training_client"] == 1  # it is not warmed up again
    restored.close(completed=True)
    assert not service.states


def test_a_warm_up_that_does_not_get_there_names_a_tolerance_that_would_do(make_hosted, monkeypatch):
    for name, value in {"WARMUP_STEPS": 10, "_WARMUP_TOLERANCE": 0.0}.items():
        monkeypatch.setattr(policy_module, name, value)
    hosted, *_ = make_hosted(warms_up=True, scores_all=True)
    with pytest.raises(ModelError, match=r"from uniform after 10 steps: add warmup_tolerance=") as refused:
        hosted._sample_from(RUNS)
    tolerance = float(str(refused.value).split("warmup_tolerance=")[1].split(" ")[0])
    hosted, *_ = make_hosted(warms_up=True, scores_all=True, warmup_tolerance=tolerance)
    hosted._sample_from(RUNS)
    assert hosted.warmup["divergence"] <= tolerance
    assert hosted.warmup["reached"] is False


def test_a_warm_up_that_may_not_fit_is_told(make_hosted):
    hosted, _, _ = make_hosted(warms_up=True, max_tokens=600)
    with pytest.raises(ServiceError, match=r"max_tokens_total=600 leaves .* use warmup=False"):
        hosted.assess(RUNS, np.array([[3], [6]]), 8)


PROMPTS = np.array([[2, 0], [1, 1]])
"""Of two runs with three secrets: what the two blocks of an update are about."""


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_log_probs_behind_each_prompt_are_those_of_the_local_policy(make_hosted, kind):
    hosted, service, local = make_hosted(kind, num_secrets=3, scores_all=True)
    forms = np.array([[3, 6, 1], [0, 0, 7]])
    seen, wanted = hosted.assess(RUNS, forms, 8), local.assess(RUNS, forms, 8)
    assert np.ptp(np.asarray(wanted.of_form)[1, :2]) > 1e-3  # the prompts are told apart
    for name in ("of_form", "of_valid", "of_best"):
        assert getattr(seen, name) == pytest.approx(getattr(wanted, name), abs=1e-5)
    assert hosted.log_probs(RUNS, PROMPTS) == pytest.approx(
        local.log_probs(RUNS, PROMPTS)[:, :, :8], abs=1e-5
    )
    assert (service.calls["compute_logprobs"], service.calls["sample"]) == (2 * 3 * 8, 0)
    few, service, _ = make_hosted(kind, num_secrets=3)
    assert few.assess(RUNS, forms, 8).of_form == pytest.approx(wanted.of_form, abs=1e-5)
    assert service.calls["compute_logprobs"] == 2 * 3


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize(
    "learner", [Reinforce(), PPO(clip=0.02, epochs=3)], ids=["importance_sampling", "ppo"]
)
def test_an_update_about_several_secrets_moves_the_weights_as_the_local_one_does(make_hosted, kind, learner):
    hosted, service, local = make_hosted(kind, num_secrets=3, blocks=2, epochs=learner.epochs)
    rollout, shown = with_log_probs(local, np.array([[1, 3, 6, 3], [0, 7, 2, 5]]), PROMPTS)
    advantages = np.random.default_rng(0).normal(size=shown.choices.shape)
    before = local.adapters.vectors[0].detach().numpy().copy()
    hosted.update(rollout, advantages, learner)
    local.update(shown, advantages, learner)
    for run in RUNS:
        apart = (
            np.abs(
                service.host.adapters.vectors[run].detach().numpy()
                - local.adapters.vectors[run].detach().numpy()
            )
            > 2e-5
        )
        # Of 19,520. Where a gradient is only rounding (1e-7, others 1e-2), so is the step that Adam makes.
        assert apart.sum() <= 2
    assert np.abs(local.adapters.vectors[0].detach().numpy() - before).max() > 5e-4
    length = local.trie.prompts.shape[1]
    for (_, _, data), asked in zip(service.data, np.repeat(PROMPTS, learner.epochs, axis=0), strict=True):
        assert [datum.model_input.to_ints()[:length] for datum in data] == local.trie.prompts[
            np.repeat(asked, 2)
        ].tolist()


def test_examples_of_several_secrets_are_shown_behind_their_prompts(make_hosted):
    hosted, service, local = make_hosted(num_secrets=3, sampled=False, episodes=2, blocks=2, scores_all=True)
    forms = np.array([[3, 6], [5, 5]])
    for policy in (hosted, local):
        policy.update(policy.demonstrate(RUNS, PROMPTS, forms), np.ones((2, 2, 1)), Reinforce())
    hosted.assess(RUNS, np.zeros((2, 3), dtype=int), 8)
    every = np.array([[0, 1, 2]] * 2)
    assert hosted.log_probs(RUNS, every) == pytest.approx(local.log_probs(RUNS, every)[:, :, :8], abs=1e-3)
    assert {loss for loss, _, _ in service.data} == {"cross_entropy"}


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_each_block_is_asked_behind_its_own_prompt(make_hosted, kind):
    """The log-probabilities that come with the samples tell which prompt they were drawn behind."""
    hosted, service, local = make_hosted(kind, num_secrets=3, blocks=2)
    rollout = hosted.sample(RUNS, PROMPTS, 6)
    assert rollout.prompts.tolist() == PROMPTS.tolist()
    inner = (rollout.path != NONE) & ~local.trie.is_exit[rollout.path]
    assert inner.any(axis=2).sum() > 8
    assert rollout.records["log_probs"][inner] == pytest.approx(
        of_edges(local, rollout.path, PROMPTS)[inner], abs=1e-5
    )
    assert (
        np.abs(
            rollout.records["log_probs"][inner] - of_edges(local, rollout.path, (PROMPTS + 1) % 3)[inner]
        ).max()
        > 1e-3
    )
    if kind == "single_step":
        assert service.calls["sample"] == 3  # both blocks of run 1 are about one secret


def test_samples_behind_each_prompt_follow_its_own_distribution(make_hosted):
    hosted, _, local = make_hosted(N=4, num_secrets=3, blocks=2, episodes=800)
    hosted.assess(RUNS, np.zeros((2, 3), dtype=int), 4)  # what it draws is given out first
    rollout = hosted.sample(RUNS, PROMPTS, 800)
    probabilities = np.exp(local.log_probs(RUNS, PROMPTS))
    for block, choices in enumerate(np.split(rollout.choices[0, :, 0], 2)):
        expected = np.append(probabilities[0, block], 1 - probabilities[0, block].sum()) * 400
        counts = np.bincount(np.where(choices == NONE, 4, choices), minlength=5)
        assert stats.chisquare(counts + 1e-9, expected * counts.sum() / expected.sum() + 1e-9).pvalue > 1e-4


def test_the_valid_mass_of_several_secrets_is_pooled_over_the_prompts(make_hosted):
    hosted, _, local = make_hosted(num_secrets=3)
    exit_edge = np.nonzero(local.trie.is_exit)[0][0]
    last = hosted._drawn._last
    last["path"][0, :5], last["account"][0, :5] = local.trie.form_edges[2], 1  # the secret of this prompt
    last["path"][0, 5:8], last["account"][0, 5:8] = local.trie.form_edges[2], 0  # but not of that one
    last["path"][0, 8] = [exit_edge, NONE]
    of_valid = np.exp(hosted._drawn.of_valid(0, np.array([4, 2, 0]), np.log([0.6, 0.2, 1.0])))
    assert of_valid == pytest.approx([0.6 + 0.4 * 3 / 4, 0.2 + 0.8 * 3 / 4, 1.0])


@pytest.mark.parametrize(("num_secrets", "each"), [(3, 6), (20, 1)])
def test_a_measurement_draws_sixteen_samples_or_one_behind_each_prompt(make_hosted, num_secrets, each):
    hosted, service, local = make_hosted(num_secrets=num_secrets)
    forms = np.zeros((2, num_secrets), dtype=int)
    seen = hosted.assess(RUNS, forms, 8)
    waiting = hosted._drawn._waiting
    parts = [waiting["path"][waiting["account"] == account] for account in range(2 * num_secrets)]
    assert [len(part) for part in parts] == [each] * 2 * num_secrets
    assert service.calls["sample"] == 2 * num_secrets
    exact = local.log_probs(RUNS, np.tile(np.arange(num_secrets), (2, 1))).reshape(2 * num_secrets, -1)
    answers = np.array([local.trie.choices(part)[:, 0] for part in parts])
    of_drawn = np.where(
        answers == NONE, -np.inf, np.take_along_axis(exact, np.maximum(answers, 0), axis=1)
    ).max(axis=1)
    assert seen.of_best.ravel() == pytest.approx(np.maximum(exact[:, 0], of_drawn), abs=1e-4)
    assert (of_drawn > exact[:, 0] + 1e-3).sum() > 3


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"scores_all": True}, {"every": 2}, {"sampled": False}],
    ids=["", "all scored", "seldom measured", "examples"],
)
def test_no_update_about_several_secrets_costs_more_than_was_reserved_for_it(make_hosted, kind, settings):
    hosted, service, _ = make_hosted(kind, num_secrets=3, blocks=2, **settings)
    costs, secrets = hosted.costs, np.array([[3, 6, 1], [0, 0, 7]])
    hosted.assess(RUNS, secrets, 8)
    assert hosted.spending.spent.tokens <= costs.start.tokens
    for update in range(4):
        before = hosted.spending.spent
        rollout = (
            hosted.demonstrate(RUNS, PROMPTS, secrets[:, :2].repeat(2, axis=1))
            if settings.get("sampled") is False
            else hosted.sample(RUNS, PROMPTS, 4)
        )
        hosted.update(
            rollout, np.random.default_rng(0).normal(size=(2, 4, hosted.trie.num_steps)), Reinforce()
        )
        if (update + 1) % settings.get("every", 1) == 0:
            hosted.assess(RUNS, secrets, 8)
        assert hosted.spending.spent.tokens - before.tokens <= 2 * costs.update.tokens
        assert hosted.spending.spent.requests - before.requests <= 2 * costs.update.requests
    assert hosted.spending.spent.tokens <= costs.most(4).tokens
    assert costs.measurements(4) == (3 if "every" in settings else 4)
    counts = hosted.spending.as_dict()
    assert {name: count for name, count in counts["requests"].items() if name != "total"} == dict(
        service.calls
    )
    assert counts["tokens"] == {**service.tokens, "total": service.tokens.total()}


def test_samples_of_several_secrets_are_kept_by_a_saved_state(make_hosted):
    hosted, service, local = make_hosted(num_secrets=3, blocks=2)
    hosted.assess(RUNS, np.array([[3, 6, 1], [0, 0, 7]]), 8)
    restored = make_tinker_policy(Service(service, service), local.trie, hosted.settings)
    restored.restore(hosted.state())
    asked = service.calls["sample"]
    assert restored.sample(RUNS, PROMPTS, 4).path.tolist() == hosted.sample(RUNS, PROMPTS, 4).path.tolist()
    assert service.calls["sample"] == asked
    np.testing.assert_array_equal(restored._drawn._last["account"], hosted._drawn._last["account"])


def test_the_warm_up_asks_behind_all_prompts(make_hosted):
    hosted, service, local = make_hosted(num_secrets=3, warms_up=True, scores_all=True)
    service.host.adapters.vectors[0].data.copy_(local.adapters.vectors[0].data)
    seen = hosted.assess(RUNS, np.zeros((2, 3), dtype=int), 8)
    assert (np.exp(seen.of_valid) > 0.95).all()
    begun = {
        tuple(datum.model_input.to_ints()[: local.trie.prompts.shape[1]])
        for _, _, data in service.data
        for datum in data
    }
    assert begun == set(map(tuple, local.trie.prompts.tolist()))


def test_a_loss_or_a_probability_that_is_not_finite_is_a_divergence(make_hosted, monkeypatch):
    hosted, service, local = make_hosted()
    batch, _ = with_log_probs(local, np.array([[1, 2, 3, 4]] * 2))
    answers = {"forward_backward": SimpleNamespace(metrics={"loss:sum": float("nan"), "tokens:max": 3.0})}
    ask = service.ask
    monkeypatch.setattr(service, "ask", lambda name, give: ask(name, answers.get(name, give)))
    with pytest.raises(NotFiniteError, match="loss is not finite, of run 0 at update 1"):
        hosted.update(batch, np.ones((2, 4, 1)), Learner())
    answers["compute_logprobs"] = [float("nan")] * 200
    with pytest.raises(NotFiniteError, match="probabilities are not finite, of run 0 at update 1"):
        hosted.assess(RUNS, np.array([[3], [6]]), 8)
