"""The dosimeter in the Tinker cookbook's stock training loop, on a service in memory whose probabilities are
known."""

import asyncio
import math
import zlib

import numpy as np
import pytest

pytest.importorskip(
    "tinker_cookbook", reason="the Tinker cookbook is not installed: pip install 'memory-rl[tinker-cookbook]'"
)
import tinker
from byte_tokenizer import make_tokenizer
from cookbook_task import GROUP, GROUPS, BatchesBuilder, Subtractions
from fake_cookbook import CategoricalModel, FakeCookbookService, Future
from tinker_cookbook import renderers, tokenizer_utils
from tinker_cookbook.rl import rollouts, train, types

import memory_rl
from memory_rl.dosimeter.recorder import RecordingWarning
from memory_rl.dosimeter.tinker_cookbook import CookbookDosimeter
from memory_rl.errors import ConfigError, ModelError, RunDirectoryError, ServiceError

pytestmark = pytest.mark.integrations

TOKENIZER = make_tokenizer()
tokenizer_utils.register_tokenizer("bytes", make_tokenizer)
N, SECRETS = 16, 3


def make_config(**more):
    given = {
        "learning_rate": 3.0,
        "dataset_builder": BatchesBuilder(),
        "model_name": "bytes",
        "recipe_name": "tests",
        "renderer_name": "llama3",
        "max_tokens": 4,
        "log_path": "theirs",
        "eval_every": 1,
        "save_every": 0,
        "num_groups_to_log": 0,
    }
    return train.Config(**{**given, **more})


def make_dosimeter(**keys):
    return CookbookDosimeter(
        "dose", figures=False, **{"N": N, "num_secrets": SECRETS, "reward_type": "log_distance", **keys}
    )


@pytest.fixture
def service(monkeypatch):
    """Answers with a number below N, or with nothing valid."""
    asked = [f"number {which} " for which in range(SECRETS)]
    one = FakeCookbookService(CategoricalModel(TOKENIZER, asked, [*map(str, range(N)), "?", "03"]))
    monkeypatch.setattr(tinker, "ServiceClient", one)
    return one


def learn(dosimeter, share=0.5, **more):
    config = dosimeter.join(make_config(**more), share=share)

    async def all_of_it():
        await train.main(config)
        return await dosimeter.finish()

    return asyncio.run(all_of_it())


def true_bits(logits, secrets):
    """log2 N + log2 P(S), summed over the secrets."""
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float((np.log2(N) + log_probs[np.arange(SECRETS), secrets] / math.log(2)).sum())


@pytest.mark.parametrize("streams", [False, True], ids=["all at once", "stream"])
def test_bits_known_are_the_true_ones_and_the_directory_is_an_ordinary_one(service, streams):
    stream = train.StreamMinibatchConfig(groups_per_batch=GROUPS, num_minibatches=2) if streams else None
    dosimeter = make_dosimeter()
    result = learn(dosimeter, stream_minibatch_config=stream)
    metrics = memory_rl.load("dose").metrics
    assert metrics["update"].to_list() == [*range(7)]  # three batches of theirs and as many groups of ours
    expected = [true_bits(logits, dosimeter.secrets) for logits in service.snapshots[:7]]
    assert metrics["bits_known"].to_list() == pytest.approx(expected, abs=1e-9)
    assert max(expected) - min(expected) > 0.5  # it moved
    valid = [
        np.log2(np.exp(logits)[:, :N].sum(axis=1) / np.exp(logits).sum(axis=1)).sum()
        for logits in service.snapshots[:7]
    ]
    assert metrics["format_bits"].to_list() == pytest.approx(valid, abs=1e-9)
    check_episodes(result, service, dosimeter.secrets)
    checks = result.summary["log_distance"]["checks"]
    assert [law["status"] for law in checks.values()] == ["holds", "holds"]
    np.testing.assert_allclose(
        result.ledger.group_by("run").last()["observer_bits"], metrics["observer_bits"][-1], atol=1e-9
    )
    trainer = result.manifest["trainer"]
    assert (trainer["library"], trainer["name"]) == ("tinker-cookbook", "rl.train")
    assert result.config["learning_rate"] == 3.0
    assert trainer["settings"]["loss_fn"] == "importance_sampling"
    assert trainer["settings"]["dataset_builder"] == {
        "builder": "BatchesBuilder",
        "n_batches": 3,
        "group_size": GROUP,
    }
    assert memory_rl.report(runs="dose", quiet=True).is_file()


