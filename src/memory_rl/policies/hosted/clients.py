"""The training clients of R runs, their samplers and their saved states, and what is asked of them.

A request is handed over when it is made; its result is awaited later, so that all runs can be asked at once.
A sampler is made anew after each update and an old one is never asked: on the service it is a snapshot,
elsewhere it may not be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tinker

from memory_rl.policies.hosted.conversations import Conversations
from memory_rl.policies.hosted.service import FAILURES, Service, explain
from memory_rl.policies.hosted.settings import HostedSettings
from memory_rl.policies.hosted.spending import Spending
from memory_rl.seeding import torch_seed
from memory_rl.state import Stateful

Loss = tuple[str, dict[str, float] | None]
"""The service's name for a loss, and its settings."""

_SECONDS_KEPT = 30 * 24 * 3600  # of a saved state, from when it was saved


class Clients(Stateful):
    """Makes the clients of a run when they are needed: fresh, or from its saved state.

    After the R runs comes the base model: where its state is saved, the runs start from that.

    Args:
        service: where the runs live.
        conversations: in the model's tokens.
        settings: of the population.
        spending: counts what is asked.
    """

    kept = ("_saved", "_superseded", "_unnamed")

    def __init__(
        self, service: Service, conversations: Conversations, settings: HostedSettings, spending: Spending
    ) -> None:
        self._service, self._conversations, self._settings = service, conversations, settings
        self._spending, self.base = spending, settings.num_runs
        self._training: list[Any] = [None] * (self.base + 1)
        self._samplers: list[Any] = [None] * (self.base + 1)
        # Where each run's last saved state is, as long as it has not moved since.
        self._saved: list[str | None] = [None] * (self.base + 1)
        # Saved states that no run stands at: named by the last checkpoint alone; by none.
        self._superseded: list[str] = []
        self._unnamed: list[str] = []

    def start(self, runs: Sequence[int] | np.ndarray) -> None:
        """Makes the training clients of those of these runs that have none."""
        self._make(self._training, runs, self._ask_training)

    def sample_from(self, runs: Sequence[int] | np.ndarray) -> None:
        """Makes a sampler of each of these runs as it is now."""
        self.start(runs)
        request = "save_weights_and_get_sampling_client"
        self._make(self._samplers, runs, lambda run: self._spending.ask(self._training[run], request))

    def _make(self, made: list[Any], runs: Sequence[int] | np.ndarray, ask: Callable[[int], Any]) -> None:
        lacking = [int(run) for run in runs if made[run] is None]
        for run, client in zip(lacking, self.results([ask(run) for run in lacking]), strict=True):
            made[run] = client

    def results(self, promises: Sequence[Any]) -> list[Any]:
        """What was promised, in order; what it cost is then kept.

        Raises:
            ServiceError: one sentence about the first that failed, after the SDK has tried again.
        """
        try:
            return [promise.result() for promise in promises]
        except FAILURES as error:
            raise explain(error, self._settings.model_name) from error
        finally:
            self._spending.on_change()

    def ask_step(self, run: int, data: list[Any], loss: Loss, learning_rate: float) -> list[Any]:
        """One forward and backward pass and one step of Adam, after which a new sampler is needed."""
        saved, self._saved[run], self._samplers[run] = self._saved[run], None, None
        self._superseded += [] if saved is None else [saved]
        client, trained = self._training[run], sum(datum.model_input.length for datum in data)
        adam = tinker.AdamParams(learning_rate=learning_rate, beta1=0.9, beta2=0.999, eps=1e-8)
        return [
            self._spending.ask(client, "forward_backward", data, *loss, trained=trained),
            self._spending.ask(client, "optim_step", adam),
        ]

    def ask_log_prob(self, run: int, form: int, prompt: int) -> _Promise:
        """The log-probability of one answer to a prompt."""
        tokens, places = self._conversations.write(self._conversations.trie.form_edges[form], prompt=prompt)
        self._spending.count(sampled=1)  # a token that nobody wants
        said, sampler = tinker.ModelInput.from_ints(tokens), self._samplers[run]
        return _Promise(self._spending.ask(sampler, "compute_logprobs", said, prefilled=len(tokens)), places)

    def ask_replies(self, run: int, decision: int, prompt: int, count: int) -> Any:
        """So many replies to the conversation that leads to a decision."""
        before, most = (
            self._conversations.before(decision, prompt),
            self._conversations.longest_reply[decision],
        )
        wanted = tinker.SamplingParams(
            max_tokens=int(most), temperature=1.0, top_p=1.0, top_k=-1, stop=[self._conversations.end]
        )
        said, sampler = tinker.ModelInput.from_ints(list(before)), self._samplers[run]
        return self._spending.ask(sampler, "sample", said, count, wanted, prefilled=len(before))

    def save(self, names: dict[int, str]) -> None:
        """Saves the states of these runs, under these names, unless they are saved as they are now.

        States that no checkpoint will name are forgotten.
        """
        unsaved = {run: name for run, name in names.items() if self._saved[run] is None}
        saving = [
            self._spending.ask(self._training[run], "save_state", name, ttl_seconds=_SECONDS_KEPT)
            for run, name in unsaved.items()
        ]
        for run, response in zip(unsaved, self.results(saving), strict=True):
            self._saved[run] = response.path
        self._delete(self._unnamed)
        # The checkpoint before this one counts until this one is written.
        self._superseded, self._unnamed = [], self._superseded

    def close(self, completed: bool) -> None:
        """Ends the session, so that the service frees what it holds.

        Saved states are forgotten if no checkpoint is needed any more. That the
        service may be gone is no failure.
        """
        if completed:
            self._delete(
                [path for path in (*self._saved, *self._superseded, *self._unnamed) if path is not None]
            )
        with contextlib.suppress(Exception):
            self._service.session.close("success" if completed else "errored").result(timeout=10)

    def _ask_training(self, run: int) -> Any:
        settings, session, request = (
            self._settings,
            self._service.session,
            "create_training_client_from_state",
        )
        if (saved := self._saved[run]) is not None:
            return self._spending.ask(session, f"{request}_with_optimizer", saved)
        if (start := self._saved[self.base]) is not None:
            return self._spending.ask(session, request, start)
        return self._spending.ask(
            session,
            "create_lora_training_client",
            base_model=settings.model_name,
            rank=settings.rank,
            seed=torch_seed(settings.seed, "adapters", run % self.base) % 2**31,
            train_mlp=settings.targets in ("all", "mlp"),
            train_attn=settings.targets in ("all", "attention"),
            train_unembed=False,
        )

    def _delete(self, paths: Sequence[str]) -> None:
        """Asks the service to forget saved states; what it does not forget it forgets in time."""
        with contextlib.suppress(Exception):
            for promise in [self._service.rest.delete_checkpoint_from_tinker_path(path) for path in paths]:
                promise.result(timeout=10)


