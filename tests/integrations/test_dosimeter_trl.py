"""The dosimeter in TRL's stock GRPOTrainer: bits known against a plain pass over each conversation, episodes
against the trainer's own completions, and whole trainings against our engine."""

import asyncio
import copy
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

pytest.importorskip("trl", reason="TRL is not installed: pip install 'memory-rl[trl]'")

import datasets
from helpers import make_environment, make_trie
from trl import GRPOConfig, GRPOTrainer

import memory_rl
from memory_rl.dosimeter.recorder import RecordingWarning
from memory_rl.dosimeter.trl import Dosimeter
from memory_rl.errors import ConfigError, RunDirectoryError
from memory_rl.policies import tiny_model
from memory_rl.policies.warmup import WarmupSettings, warm_up

pytestmark = pytest.mark.filterwarnings(  # by TRL of itself
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning"
)

SECRETS, GROUP = 3, 4
THEIRS = [{"prompt": [{"role": "user", "content": "7 - 3 ?"}], "solution": "4"}] * 20
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def make_base():
    """The tiny model, which answers in our form and knows nothing, and its tokenizer."""
    bases = {}

    def make(N):
        if N not in bases:
            bases[N] = tiny_model.make_model(0), tiny_model.make_tokenizer()
            trie = make_trie(make_environment("single_step", N, SECRETS), bases[N][1])
            warm_up(bases[N][0], trie, N, WarmupSettings(head_steps=300, tolerance=0.05))
        return copy.deepcopy(bases[N])

    return make


def settings(**more):
    return GRPOConfig(
        **{
            "output_dir": "out",
            "seed": 0,
            "use_cpu": True,
            "bf16": False,
            "max_steps": 5,
            "num_generations": GROUP,
            "per_device_train_batch_size": 4 * GROUP,
            "per_device_eval_batch_size": 4 * GROUP,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "max_completion_length": 3,
            "loss_type": "dr_grpo",
            "scale_rewards": "none",
            "learning_rate": 2e-3,
            "gradient_checkpointing": False,
            "lr_scheduler_type": "constant",
            "logging_strategy": "no",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **more,
        }
    )


def make_dosimeter(**keys):
    given = {"N": 16, "num_secrets": SECRETS, "wording": "terse", "reward_type": "log_distance"}
    return Dosimeter(log_path="dose", figures=False, **{**given, **keys})


def of_solution(completions, solution, **columns):
    """The user's own reward, which cannot do with a row that has no solution."""
    return [
        float(completion[0]["content"] == right)
        for completion, right in zip(completions, solution, strict=True)
    ]