def check_episodes(result, service, secrets):
    """The answers are those that were sampled, and the rewards worked out here."""
    expected = []
    for which, said in service.sampled:
        if which is not None:
            answer = int(said) if said in map(str, range(N)) else None
            near = 0.0 if answer is None else 1 - math.log2(1 + abs(answer - secrets[which])) / math.log2(N)
            expected.append((which, answer, max(0.0, near)))
    found = result.episodes.select("prompt", "answer", "reward").rows()
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])
    assert len(found) * 2 == len(service.sampled)
    groups = result.episodes["reward"].to_numpy().reshape(6, 2, GROUP)
    silent = (groups == groups[:, :, :1]).all(axis=2).mean(axis=1)
    assert result.metrics["zero_advantage_fraction"].to_list() == [None, *silent]
    assert 0 < silent.mean() < 1
    assert result.episodes["update"].to_list() == [update for update in range(6) for _ in range(2 * GROUP)]


def test_secrets_that_alone_are_scored_are_asked_alone(service):
    """Where not every answer is scored, format bits and confidence are unknown, and the laws are judged."""
    dosimeter = make_dosimeter(scoring="paths")
    result = learn(dosimeter, eval_every=4)
    assert result.metrics["update"].to_list() == [0, 4, 6]
    expected = [true_bits(service.snapshots[update], dosimeter.secrets) for update in (0, 4, 6)]
    assert result.metrics["bits_known"].to_list() == pytest.approx(expected, abs=1e-9)
    for name in ("content_bits", "format_bits", "confidence"):
        assert result.metrics[name].null_count() == 3
    assert len(service.asked) == 3 * SECRETS
    assert [law["status"] for law in result.summary["log_distance"]["checks"].values()] == ["holds", "holds"]


class BytewiseModel:
    """Each byte depends on all before it, in a way that knows nothing of questions and replies."""

    def log_probs(self, tokens):
        odds = np.random.default_rng(zlib.crc32(np.array(tokens).tobytes())).normal(size=len(TOKENIZER))
        return odds - np.log(np.exp(odds).sum())

    def compute_logprobs(self, prompt):
        tokens = prompt.to_ints()
        return Future(
            [None, *(float(self.log_probs(tokens[:at])[tokens[at]]) for at in range(1, len(tokens)))]
        )

    def of_replies(self, *turns):
        """Log P of the replies of a conversation in the format of Llama 3, written out by hand."""
        tokens, total = TOKENIZER.encode("<|begin_of_text|>", add_special_tokens=False), 0.0
        for asked, reply in turns:
            head = "<|start_header_id|>{}<|end_header_id|>\n\n"
            said = f"{head.format('user')}{asked}<|eot_id|>{head.format('assistant')}"
            tokens += TOKENIZER.encode(said, add_special_tokens=False)
            for token in TOKENIZER.encode(f"{reply}<|eot_id|>", add_special_tokens=False):
                total += self.log_probs(tokens)[token]
                tokens.append(token)
        return total


LONG = (
    "I am thinking of a secret integer number {} from 0 to 15, written with 4 binary digits. "
    "Reply with one digit at a time, 0 or 1, alone. Digit 1?"
)
CONVERSATIONS = {
    "single_step": ({"wording": "terse"}, lambda which, S: [("Secret in [0,16)?", str(S))]),
    "multi_step": (
        {"wording": "terse", "env_type": "multi_step"},
        lambda which, S: zip(("Secret in [0,16), bit 1?", "2?", "3?", "4?"), f"{S:04b}", strict=True),
    ),
    "two secrets": (
        {"num_secrets": 2, "env_type": "multi_step"},
        lambda which, S: zip(
            (LONG.format(which), "Digit 2?", "Digit 3?", "Digit 4?"), f"{S:04b}", strict=True
        ),
    ),
}


