"""Side 3: TRL's GRPOTrainer, set up to do what the engine does."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from problem import Problem, StopWatch, Trace
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import GRPOConfig, GRPOTrainer

transformers.logging.set_verbosity_error()


class SkipSilent(TrainerCallback):
    """Makes no step without a gradient: Adam leaves weights alone that have none."""

    def on_pre_optimizer_step(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer,
        **_: Any,
    ) -> None:
        """Called when the gradients are there."""
        if not any(
            weight.grad.any()
            for group in optimizer.param_groups
            for weight in group["params"]
            if weight.grad is not None
        ):
            optimizer.zero_grad(set_to_none=True)


def run_trl(problem: Problem, seed: int, skip_silent: bool = False) -> Trace:
    """One run, until P(S) reaches the experiment's `stop_at` or the budget is spent.

    The time includes neither P(S) nor the trainer's set-up.

    Args:
        problem: of one step an episode.
        seed: of everything random.
        skip_silent: make no optimiser step after a group without a signal, as the engine does. By itself the
            trainer makes one, in which Adam's momentum moves the weights on.
    """
    experiment, secret = problem.configured(seed), problem.secret(seed)
    updates = experiment.budget // experiment.group_size
    watch, trace = StopWatch(), Trace()

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        choices = np.array([[problem.read(reply)] for reply in completion_ids])
        return problem.rewards(choices, secret)[:, 0].tolist()

    class Measure(TrainerCallback):
        """Starts the watch once the trainer is set up, and takes P(S) after each update."""

        def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            watch.start()

        def on_step_end(
            self, args: Any, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
        ) -> None:
            with watch.paused():
                p_secret = problem.p_secret(model, secret)
            trace.add(state.global_step * experiment.group_size, p_secret, *watch.now())
            control.should_training_stop = p_secret >= experiment.stop.stop_at or state.global_step == updates

    prompt = [{"role": "user", "content": problem.environment.prompt(0)}]
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=problem.base_model(),
            reward_funcs=reward,
            args=settings(problem, seed, updates, folder),
            train_dataset=Dataset.from_list([{"prompt": prompt}] * updates),
            processing_class=problem.tokenizer,
            peft_config=problem.lora(),
            callbacks=[Measure(), *([SkipSilent()] if skip_silent else [])],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        tokens = trainer._tokenize_prompts([prompt])[0]
        assert tokens == [problem.trie.prompt.tolist()]  # noqa: S101  # the very tokens of the engine
        trainer.train()
    trace.measuring = watch.paused_wall
    return trace


def settings(problem: Problem, seed: int, updates: int, folder: str) -> GRPOConfig:
    """Plain policy gradient with a group-mean baseline.

    It is on-policy, so that ratios are 1 and nothing is clipped.
    """
    experiment = problem.experiment
    return GRPOConfig(
        output_dir=folder,
        seed=seed,
        use_cpu=True,
        bf16=False,
        max_steps=updates,
        # the group
        num_generations=experiment.group_size,
        per_device_train_batch_size=experiment.group_size,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_iterations=1,
        # sampling from the model's own distribution
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_completion_length=problem.max_new_tokens,
        mask_truncated_completions=False,
        # the loss: a sum over tokens divided by a constant (group size x max_completion_length), which Adam
        # does not see
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=0.0,
        # the optimiser: AdamW without decay is Adam
        learning_rate=experiment.step_size,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=0.0,
        # nothing else
        gradient_checkpointing=False,
        pad_to_multiple_of=None,
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
