"""A run of TRL's stock GRPOTrainer on a small task of several prompts, which docs/audit.md audits.

    python benchmarks/trl_rollouts.py FOLDER [STEPS]

The model is the built-in tiny Llama, untrained, which writes any of 77 characters. It is asked for a letter,
a vowel, an even digit and so on; prompts differ in how likely a random character is right, and one asks for
what there is not: a mistake of the kind that real data sets have.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from memory_rl.policies import tiny_model

TASKS = {
    "a letter": string.ascii_letters,
    "a small letter": string.ascii_lowercase,
    "a capital": string.ascii_uppercase,
    "a letter from a to m": string.ascii_letters[:13],
    "a digit": string.digits,
    "a vowel": "aeiouAEIOU",
    "a sign": " ?[],().:-+",
    "a bracket": "[]()",
    "an even digit": "02468",
    "a digit above 6": "789",
    "the letter x": "x",
    "a digit above 9": "",
}
"""What is asked for, and the characters that are right."""

GROUP, GROUPS_A_STEP, STEPS = 8, 6, 60


def train(folder: Path, steps: int = STEPS, **more: Any) -> None:
    """Trains, and leaves in a folder what TRL leaves with log_completions=True; `more` is for the trainer."""
    transformers.logging.set_verbosity_error()
    base = folder / "base"  # on disk, from where the trainer reads it again as what KL is taken to
    tiny_model.make_model(0).save_pretrained(base)
    prompts = [{"prompt": [{"role": "user", "content": f"Type {task}:"}]} for task in TASKS]
    trainer = GRPOTrainer(
        model=str(base),
        reward_funcs=right,
        args=_settings(folder, steps, **more),
        train_dataset=Dataset.from_list(prompts),
        processing_class=tiny_model.make_tokenizer(),
    )
    trainer.train()
    trainer.save_state()  # as every checkpoint of the trainer has it


def right(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    """1 if the first character is one of those that were asked for."""
    asked = [prompt[0]["content"].removeprefix("Type ").removesuffix(":") for prompt in prompts]
    given = [completion[0]["content"][:1] for completion in completions]
    return [float(bool(one) and one in TASKS[task]) for task, one in zip(asked, given, strict=True)]


def _settings(folder: Path, steps: int, **more: Any) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(folder),
        seed=0,
        use_cpu=True,
        bf16=False,
        max_steps=steps,
        num_generations=GROUP,
        per_device_train_batch_size=GROUP * GROUPS_A_STEP,
        gradient_accumulation_steps=1,
        max_completion_length=4,
        beta=0.01,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        log_completions=True,
        num_completions_to_print=0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )


if __name__ == "__main__":
    train(Path(sys.argv[1]), *map(int, sys.argv[2:]))
