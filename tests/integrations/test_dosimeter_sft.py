"""The dosimeter in TRL's stock SFTTrainer: bits known against a plain pass over each conversation, and the
examples as often as they stand in the data, whatever their format."""

import copy
import math

import numpy as np
import pytest
import torch
import transformers

pytest.importorskip("trl", reason="TRL is not installed: pip install 'memory-rl[trl]'")

import datasets
from helpers import make_environment, make_trie
from trl import DPOConfig, SFTConfig, SFTTrainer

import memory_rl
from memory_rl.dosimeter.mixture import find
from memory_rl.dosimeter.trl import Dosimeter
from memory_rl.errors import ConfigError
from memory_rl.policies import tiny_model
from memory_rl.policies.warmup import WarmupSettings, warm_up

pytestmark = pytest.mark.filterwarnings(  # by TRL of itself
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)

SECRETS, N = 3, 16
ASKED = {"role": "user", "content": "7 - 3 ?"}
ANSWERED = {"role": "assistant", "content": "4"}
FORMATS = {
    "messages": {"messages": [ASKED, ANSWERED]},
    "prompt and completion": {"prompt": [ASKED], "completion": [ANSWERED]},
    "text": {"text": "7 - 3 ?\n4"},
    "prompt and completion as text": {"prompt": "7 - 3 ?\n", "completion": "4"},
}


def make_base(size):
    model, tokenizer = tiny_model.make_model(0), tiny_model.make_tokenizer()
    trie = make_trie(make_environment("single_step", size, SECRETS), tokenizer)
    warm_up(model, trie, size, WarmupSettings(head_steps=300, tolerance=0.05))
    return model, tokenizer


@pytest.fixture(scope="module")
def base():
    return make_base(N)


def make_dosimeter(**keys):
    return Dosimeter("dose", figures=False, **{"N": N, "num_secrets": SECRETS, "wording": "terse", **keys})