def make_trainer(base, dosimeter, rewards=None, callbacks=(), rows=THEIRS, **more):
    transformers.set_seed(0)
    data = dosimeter.mix(datasets.Dataset.from_list(rows), share=0.5)
    trainer = GRPOTrainer(
        model=base[0],
        reward_funcs=rewards or dosimeter.rewards(of_solution),
        args=settings(**more),
        train_dataset=data,
        eval_dataset=data.select(range(8)),
        processing_class=base[1],
        callbacks=list(callbacks),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def plain_bits(model, tokenizer, asked, secrets, N):
    """log2 N + log2 P(S), summed over the secrets: one conversation after the other, without a batch."""
    bits = 0.0
    for prompt, secret in zip(asked, secrets, strict=True):
        answered = [tokenizer.convert_tokens_to_ids(digit) for digit in str(secret)]
        tokens = [*prompt, *answered, tokenizer.eos_token_id]
        with torch.no_grad():
            log_probs = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        places = range(len(prompt), len(tokens))
        said = sum(float(log_probs[place - 1, tokens[place]]) for place in places)
        bits += math.log2(N) + said / math.log(2)
    return bits


class PlainPass(transformers.TrainerCallback):
    """Measures beside the dosimeter, what is asked as a chat or as text."""

    def __init__(self, tokenizer, dosimeter, N, written="<bos>{}<reply>"):
        prompts = make_environment("single_step", N, SECRETS).first_prompts()
        asked = [tokenizer.encode(written.format(prompt)) for prompt in prompts]
        self.given = tokenizer, asked, dosimeter.secrets, N
        self.bits = []

    def _measure(self, args, state, control, model, **about):
        assert model.training  # as the trainer has left it
        self.bits.append(plain_bits(model.eval(), *self.given))
        model.train()

    on_train_begin = on_step_end = _measure


@pytest.mark.parametrize("N", [16, 64])
def test_bits_known_are_those_of_a_plain_pass_and_the_directory_is_an_ordinary_one(make_base, N):
    base, dosimeter = make_base(N), make_dosimeter(N=N)
    plain, heard, evaluated = PlainPass(base[1], dosimeter, N), [], []
    theirs, ours = dosimeter.rewards(of_solution)

    def watched(**given):
        rewards = ours(**given)
        if base[0].training:  # what the trainer asks to evaluate is no episode
            heard.append(({**given, "trainer_state_step": given["trainer_state"].global_step}, rewards))
        else:
            evaluated.append(rewards)
        return rewards

    make_trainer(
        base, dosimeter, [theirs, watched], [dosimeter, plain], eval_strategy="steps", eval_steps=3
    ).train()
    assert evaluated
    result = memory_rl.load("dose")
    assert result.metrics["bits_known"].to_list() == pytest.approx(plain.bits, abs=1e-4)
    assert result.metrics["update"].to_list() == [*range(6)]
    assert max(plain.bits) - min(plain.bits) > 0.5  # it moved
    check_episodes(result, heard, base[1], N)
    np.testing.assert_allclose(
        result.ledger.group_by("run").last()["observer_bits"], result.metrics["observer_bits"][-1], atol=1e-9
    )
    checks = result.summary["log_distance"]["checks"]
    assert [law["status"] for law in checks.values()] == ["holds", "holds"]
    assert result.manifest["trainer"]["name"] == "GRPOTrainer"
    assert memory_rl.report(runs="dose", quiet=True).is_file()


def check_episodes(result, heard, tokenizer, N):
    """The answers are read off the tokens here, and the rewards worked out."""
    valid = {
        (*(tokenizer.convert_tokens_to_ids(digit) for digit in str(answer)), tokenizer.eos_token_id): answer
        for answer in range(N)
    }
    expected = []
    for given, rewards in heard:
        rows = zip(given["completion_ids"], given["secret"], given["secret_number"], rewards, strict=True)
        for tokens, S, number, reward in rows:
            assert (S is None) == (reward is None)  # the others are the user's
            if S is not None:
                answer = valid.get(tuple(tokens))
                near = 0.0 if answer is None else 1 - math.log2(1 + abs(answer - S)) / math.log2(N)
                expected.append((given["trainer_state_step"], number, answer, max(0.0, near)))
    found = result.episodes.select("update", "prompt", "answer", "reward").rows()
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in expected])
    assert 0 < len(found) < sum(len(rewards) for _, rewards in heard)


def test_prompts_of_plain_text_and_secrets_that_alone_are_scored(make_base):
    """Where not every answer is scored, format bits and confidence are unknown, and the laws are judged."""
    base, dosimeter = make_base(16), make_dosimeter(scoring="paths", evaluate_every=2)
    plain = PlainPass(base[1], dosimeter, 16, written="{}\n")
    rows = [{"prompt": "7 - 3 ?\n", "solution": "4"}] * 20

    def of_text(completions, solution, **columns):
        return [float(text == right) for text, right in zip(completions, solution, strict=True)]

    make_trainer(base, dosimeter, dosimeter.rewards(of_text), [dosimeter, plain], rows=rows).train()
    metrics = memory_rl.load("dose").metrics
    assert metrics["update"].to_list() == [0, 2, 4, 5]
    expected = [plain.bits[update] for update in (0, 2, 4, 5)]
    assert metrics["bits_known"].to_list() == pytest.approx(expected, abs=1e-4)
    for name in ("content_bits", "format_bits", "confidence"):
        assert metrics[name].null_count() == 4
    checks = dosimeter.result.summary["log_distance"]["checks"]
    assert [law["status"] for law in checks.values()] == ["holds", "holds"]
    assert checks["policy_within_observer"]["at_episode"] in metrics["episode"]


