"""How likely a sampling client is to give certain answers, asked through compute_logprobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import tinker
from tinker_cookbook import renderers

from memory_rl.errors import ModelError
from memory_rl.integrations.tinker_cookbook import as_messages
from memory_rl.integrations.worlds import AskedWorld
from memory_rl.policies.base import Assessment, assess_all

Spoken = tuple[int, tuple[int, ...]]
"""Which secret a conversation is about, and its choices up to the one that is scored."""


class Script:
    """The conversations about the secrets, as a renderer writes them.

    Args:
        world: what is asked.
        renderer: writes messages as tokens.
        secrets: (M,).
        every_answer: whether all answers are scored; else only the secrets are, and of_valid and of_best are
            NaN.

    Raises:
        ModelError: if the renderer does not read an answer as it writes it.
    """

    def __init__(
        self, world: AskedWorld, renderer: renderers.Renderer, secrets: np.ndarray, *, every_answer: bool
    ) -> None:
        self._world, self._renderer, self._secrets = world, renderer, secrets
        self._every_answer, spelled = every_answer, world.environment.choices
        answers = range(world.environment.num_forms)
        self._asked: list[list[list[Spoken]]] = [  # of each secret, of each answer, its turns
            [
                [(which, tuple(said[: step + 1])) for step in range(len(said))]
                for said in spelled(np.array(answers if every_answer else [secret])).tolist()
            ]
            for which, secret in enumerate(secrets.tolist())
        ]
        turns = {turn for of_secret in self._asked for of_answer in of_secret for turn in of_answer}
        self._written = {turn: self._write(turn) for turn in sorted(turns)}

    def _write(self, turn: Spoken) -> tuple[list[int], list[int]]:
        """The tokens up to where the last reply begins, and those of the reply with its end."""
        which, (*said, choice) = turn
        asked = as_messages(self._world.messages([*map(str, said)], which))
        prompt = self._renderer.build_generation_prompt(asked).to_ints()
        answered = renderers.Message(role="assistant", content=str(choice))
        example, weights = self._renderer.build_supervised_example([*asked, answered])
        whole = example.to_ints()[: 1 + int(weights.nonzero().max())]
        message, ending = self._renderer.parse_response(whole[len(prompt) :])
        read = self._world.environment.parse(renderers.get_text_content(message))
        if whole[: len(prompt)] != prompt or not ending.is_clean or read != choice:
            raise ModelError(
                f"{type(self._renderer).__name__} does not read the answer {choice} as it writes it: use "
                "another renderer_name, or a model whose vocabulary has the ten digits."
            )
        return prompt, whole[len(prompt) :]

    async def assess(self, client: tinker.SamplingClient) -> Assessment:
        """What the policy makes of its secrets, in nats: (1, M).

        All is asked at once, and what answers share is asked once.
        """
        scored = await asyncio.gather(*(_score(client, *tokens) for tokens in self._written.values()))
        found = dict(zip(self._written, scored, strict=True))
        log_probs = np.array(
            [[sum(map(found.__getitem__, turns)) for turns in of_secret] for of_secret in self._asked]
        )
        if self._every_answer:
            return assess_all(log_probs[None], self._secrets[None])
        unknown = np.full((1, len(self._secrets)), np.nan)
        return Assessment(log_probs.T, unknown, unknown)


async def _score(client: tinker.SamplingClient, prompt: Sequence[int], reply: Sequence[int]) -> float:
    """The log-probability in nats of a reply behind its prompt."""
    log_probs = await client.compute_logprobs(tinker.ModelInput.from_ints([*prompt, *reply]))
    return float(np.array(log_probs[-len(reply) :], dtype=np.float64).sum())  # None is NaN
