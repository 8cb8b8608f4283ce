"""Verdicts: a protocol's hypotheses judged on the cells of a study.

Of a hypothesis's two p values (see `memory_rl.analysis.hypotheses`) the smaller one, doubled because either
would have been reported, counts; those of all hypotheses are adjusted by Holm's method, and one below the
protocol's alpha is a verdict. Everything else is inconclusive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.findings import Finding
from memory_rl.analysis.hypotheses import Hypothesis
from memory_rl.analysis.protocol import Protocol
from memory_rl.analysis.samples import CannotJudgeError, Evidence, fits, gather
from memory_rl.analysis.statistics import holm

Judgement = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Verdict(Finding):
    """What the cells say about a hypothesis.

    Attributes:
        id: of the hypothesis.
        claim: in plain words.
        verdict: supported, refuted or inconclusive.
        figure: the name of the report's figure that shows the numbers.
        p_holm: the p value adjusted for all hypotheses that were judged; None if this one was not.
    """

    id: str
    claim: str
    verdict: Judgement
    figure: str
    p_holm: float | None


def judge(protocol: Protocol, cells: Iterable[Cell]) -> list[Verdict]:
    """A verdict for each hypothesis of the protocol, in its order.

    Unfinished cells and those that the protocol excludes are not used.
    """
    used = (
        cell
        for cell in cells
        if cell.completed and not any(fits(cell.settings, selection) for selection in protocol.exclusions)
    )
    evidence = Evidence(gather(used), protocol.minimum_runs)
    findings = [_find(hypothesis, evidence) for hypothesis in protocol.hypotheses]
    adjusted = iter(holm([finding.p_value for finding in findings if finding.p_value is not None]))
    return [
        _verdict(hypothesis, finding, next(adjusted) if finding.parts else None, protocol.alpha)
        for hypothesis, finding in zip(protocol.hypotheses, findings, strict=True)
    ]


def _find(hypothesis: Hypothesis, evidence: Evidence) -> Finding:
    try:
        return hypothesis.judge(evidence)
    except CannotJudgeError as error:
        return Finding(str(error))


def _verdict(hypothesis: Hypothesis, finding: Finding, p_holm: float | None, alpha: float) -> Verdict:
    judgement: Judgement = "inconclusive"
    if p_holm is not None and p_holm < alpha:
        judgement = "supported" if finding.if_false < finding.if_true else "refuted"
    return Verdict(
        id=hypothesis.id,
        claim=hypothesis.claim,
        verdict=judgement,
        figure=hypothesis.figure,
        p_holm=p_holm,
        **vars(finding),
    )