def test_the_training_is_the_same_to_the_bit_with_and_without_it(make_base):
    """The mixture is the same; what the callback measures must leave no trace in the weights."""
    weights = []
    for listens in (True, False):
        base, dosimeter = make_base(16), make_dosimeter() if listens else make_dosimeter_elsewhere()
        make_trainer(base, dosimeter, callbacks=[dosimeter] if listens else []).train()
        weights.append(base[0].state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def make_dosimeter_elsewhere():
    return Dosimeter(N=16, num_secrets=SECRETS, wording="terse", reward_type="log_distance")


def test_what_was_measured_before_a_crash_is_kept_and_a_second_start_is_refused(make_base):
    base, dosimeter, calls = make_base(16), make_dosimeter(), []
    theirs, ours = dosimeter.rewards(of_solution)

    def failing(**given):
        calls.append(given)
        if len(calls) == 4:
            raise ZeroDivisionError("the user's own")
        return ours(**given)

    with pytest.raises(ZeroDivisionError):
        make_trainer(base, dosimeter, [theirs, failing], [dosimeter]).train()
    result = memory_rl.load("dose")
    assert result.metrics["update"].to_list() == [0, 1, 2, 3]
    assert result.episodes["episode"].max() == result.metrics["episode"].max() > 0
    with pytest.raises(RunDirectoryError, match="log_path=dose is in use by another process"):
        make_dosimeter()
    with pytest.warns(RecordingWarning, match="the process ended before the training did; what was measured"):
        dosimeter._recorder._abandon()  # as the interpreter does when it ends
    with pytest.raises(
        RunDirectoryError, match=r"already holds a run \(interrupted\), which is never overwritten"
    ):
        make_dosimeter()


def test_what_cannot_be_recorded_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"learning_rate=0.1 is up to the trainer .* leave it out"):
        Dosimeter(learning_rate=0.1)
    with pytest.raises(ConfigError, match="env_type=multi_step has no form in TRL"):
        Dosimeter(env_type="multi_step")
    with pytest.raises(ConfigError, match="N=1 is"):
        Dosimeter(N=1)
    dosimeter, theirs = make_dosimeter(), datasets.Dataset.from_list(THEIRS)
    with pytest.raises(ConfigError, match="share=1 is not between 0 and 1"):
        dosimeter.mix(theirs, share=1)
    with pytest.raises(ConfigError, match=r"share='0\.1' is not between 0 and 1"):
        dosimeter.mix(theirs, share="0.1")
    with pytest.raises(ConfigError, match="is a IterableDataset, which has no length"):
        dosimeter.mix(theirs.to_iterable_dataset())
    with pytest.raises(ConfigError, match="Linear is no function: give a reward model to the trainer itself"):
        dosimeter.rewards(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="num_processes=2 is more than a dosimeter can listen to"):
        dosimeter.on_init_end(SimpleNamespace(world_size=2), None, None)
    with pytest.raises(ConfigError, match="SimpleNamespace is of no trainer that a dosimeter can listen to"):
        dosimeter.on_init_end(SimpleNamespace(world_size=1), None, None)
    with pytest.raises(ConfigError, match="resume_from_checkpoint begins at step 3"):
        dosimeter.on_train_begin(None, SimpleNamespace(global_step=3), None)
    assert not Path("dose").exists()


THINKS = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<bos>{{ message['content'] }}"
    "{% else %}{{ message['content'] }}<eos>{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '()' }}{% endif %}{% endif %}"
)


@pytest.mark.parametrize("switches", [{}, {"enable_thinking": False}])
@pytest.mark.parametrize("as_text", [False, True])
def test_the_prompts_are_the_very_tokens_of_the_trainer(make_base, switches, as_text):
    base, dosimeter = make_base(16), make_dosimeter()
    base[1].chat_template = THINKS
    rows = [{"prompt": "7 - 3 ?", "solution": "4"}] * 20 if as_text else THEIRS
    trainer = make_trainer(base, dosimeter, rows=rows, chat_template_kwargs=switches)
    base[0].generation_config.eos_token_id = [2, 5]
    question = dosimeter._mixture.question(*base, switches)
    asked = {
        row["secret_number"]: row["prompt"] for row in trainer.train_dataset if row["secret"] is not None
    }
    prompts = [asked[number] for number in range(SECRETS)]
    assert question.prompts == trainer._tokenize_prompts(prompts)[0]
    assert question.ends == [2, 5]


