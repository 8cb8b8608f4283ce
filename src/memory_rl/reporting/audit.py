"""An audit in words: what the rollouts of a run could tell, in sentences, a table and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.statistics import Estimate
from memory_rl.errors import DataError
from memory_rl.files import Json
from memory_rl.reporting.audit_words import bits, estimators_in_words, notes_on, percent, sentences_of
from memory_rl.reporting.sheets import Sheet, plain
from memory_rl.reporting.values import number
from memory_rl.rollouts.account import Account, RunAccount, account_run
from memory_rl.rollouts.groups import group_rollouts
from memory_rl.rollouts.tables import read_rollouts
from memory_rl.runs.store import MANIFEST, METRICS

if TYPE_CHECKING:
    import polars as pl

    from memory_rl.reporting.settings import AuditConfig

_SHARES = {"share": "silent", "all_right": "right", "all_wrong": "wrong", "same_in_between": "between"}


@dataclass(frozen=True, repr=False)
class Audit:
    """What the rollouts of a run could tell; `print` shows all of it.

    Attributes:
        path: of the rollouts.
        source: what wrote them.
        account: all numbers, of the run and of its stretches.
        graded: whether the reward is more than pass or fail.
        countable: whether groups can show how many levels of reward a prompt has.
        notes: a sentence on each thing that limits the numbers.
    """

    path: Path
    source: str
    account: RunAccount
    graded: bool
    countable: bool
    notes: Sequence[str]

    @property
    def sentences(self) -> list[str]:
        """The answer, what is amiss first."""
        return sentences_of(self.account, graded=self.graded, countable=self.countable)

    @property
    def delivered_bits_per_rollout(self) -> Estimate:
        """The most that a reward told, on average."""
        return self.account.whole.bits

    @property
    def silent_groups(self) -> dict[str, Estimate]:
        """Of all groups the share that is silent, and its parts: all_right, all_wrong and same_in_between."""
        return {name: getattr(self.account.whole, of) for name, of in _SHARES.items()}

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per stretch: steps, counts, and each number with its 95 % interval as _low and _high."""
        import polars as pl

        return pl.DataFrame([_columns(one) for one in self.account.stretches], infer_schema_length=None)

    def as_dict(self) -> Json:
        """The same as in audit.json."""
        run = self.account
        return {
            "path": str(self.path),
            "source": self.source,
            "group_size": run.usual_size,
            "graded": self.graded,
            "countable": self.countable,
            "sentences": self.sentences,
            "notes": [*self.notes],
            **_numbers(run.whole),
            "pass_rates": {"law": "beta", **_plain(vars(run.rates))} if run.rates else None,
            "other_group_sizes": [_plain(vars(one)) for one in run.others],
            "never_varying": _plain(vars(run.unvarying)) if run.unvarying else None,
            "stretches": [_numbers(one) for one in run.stretches],
        }

    def sheet(self) -> Sheet:
        """For the terminal, one row per stretch, and one of all."""
        rows = [_row(one) for one in (*self.account.stretches, self.account.whole)]
        rows[-1]["steps"] = "all"
        shown = [name for name in rows[0] if any(row[name] for row in rows)]
        return Sheet(
            shown,
            [[row[name] for name in shown] for row in rows],
            keys=["steps"],
            spare=[
                name
                for name in ("rollouts", "mean\nreward", "per 1,000\ntokens", "advantages\ncarry")
                if name in shown
            ],
            words=["steps"],
            caption="\n".join(self._reading()),
        )

    def _reading(self) -> Iterator[str]:
        """What the columns of the table say."""
        yield "bits a rollout: the entropy of the reward given its prompt; in brackets 95 %, over prompts."
        yield estimators_in_words(self.account.whole.estimators)
        if any(one.kl is not None for one in self.account.stretches):
            yield "KL: of the policy from its start, in nats a token, as it was logged last in the stretch."

    def __repr__(self) -> str:
        sheet = self.sheet()
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([*self.sentences, plain(sheet), sheet.caption, *notes])

    def _repr_html_(self) -> str:
        from memory_rl.reporting.notebook import answer_html

        return answer_html("\n".join(self.sentences), [self.sheet()], self.notes)


def audit_path(path: Path, config: AuditConfig) -> Audit:
    """Audits the rollouts in a folder or a file, and writes the audit where `out` says.

    Raises:
        DataError: one sentence about the rollouts.
        RunDirectoryError: if the folder for the audit holds something else, or cannot be written.
    """
    from memory_rl.reporting.audit_page import refuse_folder, write_audit

    if all((path / name).is_file() for name in (MANIFEST, METRICS)):
        raise DataError(
            f"{path} is a run directory of memory-rl, whose ledger says more than an audit: type memory-rl "
            f"report {path}."
        )
    if config.out:
        refuse_folder(Path(config.out))
    rollouts = read_rollouts(path, config.columns)
    groups = group_rollouts(rollouts, config.group_size)
    account = account_run(rollouts, groups, config.stretches)
    notes = [*rollouts.notes, *groups.notes, *notes_on(account, graded=groups.graded)]
    found = Audit(path, rollouts.source, account, groups.graded, groups.countable, notes)
    if config.out:
        write_audit(found, Path(config.out))
    return found


def _numbers(one: Account) -> Json:
    """An account for JSON."""
    return {
        "steps": [one.first_step, one.last_step],
        "rollouts": one.rollouts,
        "groups": one.groups,
        "prompts": one.prompts,
        "tokens": one.tokens,
        "mean_reward": one.reward.as_dict(),
        "delivered_bits_per_rollout": one.bits.as_dict(),
        "estimators": {**one.estimators},
        "delivered_bits_per_1000_tokens": _plain(one.bits_per_1000_tokens),
        "advantage_bits_per_rollout": _plain(one.advantage_bits),
        "silent_groups": {
            **{name: getattr(one, of).as_dict() for name, of in _SHARES.items()},
            "rollouts": one.silent_rollouts,
            "tokens": one.silent_tokens,
        },
        "kl": one.kl,
    }


def _plain(value: Any) -> Any:
    """Estimates as JSON has them, also inside a mapping."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value.as_dict() if isinstance(value, Estimate) else value


def _columns(one: Account) -> Json:
    """An account as columns of a row."""
    row: Json = {}
    for name, value in vars(one).items():
        if isinstance(value, Estimate):
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        elif name == "estimators":
            row |= {f"bits_{estimator}": bits for estimator, bits in value.items()}
        else:
            row[name] = value
    return row


def _row(one: Account) -> dict[str, str]:
    """An account as cells of the table; what is not known is empty."""
    steps = f"{one.first_step}-{one.last_step}" if one.last_step > one.first_step else str(one.first_step)
    return {
        "steps": steps,
        "rollouts": f"{one.rollouts:,}",
        "mean\nreward": number(one.reward.value),
        "bits a\nrollout": bits(one.bits),
        "per 1,000\ntokens": _number(one.bits_per_1000_tokens),
        "silent\ngroups": percent(one.silent),
        "all\nwrong": _share(one.wrong),
        "all\nright": _share(one.right),
        "same in\nbetween": _share(one.between) if one.between.value else "",
        "advantages\ncarry": _number(one.advantage_bits),
        "KL": "" if one.kl is None else number(one.kl),
    }


def _number(estimate: Estimate | None) -> str:
    """Its value, to a ten-thousandth."""
    return "" if estimate is None else number(round(estimate.value or 0.0, 4))


def _share(share: Estimate) -> str:
    return percent(Estimate(share.value))
