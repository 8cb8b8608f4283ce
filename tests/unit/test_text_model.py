"""The built-in model that has read text: what it reads, that it learns it as a language model does, and how
it is made once, kept and found again."""

import io
import json
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from helpers import plain_log_prob
from rich.console import Console

import memory_rl
from memory_rl.policies import text_model, tiny_model
from memory_rl.policies.base_model import choose_device, find_base_model
from memory_rl.policies.synthetic_text import documents
from memory_rl.policies.text_model import Pretraining, bits_a_character, characters, pretrain, pretrained
from memory_rl.reporting.progress import Progress

SHORT = Pretraining(steps=90, rows=4, length=64, learning_rate=1e-2)
HELD_OUT = 10**6  # a seed that no model here has read
TOKENIZER = tiny_model.make_tokenizer()


@pytest.fixture(scope="module")
def short():
    return pretrain(0, SHORT)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Few steps, and a cache of its own."""
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_model, "Pretraining", partial(Pretraining, steps=3, rows=2, length=32))
    return tmp_path / "cache"


def weights(model) -> bytes:
    return b"".join(weight.detach().cpu().numpy().tobytes() for weight in model.parameters())


def by_counts(read: np.ndarray, asked: np.ndarray, order: int) -> float:
    """Bits a character of a unigram (0) or bigram (1) model of what was read, one added to each count."""
    size = len(TOKENIZER)
    counts = np.ones((size,) * (order + 1))
    np.add.at(counts, tuple(read[place : len(read) - order + place] for place in range(order + 1)), 1)
    shares = counts / counts.sum(axis=-1, keepdims=True)
    pairs = tuple(asked[1 - order + place : len(asked) - order + place] for place in range(order + 1))
    return float(-np.log2(shares[pairs]).mean())


def test_the_text_is_of_its_seed_and_of_known_characters():
    text = "".join(islice(documents(3), 2000))
    assert text == "".join(islice(documents(3), 2000))
    assert text != "".join(islice(documents(4), 2000))
    encoded = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.unk_token_id not in encoded
    assert encoded == characters(3, len(encoded)).tolist()
    digits = sum(count for sign, count in Counter(text).items() if sign.isdecimal())
    assert 0.1 < digits / len(encoded) < 0.5


def test_conversations_are_as_the_chat_template_writes_them():
    text = next(one for one in documents(0) if one.count("<reply>") > 1)
    turns = [turn.split("<reply>") for turn in text.removeprefix("<bos>").split("<eos>")[:-1]]
    messages = [
        {"role": role, "content": said}
        for turn in turns
        for role, said in zip(("user", "assistant"), turn, strict=True)
    ]
    assert TOKENIZER.apply_chat_template(messages, tokenize=False) == text


def test_the_experiments_task_is_not_in_the_text():
    text = "".join(islice(documents(0), 5000)).lower()
    assert not [word for word in ("secret", "thinking of", "digit 1", "bit 1?", "integer") if word in text]


def test_sums_and_binary_notation_are_right():
    """Read back from the text itself."""
    found = Counter()
    for line in (
        "\n".join(islice(documents(1), 3000)).replace("<bos>", "").replace("<eos>", "\n").splitlines()
    ):
        words = line.removesuffix(".").split()
        if len(words) == 5 and words[3] == "is" and words[1] in "+-":
            a, b = int(words[0]), int(words[2])
            assert int(words[4]) == (a + b if words[1] == "+" else a - b)
            found["sum"] += 1
        if line.startswith("In binary "):
            assert int(words[4], 2) == int(words[2])
            found["binary"] += 1
    assert min(found["sum"], found["binary"]) > 100


def test_bits_a_character_are_those_of_plain_passes(short):
    text = characters(HELD_OUT, 3 * 64)
    rows = text.reshape(3, 64).tolist()
    by_hand = -sum(plain_log_prob(short, [(row[:1], row[1:])]) for row in rows) / (3 * 63) / math.log(2)
    assert bits_a_character(short, text, 64) == pytest.approx(by_hand, abs=1e-5)


def test_it_reads_better_than_counts_of_single_characters_do(short):
    """After two seconds; the whole pretraining beats counts of pairs by far."""
    read, asked = characters(0, SHORT.steps * SHORT.rows * SHORT.length), characters(HELD_OUT, 20_000)
    assert bits_a_character(short, asked) < by_counts(read, asked, 0) - 1.0


@pytest.mark.slow
def test_the_whole_pretraining_makes_a_language_model():
    """What is left is mostly drawn at random: the digits themselves."""
    model, asked = pretrained(0), characters(HELD_OUT, 100_000)
    how = Pretraining()
    read = characters(0, how.steps * how.rows * how.length)
    unigram, bigram = by_counts(read, asked, 0), by_counts(read, asked, 1)
    assert 4.9 < unigram < 5.1
    assert 2.5 < bigram < unigram
    assert bits_a_character(model, asked) < 0.9


def test_the_same_seed_gives_the_same_bytes(short):
    few = Pretraining(steps=4, rows=2, length=32)
    torch.manual_seed(1)
    once = weights(pretrain(0, few))
    torch.manual_seed(2)
    torch.rand(3)
    assert weights(pretrain(0, few)) == once
    assert weights(pretrain(1, few)) != once


def test_the_process_is_left_as_it_was():
    torch.set_num_threads(1)
    for flushed in (False, True):
        torch.set_flush_denormal(flushed)
        pretrain(0, Pretraining(steps=1, rows=1, length=8))
        assert (np.array([np.finfo(float).smallest_subnormal])[0] * 1 > 0) == (not flushed)
    torch.set_flush_denormal(False)


def test_it_begins_as_any_model_does():
    first = pretrain(5, Pretraining(steps=1, rows=1, length=8, learning_rate=0.0))
    spread = {name: weight.std().item() for name, weight in first.named_parameters() if weight.ndim == 2}
    assert spread.pop("lm_head.weight") == pytest.approx(128**-0.5, rel=0.05)
    assert list(spread.values()) == pytest.approx([0.02] * len(spread), rel=0.05)
    # Logits of variance 1 cost half a nat.
    expected = math.log2(len(TOKENIZER)) + 0.5 / math.log(2)
    assert bits_a_character(first, characters(HELD_OUT, 2000)) == pytest.approx(expected, abs=0.3)


def test_it_is_made_once_and_found_again(quick):
    told = []
    made = pretrained(0, watch=lambda *step: told.append(step))
    assert [step[::2] for step in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[0][1] == pytest.approx(math.log2(len(TOKENIZER)) + 0.5 / math.log(2), abs=0.5)
    found = pretrained(0, watch=lambda *step: pytest.fail("made again"))
    assert weights(found) == weights(made)
    assert weights(pretrained(1)) != weights(made)
    assert len(list(quick.rglob("pretraining.json"))) == 2


@pytest.mark.parametrize("changed", ["settings", "text", "version"])
def test_another_recipe_is_another_model(quick, monkeypatch, changed):
    before = weights(pretrained(0))
    if changed == "settings":
        monkeypatch.setattr(text_model, "Pretraining", partial(Pretraining, steps=2, rows=2, length=32))
    elif changed == "text":
        monkeypatch.setattr(text_model, "documents", lambda seed: documents(seed + 1))
    else:
        monkeypatch.setattr(text_model, "_VERSION", 0)
    after = weights(pretrained(0))
    assert (after == before) == (changed == "version")  # made anew, by the same steps
    assert len(list(quick.rglob("pretraining.json"))) == 2


def test_a_damaged_one_is_made_anew(quick):
    before = weights(pretrained(0))
    file = next(quick.rglob("model.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    assert weights(pretrained(0)) == before
    assert weights(pretrained(0, watch=lambda *step: pytest.fail("made again"))) == before


def test_two_at_once_make_it_once(quick):
    steps = []
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: pretrained(0, watch=lambda *step: steps.append(step)), range(2)))
    assert len(steps) == 3
    assert weights(both[0]) == weights(both[1])


def test_a_cache_that_cannot_be_written_is_no_obstacle(quick, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "file"))
    with pytest.warns(memory_rl.errors.CacheWarning, match="cannot be cached"):
        model = pretrained(0)
    assert len(weights(model)) > 1e6


def test_it_is_warmed_up_and_asked_as_a_pretrained_model_is(quick):
    base = find_base_model("tiny-text", 0)
    assert base.warmup_settings.adapter_rank == 8
    assert base.warmup_settings.head_steps == 0
    result = memory_rl.train(
        model_name="tiny-text", N=4, num_runs=2, max_episodes=8, save_adapters=True, quiet=True
    )
    assert "I am thinking of" in result.manifest["prompt"]
    assert result.summary["binary"]["warmup"]["reached"]
    kept = json.loads((result.path / "adapters/base.json").read_text())
    assert kept["base_model_name_or_path"].startswith("tiny-text#")
    assert kept["made_here"]


def test_a_pretraining_is_shown_as_one(quick):
    progress = Progress(quiet=True)
    pretrained(0, watch=progress.warm_up)
    shown = Console(width=120, file=io.StringIO(), record=True)
    shown.print(progress)
    text = shown.export_text()
    assert text.startswith("pretraining the base model (done once, then cached)")
    assert "bits a character" in text
    progress.warm_up(1, 0.5)
    shown.print(progress)
    assert "warming up the base model (done once, then cached) 1 step, 0.500 bits from its target" in (
        shown.export_text()
    )


def test_it_computes_on_the_cpu_by_default(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("tiny-text", None) == "cpu"
    assert choose_device("tiny-text", "cuda") == "cuda"