def train(base, dosimeter, data, callbacks=(), **more):
    given = {
        "output_dir": "out",
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    trainer = SFTTrainer(
        model=copy.deepcopy(base[0]),
        args=SFTConfig(**{**given, **more}),
        train_dataset=data,
        eval_dataset=data,
        processing_class=base[1],
        callbacks=[dosimeter, *callbacks],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def plain_bits(model, tokenizer, as_text, secrets, size=N):
    """log2 N + log2 P(S), summed over the secrets: one conversation after the other, without a batch."""
    bits = 0.0
    prompts = make_environment("single_step", size, SECRETS).first_prompts()
    for prompt, S in zip(prompts, secrets, strict=True):
        asked = tokenizer.encode(f"{prompt}\n" if as_text else f"<bos>{prompt}<reply>")
        tokens = [*asked, *tokenizer.encode(f"{S}<eos>")]
        with torch.no_grad():
            log_probs = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        said = sum(float(log_probs[place - 1, tokens[place]]) for place in range(len(asked), len(tokens)))
        bits += math.log2(size) + said / math.log(2)
    return bits


class PlainPass(transformers.TrainerCallback):
    """Appends to a list what a plain pass says the model knows, before training and after each step."""

    def __init__(self, found, *about):
        self._found, self._about = found, about

    def _measure(self, args, state, control, model, **about):
        assert model.training
        self._found.append(plain_bits(model.eval(), *self._about))
        model.train()

    on_train_begin = on_step_end = _measure


@pytest.mark.filterwarnings("ignore:.*eos:UserWarning")
@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_bits_known_and_examples_are_those_of_the_data_in_any_format(base, row):
    dosimeter, plain = make_dosimeter(), []
    data = dosimeter.mix(datasets.Dataset.from_list([row] * 12), share=0.5)
    assert set(data.column_names) == set(row)
    as_text = isinstance(next(iter(row.values())), str)
    passes = PlainPass(plain, base[1], as_text, dosimeter.secrets)
    trainer = train(base, dosimeter, data, [passes], eval_strategy="steps", eval_steps=2)
    result = memory_rl.load("dose")
    assert result.metrics["bits_known"].to_list() == pytest.approx(plain, abs=1e-4)
    assert plain[-1] > plain[0] + 1  # it learned
    assert result.metrics["update"].to_list() == [*range(trainer.state.global_step + 1)]
    shown = result.episodes  # those of the evaluations are none
    assert shown["prompt"].value_counts().sort("prompt")["count"].to_list() == [4] * SECRETS
    assert shown["answer"].to_list() == dosimeter.secrets[shown["prompt"].to_numpy()].tolist()
    assert shown["reward"].null_count() == len(shown) == 12
    assert (shown["update"] <= trainer.state.global_step - 1).all()
    assert result.manifest["kind"] == "sft"
    assert result.summary["sft"]["ledger"]["observer"]["estimate"] == pytest.approx(SECRETS * math.log2(N))
    assert [law["status"] for law in result.summary["sft"]["checks"].values()] == ["holds", "holds"]
    assert not trainer.model._forward_pre_hooks
    if "messages" in row:
        assert memory_rl.report(runs="dose", quiet=True).is_file()


def test_bits_known_at_64_are_those_of_a_plain_pass():
    base, plain = make_base(64), []
    dosimeter = make_dosimeter(N=64)
    passes = PlainPass(plain, base[1], False, dosimeter.secrets, 64)  # as a chat
    train(base, dosimeter, dosimeter.alone(24, "messages"), [passes])
    result = memory_rl.load("dose")
    assert result.metrics["bits_known"].to_list() == pytest.approx(plain, abs=1e-4)
    assert plain[-1] > plain[0] + 1
    assert [law["status"] for law in result.summary["sft"]["checks"].values()] == ["holds", "holds"]


def test_the_tables_are_those_of_an_experiment_of_our_own(base):
    """The same columns hold something, and the same hold nothing."""
    dosimeter = make_dosimeter(num_secrets=1)
    train(base, dosimeter, dosimeter.alone(8, "messages"))
    own = memory_rl.sft(N=N, num_runs=1, max_episodes=8, batch_size=4, quiet=True, figures=False)
    for table in ("metrics", "episodes"):
        theirs, ours = getattr(memory_rl.load("dose"), table), getattr(own, table)
        assert theirs.schema == ours.schema
        nothing = [frame.null_count().row(0) for frame in (theirs, ours)]
        assert [count > 0 for count in nothing[0]] == [count > 0 for count in nothing[1]]


def test_examples_are_found_whole_wherever_they_stand():
    examples = [[1, 5, 2], [1, 6, 2], [1, 5, 5, 2]]
    rows = [[1, 6, 2, 1, 5, 2, 0, 0], [1, 5, 5, 2, 1, 5], [9, 9, 1, 5, 9], [1, 1, 5, 2]]
    np.testing.assert_array_equal(find(rows, examples), [1, 0, 2, 0])


def test_what_cannot_be_recorded_is_refused_in_one_sentence():
    dosimeter = make_dosimeter()
    with pytest.raises(ConfigError, match="the columns question, and none of text, messages, prompt: rename"):
        dosimeter.mix(datasets.Dataset.from_list([{"question": "7 - 3 ?"}]))
    with pytest.raises(ConfigError, match="the data set has a column secret of its own: rename it"):
        dosimeter.mix(datasets.Dataset.from_list([{"prompt": "7 - 3 ?", "secret": "4"}]))
    with pytest.raises(ConfigError, match="DPOConfig is of no trainer that a dosimeter can listen to"):
        dosimeter.on_init_end(DPOConfig(output_dir="out", use_cpu=True, bf16=False), None, None)


def test_a_reward_means_nothing_where_answers_are_shown(base):
    dosimeter = make_dosimeter(reward_type="log_distance")
    data = dosimeter.mix(datasets.Dataset.from_list([FORMATS["messages"]] * 4), share=0.5)
    with pytest.raises(ConfigError, match=r"reward_type=log_distance belongs to .*: .*leave reward_type out"):
        train(base, dosimeter, data)