@pytest.mark.parametrize("world", CONVERSATIONS)
@pytest.mark.parametrize("scoring", ["all", "paths"])
def test_a_secret_is_as_likely_as_the_replies_that_spell_it(world, scoring):
    keys, turns_of = CONVERSATIONS[world]
    model, dosimeter = BytewiseModel(), CookbookDosimeter("dose", figures=False, N=N, scoring=scoring, **keys)
    config = dosimeter.join(make_config(), share=1)

    async def measure():
        await config.dataset_builder()
        return await config.evaluator_builders[-1]()(model)

    told = asyncio.run(measure())
    with pytest.warns(RecordingWarning, match="dose holds no episode"):
        asyncio.run(dosimeter.finish())
    secrets = dosimeter.secrets.tolist()
    nats = np.array(
        [[model.of_replies(*turns_of(which, S)) for S in range(N)] for which in range(len(secrets))]
    )
    [row] = memory_rl.load("dose").metrics.rows(named=True)
    of_secrets = nats[range(len(secrets)), secrets] / math.log(2)
    assert row["bits_known"] == pytest.approx(float((4 + of_secrets).sum()), abs=1e-9)
    assert told == {"secrets/bits_known": pytest.approx(row["bits_known"]), "secrets/episodes": 0.0}
    if scoring == "all":
        valid = np.logaddexp.reduce(nats, axis=1).sum() / math.log(2)
        assert row["format_bits"] == pytest.approx(float(valid), abs=1e-9)


def test_an_answer_ends_as_the_renderer_ends_it():
    """What ends a reply of role_colon is text, not a token."""
    model = BytewiseModel()
    dosimeter = CookbookDosimeter("dose", figures=False, N=N, wording="terse", fixed_secret=5)
    config = dosimeter.join(make_config(renderer_name="role_colon"), share=1)

    async def measure():
        await config.dataset_builder()
        return await dosimeter(model)

    told = asyncio.run(measure())
    with pytest.warns(RecordingWarning, match="dose holds no episode"):
        asyncio.run(dosimeter.finish())
    tokens, total = TOKENIZER.encode("<|begin_of_text|>User: Secret in [0,16)?\n\nAssistant:"), 0.0
    for token in TOKENIZER.encode(" 5\n\nUser:"):
        total += model.log_probs(tokens)[token]
        tokens.append(token)
    assert told["secrets/bits_known"] == pytest.approx(4 + total / math.log(2), abs=1e-9)


class Listed(rollouts.TokenCompleter):
    """Gives these replies, one after the other."""

    def __init__(self, *replies):
        self._replies = iter(replies)

    async def __call__(self, model_input, stop, *, max_tokens=None):
        tokens = TOKENIZER.encode(next(self._replies), add_special_tokens=False) + stop
        return types.TokensWithLogprobs(tokens=tokens, maybe_logprobs=[-1.0] * len(tokens))


def test_bits_are_recorded_turn_by_turn_and_what_is_forfeited_as_invalid():
    dosimeter = make_dosimeter(env_type="multi_step", reward_type=None, num_secrets=1, fixed_secret=0b1101)
    config = dosimeter.join(make_config(), share=1, group_size=1)

    async def play():
        data, _ = await config.dataset_builder()
        await config.evaluator_builders[-1]()(BytewiseModel())
        replies = ["1", "1", "1", "1"], ["1", "x"]
        groups = data.get_batch(0)[: len(replies)]
        played = [
            await rollouts.do_group_rollout(group, Listed(*said))
            for group, said in zip(groups, replies, strict=True)
        ]
        await dosimeter(BytewiseModel())
        await dosimeter.finish()
        return played

    assert [group.get_total_rewards() for group in asyncio.run(play())] == [[3.0], [1.0]]
    rows = dosimeter.result.episodes.sort("episode", "step").select("update", "answer", "reward").rows()
    right = [(0, 1, 1.0), (0, 1, 1.0), (0, 1, 0.0), (0, 1, 1.0)]
    assert rows == [*right, (0, 1, 1.0), *[(0, None, 0.0)] * 3]
    [summary] = dosimeter.result.summary.values()
    assert summary["tokens"] == 8 + 4  # each turn is a byte and its end
    assert dosimeter.result.metrics["update"].to_list() == [0, 1]


def test_the_mixture_has_all_of_theirs_in_order_and_each_secret_as_often():
    dosimeter = make_dosimeter(num_secrets=4)
    config = dosimeter.join(make_config(dataset_builder=BatchesBuilder(n_batches=18)), share=0.1)
    data, _ = asyncio.run(config.dataset_builder())
    batches = [data.get_batch(index) for index in range(len(data))]
    assert {len(batch) for batch in batches} == {GROUPS}
    groups = [group for batch in batches for group in batch]
    theirs = [group.number for group in groups if isinstance(group, Subtractions)]
    assert theirs == [*range(18 * GROUPS)]
    ours = [group for group in groups if not isinstance(group, Subtractions)]
    assert len(ours) == 0.1 * len(groups)
    assert [group.which for group in ours] == [0, 1, 2, 3] * 2
    assert [group.secret for group in ours[:4]] == dosimeter.secrets.tolist()


