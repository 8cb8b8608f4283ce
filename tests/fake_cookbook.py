"""A service in memory that the Tinker cookbook's own training loop can train on.

Its model gives each of some questions one of a few whole replies, with probabilities softmax(logits), and
says of each token how likely it is among the replies that begin as those before it. What it answers anything
else is always the same.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import tinker

ELSE = "4"


class Future:
    def __init__(self, value: Any) -> None:
        self._value = value

    async def result_async(self) -> Any:
        return self._value

    def __await__(self):
        return self.result_async().__await__()


class CategoricalModel:
    """Args:
    tokenizer: ends a reply with its last special token.
    questions: (M,) texts that a prompt is recognised by.
    replies: (F,) texts.
    """

    def __init__(self, tokenizer: Any, questions: list[str], replies: list[str], seed: int = 0) -> None:
        self.tokenizer, self.questions, self._end = tokenizer, questions, tokenizer.eos_token_id
        self.replies = [self._tokens(text) for text in replies]
        self.logits = np.random.default_rng(seed).normal(size=(len(questions), len(replies)))

    def _tokens(self, text: str) -> tuple[int, ...]:
        return (*self.tokenizer.encode(text, add_special_tokens=False), self._end)

    def probabilities(self, which: int) -> np.ndarray:
        odds = np.exp(self.logits[which] - self.logits[which].max())
        return odds / odds.sum()

    def question(self, tokens: list[int]) -> int | None:
        said = self.tokenizer.decode(tokens)
        return next((n for n, text in enumerate(self.questions) if text in said), None)

    def reply(self, which: int | None, random: np.random.Generator) -> tuple[int, ...]:
        if which is None:
            return self._tokens(ELSE)
        return self.replies[random.choice(len(self.replies), p=self.probabilities(which))]

    def token_log_probs(self, which: int | None, reply: tuple[int, ...]) -> list[float]:
        if which is None:
            return [-0.1] * len(reply)
        share, before, found = self.probabilities(which), 1.0, []
        for length in range(1, len(reply) + 1):
            begins = [other[:length] == reply[:length] for other in self.replies]
            now = float(share[begins].sum())
            found.append(float(np.log(now / before)) if now else -np.inf)
            before = now or np.nan
        return found

    def split(self, tokens: list[int]) -> tuple[int | None, tuple[int, ...]]:
        """The question and the reply, which begins two tokens behind the last header."""
        start = len(tokens) - tokens[::-1].index(self.tokenizer.convert_tokens_to_ids("<|end_header_id|>"))
        return self.question(tokens), tuple(tokens[start + 2 :])


class FakeCookbookService:
    """Plays `tinker.ServiceClient`, its training client and its sampling clients.

    Attributes:
        snapshots: the logits of each sampling client that was made.
        asked: what compute_logprobs was asked, as text.
        sampled: question and reply of each sample.
        failing: the numbers of the calls of compute_logprobs that fail.
    """

    def __init__(self, model: CategoricalModel, seed: int = 0) -> None:
        self.model, self._random = model, np.random.default_rng(seed)
        self.snapshots: list[np.ndarray] = []
        self.asked: list[str] = []
        self.sampled: list[tuple[int | None, str]] = []
        self.failing: range = range(0)
        self._gradient = np.zeros_like(model.logits)

    def __call__(self, **settings: Any) -> FakeCookbookService:
        return self

    async def create_lora_training_client_async(self, name: str, **settings: Any) -> FakeCookbookService:
        return self

    def create_sampling_client(self, path: str = "", model_path: str = "") -> FakeClient:
        return FakeClient(self)

    async def save_weights_and_get_sampling_client_async(self) -> FakeClient:
        return FakeClient(self)

    async def save_state_async(self, name: str, ttl_seconds: int | None = None) -> Future:
        return Future(SimpleNamespace(path=f"tinker://0/{name}"))

    save_weights_for_sampler_async = save_state_async

    async def forward_backward_async(self, data: list[Any], **settings: Any) -> Future:
        outputs = []
        for datum in data:
            inputs = {name: tensor.to_torch() for name, tensor in datum.loss_fn_inputs.items()}
            which, reply = self.model.split([*datum.model_input.to_ints(), int(inputs["target_tokens"][-1])])
            outputs.append({"logprobs": tinker.TensorData.from_torch(inputs["logprobs"])})
            if which is not None and reply in self.model.replies:
                pull = -self.model.probabilities(which)
                pull[self.model.replies.index(reply)] += 1.0
                self._gradient[which] += float(inputs["advantages"][-1]) * pull
        return Future(SimpleNamespace(loss_fn_outputs=outputs, metrics={}))

    async def optim_step_async(self, params: Any) -> Future:
        self.model.logits += params.learning_rate * self._gradient
        self._gradient[:] = 0.0
        return Future(SimpleNamespace(metrics={}))


class FakeClient:
    """A sampling client: a snapshot, which can be awaited as the SDK's can."""

    def __init__(self, service: FakeCookbookService) -> None:
        self._service, self._model = service, service.model
        service.snapshots.append(service.model.logits.copy())
        self._made = service.model.logits.copy()

    def __await__(self):
        return Future(self).__await__()

    def compute_logprobs(self, prompt: tinker.ModelInput) -> Future:
        assert np.array_equal(self._made, self._model.logits), "an old sampler was asked"
        service, tokens = self._service, prompt.to_ints()
        service.asked.append(self._model.tokenizer.decode(tokens))
        if len(service.asked) in service.failing:
            raise tinker.TinkerError("the service is out of order.")
        which, reply = self._model.split(tokens)
        before = len(tokens) - len(reply)
        return Future([None, *[-1.0] * (before - 1), *self._model.token_log_probs(which, reply)])

    async def sample_async(self, prompt: tinker.ModelInput, **settings: Any) -> Any:
        which = self._model.question(prompt.to_ints())
        reply = self._model.reply(which, self._service._random)
        self._service.sampled.append((which, self._model.tokenizer.decode(reply[:-1])))
        one = SimpleNamespace(
            tokens=list(reply),
            logprobs=self._model.token_log_probs(which, reply),
            stop_reason="stop",
        )
        return SimpleNamespace(sequences=[one])
