"""A service in memory with the SDK's shapes: it samples from, scores and trains real adapters on the tiny
model, and remembers all that it was asked.

Losses are summed over tokens and data, as the hosted service does. A sampler is a snapshot, but it may only
be asked as long as its model has not moved, so that a test fails where another server would give wrong
weights.
"""

from __future__ import annotations

import copy
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import tinker
import torch

from memory_rl.policies.transformer import TransformerPolicy


class Promise:
    def __init__(self, service: FakeService, give: Any) -> None:
        self.service, self.give = service, give

    def result(self, timeout: float | None = None) -> Any:
        self.service.events.append("result")
        return self.give() if callable(self.give) else self.give


class FakeService:
    """Plays `tinker.ServiceClient` and `tinker.RestClient` at once, on the adapters of a local policy.

    Args:
        host: whose model and adapters it serves; adapter i belongs to the i-th training client.
    """

    def __init__(self, host: TransformerPolicy) -> None:
        self.host = host
        self.calls: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.events: list[str] = []
        self.data: list[tuple[str, Any, list[Any]]] = []
        self.states: dict[str, tuple[torch.Tensor, dict]] = {}
        self.deleted: list[str] = []
        self.clients: list[FakeTrainingClient] = []
        self.failures: dict[str, Exception] = {}
        self.random = torch.Generator().manual_seed(0)

    def ask(self, name: str, give: Any) -> Promise:
        self.calls[name] += 1
        self.events.append(name)
        if name in self.failures:
            error = self.failures[name]

            def give():
                raise error

        return Promise(self, give)

    def create_lora_training_client(self, **settings: Any) -> Promise:
        self.clients.append(FakeTrainingClient(self, len(self.clients)))
        self.clients[-1].settings = settings
        return self.ask("create_lora_training_client", self.clients[-1])

    def create_training_client_from_state(self, path: str) -> Promise:
        self.clients.append(
            FakeTrainingClient(self, len(self.clients) - 1)
        )  # the first client made the state, and its adapter is free
        self.clients[-1].vector.data.copy_(self.states[path][0])
        return self.ask("create_training_client_from_state", self.clients[-1])

    def create_training_client_from_state_with_optimizer(self, path: str) -> Promise:
        vector, optimiser = self.states[path]
        client = FakeTrainingClient(self, int(path.split("/")[2]))
        client.vector.data.copy_(vector)
        client.adam.load_state_dict(optimiser)
        return self.ask("create_training_client_from_state_with_optimizer", client)

    def delete_checkpoint_from_tinker_path(self, path: str) -> Promise:
        del self.states[path]
        self.deleted.append(path)
        return Promise(self, None)

    def close(self, status: str) -> Promise:
        return Promise(self, None)

    def log_probs(self, adapter: int, tokens: list[int]) -> torch.Tensor:
        """(T, V) of the next token after each of these."""
        self.host.adapters.activate(np.array([adapter]))
        return self.host.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(dim=-1)


class FakeTrainingClient:
    def __init__(self, service: FakeService, adapter: int) -> None:
        self.service, self.adapter, self.steps = service, adapter, 0
        self.vector = service.host.adapters.vectors[adapter]
        self.vector.grad = None
        self.adam = torch.optim.Adam([self.vector])

    def forward_backward(self, data: list[Any], loss_fn: str, loss_fn_config: dict | None = None) -> Promise:
        self.service.data.append((loss_fn, loss_fn_config, data))
        self.service.tokens["trained"] += sum(datum.model_input.length for datum in data)
        for datum in data:
            inputs = {
                name: torch.tensor(np.array(tensor.tolist())) for name, tensor in datum.loss_fn_inputs.items()
            }
            scores = self.service.log_probs(self.adapter, datum.model_input.to_ints())
            chosen = scores.gather(1, inputs["target_tokens"].long()[:, None])[:, 0]
            if loss_fn == "cross_entropy":
                loss = -(inputs["weights"] * chosen).sum()
            else:
                ratio, gain = (chosen - inputs["logprobs"]).exp(), inputs["advantages"]
                held = (
                    ratio.clamp(loss_fn_config["clip_low_threshold"], loss_fn_config["clip_high_threshold"])
                    if loss_fn in ("ppo", "cispo")
                    else ratio
                )
                loss = (
                    -(held.detach() * gain * chosen).sum()
                    if loss_fn == "cispo"
                    else -torch.minimum(ratio * gain, held * gain).sum()
                )
            loss.backward()
        return self.service.ask("forward_backward", None)

    def optim_step(self, params: tinker.AdamParams) -> Promise:
        self.adam.param_groups[0].update(
            lr=params.learning_rate, betas=(params.beta1, params.beta2), eps=params.eps
        )
        self.adam.step()
        self.adam.zero_grad()
        self.steps += 1
        return self.service.ask("optim_step", None)

    def save_weights_and_get_sampling_client(self) -> Promise:
        return self.service.ask("save_weights_and_get_sampling_client", FakeSampler(self))

    def save_state(self, name: str, ttl_seconds: int | None = None) -> Promise:
        path = (
            f"tinker://{self.adapter}/weights/{name}-{len(self.service.states) + len(self.service.deleted)}"
        )
        self.service.states[path] = self.vector.detach().clone(), copy.deepcopy(self.adam.state_dict())
        return self.service.ask("save_state", SimpleNamespace(path=path))


class FakeSampler:
    def __init__(self, client: FakeTrainingClient) -> None:
        self.client, self.service, self.steps = client, client.service, client.steps

    def compute_logprobs(self, prompt: tinker.ModelInput) -> Promise:
        self._count(prompt, sampled=1)
        tokens = prompt.to_ints()
        with torch.no_grad():
            scores = self.service.log_probs(self.client.adapter, tokens)
        return self.service.ask(
            "compute_logprobs",
            [None, *scores[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()],
        )

    def sample(self, prompt: tinker.ModelInput, num_samples: int, params: tinker.SamplingParams) -> Promise:
        sequences = [self._sequence(prompt.to_ints(), params) for _ in range(num_samples)]
        self._count(prompt, sampled=sum(len(sequence.tokens) for sequence in sequences))
        return self.service.ask("sample", SimpleNamespace(sequences=sequences))

    def _sequence(self, said: list[int], params: tinker.SamplingParams) -> SimpleNamespace:
        tokens, log_probs = [], []
        while len(tokens) < params.max_tokens and not (tokens and tokens[-1] in params.stop):
            with torch.no_grad():
                scores = self.service.log_probs(self.client.adapter, [*said, *tokens])[-1]
            tokens.append(int(torch.multinomial(scores.exp(), 1, generator=self.service.random)))
            log_probs.append(float(scores[tokens[-1]]))
        return SimpleNamespace(tokens=tokens, logprobs=log_probs)

    def _count(self, prompt: tinker.ModelInput, sampled: int) -> None:
        assert self.steps == self.client.steps, "an old sampler was asked"
        self.service.tokens.update(prefilled=prompt.length, sampled=sampled)