@dataclass(frozen=True)
class _Promise:
    """The log-probability of the tokens at these places, once it is there."""

    log_probs: Any
    places: np.ndarray

    def result(self) -> float:
        log_probs = self.log_probs.result()
        return float(sum(log_probs[place] for place in self.places))


def make_datum(
    conversations: Conversations, episode: np.void, advantages: np.ndarray, prompt: int, shown: bool
) -> Any:
    """What an episode trains, token by token; what the model did not choose has advantage 0.

    Args:
        conversations: of its trie.
        episode: a record, see `blank`.
        advantages: (L,) already divided by the number of episodes, because the service sums over data.
        prompt: that it begins with.
        shown: whether it was shown, not sampled.
    """
    tokens, places = conversations.write(episode["path"], int(episode["exit_token"]), prompt)
    columns = (
        {"weights": advantages} if shown else {"advantages": advantages, "logprobs": episode["log_probs"]}
    )
    inputs: dict[str, np.ndarray] = {"target_tokens": np.array(tokens[1:], dtype=np.int64)}
    for name, values in columns.items():
        inputs[name] = np.zeros(len(tokens) - 1, dtype=np.float32)
        inputs[name][places - 1] = values[: len(places)]  # each token predicts the next one
    return tinker.Datum(model_input=tinker.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs)
