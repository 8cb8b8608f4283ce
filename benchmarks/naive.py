"""Side 2: the loop that one writes by hand with Hugging Face transformers and PEFT.

Generate, parse, reward, forward, backward, step.
"""

from __future__ import annotations

import numpy as np
import peft
import torch
from problem import Problem, StopWatch, Trace
from transformers import GenerationConfig

from memory_rl.task import INVALID


def run_naive(problem: Problem, seed: int) -> Trace:
    """One run, until P(S) reaches the experiment's `stop_at` or the budget is spent.

    The time does not include P(S).
    """
    torch.manual_seed(seed)
    experiment, secret = problem.configured(seed), problem.secret(seed)
    model = peft.get_peft_model(problem.base_model(), problem.lora()).eval()
    optimiser = torch.optim.Adam(
        [weight for weight in model.parameters() if weight.requires_grad], lr=experiment.step_size
    )
    watch, trace = StopWatch(), Trace()
    watch.start()
    size = experiment.group_size
    for episodes in range(size, experiment.budget + 1, size):
        tokens, step_of_token, choices = sample(problem, model, size)
        rewards = problem.rewards(choices, secret)  # (G, K)
        advantages = rewards - rewards.mean(axis=0)
        if advantages.any():  # as in the engine, a group without a signal makes no step
            update(model, optimiser, tokens, step_of_token, torch.from_numpy(advantages).float())
        with watch.paused():
            p_secret = problem.p_secret(model, secret)
        trace.add(episodes, p_secret, *watch.now())
        if p_secret >= experiment.stop.stop_at:
            break
    trace.measuring = watch.paused_wall
    return trace


def sample(
    problem: Problem, model: torch.nn.Module, size: int
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Plays a group of episodes, one `generate` call a turn, each on the whole conversation so far.

    Returns:
        tokens (G, T), padded; step_of_token (G, T), the step whose reply a token belongs to, -1 for all other
        tokens; choices (G, K).
    """
    pad, end = problem.tokenizer.pad_token_id, problem.tokenizer.eos_token_id
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=problem.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=end,
    )
    tokens: list[list[int]] = [[] for _ in range(size)]
    steps: list[list[int]] = [[] for _ in range(size)]
    choices = np.full((size, problem.environment.num_steps), INVALID)
    playing = list(range(size))  # an invalid reply ends the episode
    for step, (forced, _) in enumerate(problem.turns(0)):
        for episode in playing:
            tokens[episode] += forced
            steps[episode] += [-1] * len(forced)
        prompts = torch.tensor(
            [tokens[episode] for episode in playing]
        )  # of one length: valid replies of multi_step are
        with torch.no_grad():
            written = model.generate(
                input_ids=prompts, attention_mask=torch.ones_like(prompts), generation_config=settings
            )[:, prompts.shape[1] :].tolist()
        for episode, reply in zip(playing, written, strict=True):
            choices[episode, step] = problem.read(reply)
            reply = reply[: reply.index(end) + 1] if end in reply else reply
            tokens[episode] += reply
            steps[episode] += [step] * len(reply)
        playing = [episode for episode in playing if choices[episode, step] != INVALID]
        if not playing:
            break
    width = max(map(len, tokens))
    padded = torch.tensor([row + [pad] * (width - len(row)) for row in tokens])
    return padded, torch.tensor([row + [-1] * (width - len(row)) for row in steps]), choices


def update(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    tokens: torch.Tensor,
    step_of_token: torch.Tensor,
    advantages: torch.Tensor,
) -> None:
    """One policy-gradient step: the sum over the tokens of an episode, the mean over episodes.

    Advantages (G, K) are those of a token's own step.
    """
    log_probs = (
        model(input_ids=tokens[:, :-1], use_cache=False)
        .logits.log_softmax(dim=2)
        .gather(2, tokens[:, 1:, None])[:, :, 0]
    )  # padding is on the right
    steps = step_of_token[:, 1:]
    weights = torch.where(steps >= 0, advantages.gather(1, steps.clamp(min=0)), 0.0)
    optimiser.zero_grad(set_to_none=True)
    (-(weights * log_probs).sum(dim=1).mean()).backward()
    optimiser.step()
