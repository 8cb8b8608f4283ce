"""Conversations that hosted runs have sampled: those not given out yet, and the last ones of each run.

An account is a run and one of its M prompts: the number run * M + prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from typing_extensions import override

from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.state import State, Stateful


def blank(shape: int | tuple[int, ...], length: int) -> np.ndarray:
    """Conversations with no token yet, as records.

    Fields: the `account`, the edges `path` (L,), `log_probs` (L,) as they were sampled, 0 at the padding, and
    the `exit_token` that left the trie, NONE where none did.
    """
    tokens = [("path", np.int64, (length,)), ("log_probs", np.float64, (length,))]
    records = np.zeros(shape, dtype=[("account", np.int64), *tokens, ("exit_token", np.int64)])
    records["path"] = records["exit_token"] = NONE
    return records


def demonstrations(trie: AnswerTrie, forms: np.ndarray) -> np.ndarray:
    """The conversations that give these answers, as records of the same shape."""
    records = blank(forms.shape, trie.max_edges)
    records["path"] = trie.form_edges[forms]
    return records


class Drawn(Stateful):
    """Samples, by account.

    Args:
        trie: of all valid conversations.
        num_runs: R.
        window: how many of the last samples of a run are looked at.
    """

    def __init__(self, trie: AnswerTrie, num_runs: int, window: int) -> None:
        self._trie = trie
        self._waiting = blank(0, trie.max_edges)
        self._last = blank((num_runs, window), trie.max_edges)  # the newest last, whatever the prompt

    def seen(self, run: int) -> int:
        """How many of the last samples of a run there are."""
        return len(self._known(run))

    def missing(self, counts: Mapping[int, int]) -> np.ndarray:
        """The records to be filled, so that there are so many to give out by account."""
        lacking = {account: count - len(self._of(account)) for account, count in counts.items()}
        accounts = [account for account, count in lacking.items() for _ in range(count)]
        records = blank(len(accounts), self._trie.max_edges)
        records["account"] = accounts
        return records

    def add(self, fresh: np.ndarray) -> None:
        """Takes in samples that are to be given out later."""
        self._waiting = np.concatenate([self._waiting, fresh])
        runs = fresh["account"] // self._trie.num_prompts
        for run in np.unique(runs):
            self._last[run] = np.concatenate([self._last[run], fresh[runs == run]])[-self._last.shape[1] :]

    def take(self, account: int, count: int) -> np.ndarray:
        """Gives out samples."""
        places = self._of(account)[:count]
        taken, self._waiting = self._waiting[places], np.delete(self._waiting, places)
        return taken

    def drop(self, run: int) -> None:
        """The run has moved: what it would have answered is no longer of use."""
        self._waiting = self._waiting[self._waiting["account"] // self._trie.num_prompts != run]

    def best(self, account: int) -> float:
        """The log-probability of the likeliest valid answer that waits."""
        waiting = self._waiting[self._of(account)]
        of_valid = waiting["log_probs"][~self._is_invalid(waiting["path"])].sum(axis=1)
        return float(of_valid.max(initial=-np.inf))

    def of_valid(self, run: int, forms: np.ndarray, of_forms: np.ndarray) -> np.ndarray:
        """Log of P(form) + (1 - P(form)) v: (M,).

        v is the share of valid answers among the last samples that are not the form of their prompt, or else
        1.
        """
        known = self._known(run)
        of_prompts = self._trie.form_edges[forms[known["account"] % self._trie.num_prompts]]
        others = known["path"][(known["path"] != of_prompts).any(axis=1)]
        valid = 1.0 - self._is_invalid(others).mean() if len(others) else 1.0
        probability = np.minimum(1.0, np.exp(of_forms))
        with np.errstate(divide="ignore"):
            mass = np.log(probability + (1 - probability) * valid)
        return np.where(probability + valid > 0, mass, of_forms)

    def _of(self, account: int) -> np.ndarray:
        return np.nonzero(self._waiting["account"] == account)[0]

    def _known(self, run: int) -> np.ndarray:
        last = self._last[run]
        return last[last["path"][:, 0] != NONE]

    def _is_invalid(self, paths: np.ndarray) -> np.ndarray:
        return np.asarray((self._trie.is_exit[paths] & (paths != NONE)).any(axis=1))

    @override
    def state(self) -> State:
        names = self._last.dtype.names or ()
        both = {"waiting": self._waiting, "last": self._last}
        return {which: {name: records[name] for name in names} for which, records in both.items()}

    @override
    def restore(self, state: State) -> None:
        self._waiting = blank(len(state["waiting"]["account"]), self._trie.max_edges)
        for name in state["last"]:
            self._waiting[name], self._last[name] = state["waiting"][name], state["last"][name]