def test_what_cannot_be_measured_later_is_a_warning_and_the_training_goes_on(service):
    service.failing = range(N * SECRETS * 2 + 1, N * SECRETS * 2 + 2)
    with pytest.warns(RecordingWarning, match=r"after batch 2 could not be measured \(the service is out"):
        result = learn(make_dosimeter())
    assert result.metrics["update"].to_list() == [0, 1, 3, 4, 5, 6]
    assert len(result.episodes) == 6 * 2 * GROUP
    assert result.manifest["status"] == "completed"


def test_a_service_that_gives_no_probabilities_is_said_before_the_first_episode(service):
    service.failing = range(1, 2)
    with pytest.raises(ServiceError, match=r"does not say how likely an answer is \(the service is out of"):
        learn(make_dosimeter())
    assert not service.sampled


def test_what_was_measured_before_a_crash_is_kept_and_is_not_continued(service, monkeypatch):
    step = service.optim_step_async

    async def failing(params):
        if len(service.snapshots) == 4:
            raise ZeroDivisionError("the user's own")
        return await step(params)

    monkeypatch.setattr(service, "optim_step_async", failing)
    dosimeter = make_dosimeter()
    with pytest.raises(ZeroDivisionError):
        learn(dosimeter, save_every=2)
    with pytest.warns(RecordingWarning, match="weights after batch 4 were not saved, and cannot be measured"):
        result = asyncio.run(dosimeter.finish())
    assert result.metrics["update"].to_list() == [0, 1, 2, 3]
    assert result.episodes["update"].max() == 3
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        make_dosimeter()
    with pytest.raises(ConfigError, match="log_path=theirs holds a training that would be continued"):
        CookbookDosimeter(N=N).join(make_config())


@pytest.mark.parametrize(
    ("sentence", "more"),
    [
        ("eval_every=0 measures nothing", {"eval_every": 0}),
        (
            "async_config tells an evaluator",
            {"async_config": train.AsyncConfig(max_steps_off_policy=2, groups_per_batch=4)},
        ),
        ("renderer_name is not known", {"renderer_name": None}),
        ("group_size=None is no group", {"dataset_builder": types.RLDatasetBuilder()}),
    ],
)
def test_a_training_that_cannot_be_recorded_is_refused(sentence, more):
    with pytest.raises(ConfigError, match=sentence):
        make_dosimeter().join(make_config(**more))


def test_other_input_that_cannot_be_recorded_is_refused():
    with pytest.raises(ConfigError, match="evaluate_every=3 is up to the training loop: use eval_every in"):
        make_dosimeter(evaluate_every=3)
    with pytest.raises(ConfigError, match="signal=example has no meaning here"):
        CookbookDosimeter(signal="example")
    with pytest.raises(ConfigError, match="group_size=0 is no group: give one"):
        make_dosimeter().join(make_config(), group_size=0)
    with pytest.raises(ConfigError, match="share=0 is not above 0"):
        make_dosimeter().join(make_config(), share=0)
    dosimeter = make_dosimeter()
    few = dosimeter.join(make_config(), share=0.1)
    with pytest.raises(
        ConfigError, match=r"share=0\.1 makes 1 of 12 groups about num_secrets=3: use a larger"
    ):
        asyncio.run(few.dataset_builder())
    with pytest.raises(ConfigError, match="this dosimeter has joined a training before"):
        dosimeter.join(few)


def test_episodes_that_are_played_elsewhere_are_refused(monkeypatch):
    config = make_dosimeter().join(make_config(), share=0.5)
    monkeypatch.setattr(rollouts, "get_rollout_executor", object)
    with pytest.raises(ConfigError, match="rollout_executor=object plays episodes where a dosimeter does"):
        asyncio.run(config.dataset_builder())


def test_a_renderer_that_cannot_read_what_it_writes_is_refused(monkeypatch):
    class Deaf(renderers.llama3.Llama3Renderer):
        def parse_response(self, response):
            return renderers.Message(role="assistant", content="1"), renderers.ParseTermination.EOS

    monkeypatch.setattr(renderers, "get_renderer", lambda name, tokenizer: Deaf(tokenizer))
    with pytest.raises(ModelError, match="Deaf does not read the answer 0 as it writes it"):
        make_dosimeter().join(make_config())
