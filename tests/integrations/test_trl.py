"""TRL: the dataset and the reward function in a real GRPOTrainer, and against an independent reading of its
completions."""

import copy
import math

import numpy as np
import pytest
import scipy.stats
import transformers

pytest.importorskip("trl", reason="TRL is not installed: pip install 'memory-rl[trl]'")

from helpers import make_environment, make_trie, secrets_of

from memory_rl.errors import ConfigError
from memory_rl.integrations.trl import SecretReward, make_dataset
from memory_rl.policies import tiny_model
from memory_rl.policies.warmup import WarmupSettings, warm_up

N, GROUP, UPDATES = 16, 8, 25


@pytest.fixture(scope="module")
def base():
    model, tokenizer = tiny_model.make_model(0), tiny_model.make_tokenizer()
    warm_up(
        model,
        make_trie(make_environment("single_step", N), tokenizer),
        N,
        WarmupSettings(head_steps=300, tolerance=0.05),
    )
    return model, tokenizer


def settings(folder):
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(folder),
        seed=0,
        use_cpu=True,
        bf16=False,
        max_steps=UPDATES,
        num_generations=GROUP,
        per_device_train_batch_size=GROUP,
        gradient_accumulation_steps=1,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_completion_length=2,  # 10 to 15 are cut off: an answer ends with an end-of-sequence token
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=0.0,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # by TRL of itself
def test_the_trainer_learns_from_the_channel(base, tmp_path):
    """Each reward is the log-distance of what was decoded; the trainer logs their mean; and they rise."""
    from trl import GRPOTrainer

    model, tokenizer = copy.deepcopy(base[0]), base[1]
    reward, batches = SecretReward(end_token_id=tokenizer.eos_token_id, N=N, reward_type="log_distance"), []

    def watched(completions, secret, completion_ids, **columns):
        batches.append(
            (
                completion_ids,
                secret,
                reward(completions=completions, secret=secret, completion_ids=completion_ids, **columns),
            )
        )
        return batches[-1][-1]

    transformers.set_seed(0)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=watched,
        args=settings(tmp_path),
        train_dataset=make_dataset(length=UPDATES, N=N, fixed_secret=6),
        processing_class=tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    assert len(batches) == UPDATES
    valid = {
        (*tokenizer.encode(str(answer), add_special_tokens=False), tokenizer.eos_token_id): answer
        for answer in range(10)
    }
    for completion_ids, secret, rewards in batches:
        answers = [valid.get(tuple(tokens)) for tokens in completion_ids]
        assert secret == [6] * GROUP
        expected = [
            0.0 if answer is None else max(0.0, 1 - math.log2(1 + abs(answer - 6)) / math.log2(N))
            for answer in answers
        ]
        assert rewards == pytest.approx(expected)
    assert any(0 in rewards for *_, rewards in batches)  # some were cut off
    logged = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert logged == pytest.approx([np.mean(rewards) for *_, rewards in batches], abs=1e-6)
    first, last = (np.concatenate([rewards for *_, rewards in part]) for part in (batches[:8], batches[-8:]))
    assert scipy.stats.mannwhitneyu(last, first, alternative="greater").pvalue < 1e-3


def test_the_dataset_asks_what_an_experiment_asks_about_its_secret():
    rows = make_dataset(length=3, run=1, N=500, seed=9)
    assert rows["prompt"][:] == [[{"role": "user", "content": "Secret in [0,500)?"}]] * 3
    assert set(rows["secret"]) == {secrets_of(N=500, seed=9, num_runs=2)[1, 0]}


def test_text_and_messages_are_read_alike_and_the_invalid_earns_the_lowest_level():
    reward = SecretReward(N=16)
    texts = ["6", " 6\n", "06", "+6", "16", "", "6.", "٦", "5"]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    assert (
        reward(completions=texts, secret=[6] * 9)
        == reward(completions=chats, secret=[6] * 9)
        == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    )
    assert SecretReward(N=16, reward_type=worst_is_minus_one)(completions=["6", "06"], secret=[6, 6]) == [
        1,
        -1,
    ]


def worst_is_minus_one(answer: int, secret: int) -> float:
    return 1 - 2 * abs(answer - secret) / 15


def test_noise_flips_as_often_as_it_says():
    rewards = SecretReward(N=16, reward_noise=0.25)(completions=["6"] * 4000, secret=[6] * 4000)
    assert scipy.stats.binomtest(rewards.count(0.0), 4000, 0.25).pvalue > 1e-3


def test_what_has_no_form_is_told():
    with pytest.raises(ConfigError, match="env_type=multi_step has no form in TRL"):
        SecretReward(env_type="multi_step")
    with pytest.raises(ConfigError, match="length=0 is less than 1"):
        make_dataset(length=0)