class OfLength:
    """A reward as an object; TRL logs it by a name."""

    def __call__(self, completions, **columns):
        return [float(len(completion)) for completion in completions]


async def later(completions, solution, **columns):
    return [float(text == right) for text, right in zip(completions, solution, strict=True)]


def test_own_rewards_of_any_kind_see_their_own_rows_alone():
    given = {
        "prompts": ["a", "b", "c"],
        "completions": ["4", "5", "44"],
        "solution": ["4", None, "4"],
        "secret": [None, 5, None],
        "secret_number": [None, 0, None],
        "trainer_state": SimpleNamespace(global_step=0),
    }
    dosimeter = make_dosimeter()
    of_object, of_coroutine, ours = dosimeter.rewards(OfLength(), later)
    assert of_object(**given) == [1.0, None, 2.0]
    assert asyncio.run(of_coroutine(**given)) == [1.0, None, 0.0]
    assert (of_object.__name__, of_coroutine.__name__) == ("OfLength", "later")
    one = {name: value[1:2] if isinstance(value, list) else value for name, value in given.items()}
    assert of_object(**one) == asyncio.run(of_coroutine(**one)) == [None]
    expected = max(0.0, 1 - math.log2(1 + abs(5 - int(dosimeter.secrets[0]))) / 4)
    assert ours(**given) == [None, pytest.approx(expected), None]


def test_an_evaluation_on_rows_of_their_own_is_theirs_alone(make_base):
    dosimeter = make_dosimeter()
    trainer = make_trainer(make_base(16), dosimeter, callbacks=[dosimeter], max_steps=1)
    trainer.train()
    trainer.eval_dataset = datasets.Dataset.from_list(THEIRS)
    seen = trainer.evaluate()
    assert math.isfinite(seen["eval_rewards/of_solution/mean"])
    assert seen["eval_reward"] == pytest.approx(seen["eval_rewards/of_solution/mean"])


def test_a_training_without_the_secrets_is_refused_before_its_first_step(make_base):
    dosimeter, (model, tokenizer) = make_dosimeter(), make_base(16)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=dosimeter.rewards(of_solution),
        args=settings(),
        train_dataset=datasets.Dataset.from_list(THEIRS),
        processing_class=tokenizer,
        callbacks=[dosimeter],
    )
    said = (
        r"no column secret, only prompt, solution: mix the secrets in, train_dataset=dosimeter.mix\(dataset\)"
    )
    with pytest.raises(ConfigError, match=said):
        trainer.train()
    assert not Path("dose").exists()


def test_the_mixture_has_the_share_that_was_asked_for_and_each_secret_as_often():
    dosimeter = make_dosimeter(N=64)
    mixed = dosimeter.mix(datasets.Dataset.from_list(THEIRS * 10), share=0.1)
    ours = [row for row in mixed if row["secret"] is not None]
    assert len(ours) / len(mixed) == pytest.approx(0.1, abs=0.01)
    assert sorted(row["secret_number"] for row in ours) == sorted([*range(SECRETS)] * (len(ours) // SECRETS))
    prompts = make_environment("single_step", 64, SECRETS).first_prompts()
    drawn = memory_rl.Experiment(world=memory_rl.Secrets(N=64, num_secrets=SECRETS))
    assert dosimeter.secrets.tolist() == memory_rl.task.secrets_of_run(drawn.world)
    for row in ours:
        assert row["prompt"] == [{"role": "user", "content": prompts[row["secret_number"]]}]
        assert row["secret"] == dosimeter.secrets[row["secret_number"]]
    assert [row["solution"] for row in mixed if row["secret"] is None] == ["4"] * 200
