"""What came out of a sweep: one row per cell, in a table, results.csv and summary.json; tuning is apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeGuard

import polars as pl

from memory_rl.analysis.digits import UNKNOWN
from memory_rl.analysis.remarks import Compared
from memory_rl.catalogue import KEEP, learner_keys
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.races import Winner
from memory_rl.experiments.store import CELLS, TUNING, SweepDirectory
from memory_rl.experiments.tuning import Choice
from memory_rl.files import Json, to_csv
from memory_rl.keys import shown
from memory_rl.reporting.claims import (
    OTHERS_HEAD,
    STUCK_HEAD,
    Stuck,
    about_stuck,
    one_budget,
    over,
    stuck_of_row,
)
from memory_rl.reporting.sheets import Sheet, plain, say, show
from memory_rl.reporting.values import MEDIAN, OTHERS, RATE, STUCK, counted, measured, number, table_rows
from memory_rl.runs.store import MANIFEST

_IN_ROWS = ("N", "seed", "learning_rate")
_IN_CONDITIONS = ("signal", "env_type", "reward_type", "reward_bins", "reward_noise")

FIELDS = (
    *("id", "command", "condition", "N", "seed", "learning_rate", "status", "why"),
    *("runs", "memorised", "censored", *MEDIAN, "restricted_mean_episodes", *RATE),
    *(*STUCK, "budget", *OTHERS),
    *("capacity", "laws", "seconds"),
)
"""The columns of results.csv; after them come the keys in which the cells differ.

Episodes to memorise and bits per episode have 95 % intervals, and are empty where they lie beyond the budget.
stuck: the share of runs that did not memorise within the budget, in episodes; bits_per_episode is over all
runs up to it, bits_per_episode_of_memorised of the others alone.
laws: whether both hold, as far as they were checked.
"""


def _make_row(cell: GridCell, directory: SweepDirectory, whys: Mapping[str, str]) -> Json:
    folder = f"{CELLS}/{cell.id}"
    manifest, summary = directory.read_json(f"{folder}/{MANIFEST}") or {}, directory.summary(folder)
    row = {
        **dict.fromkeys(FIELDS),
        **cell.about,
        "status": manifest.get("status", "failed" if cell.id in whys else "not run"),
        "why": whys.get(cell.id) or manifest.get("why"),
    }
    if summary is not None:
        laws = {check["status"] for check in summary.get("checks", {}).values()}
        found = measured(summary, cell.experiment.budget)
        row |= {name: value for name, value in found.items() if name in FIELDS}
        row |= {
            "why": None,
            "laws": ", ".join(sorted(laws)) or None,
            "seconds": manifest.get("seconds"),
        }
    return row


def varying_keys(cells: Sequence[GridCell]) -> list[str]:
    """The keys, besides those that each row shows, in which cells of the same condition differ."""
    values: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        for key in cell.values.keys() - (KEEP - {"role"}).union(_IN_ROWS, _IN_CONDITIONS):
            values.setdefault((cell.experiment.condition, key), set()).add(repr(cell.values[key]))
    return sorted({key for (_, key), found in values.items() if len(found) > 1})


def keys_apart(cells: Sequence[GridCell], first: Sequence[str] = ()) -> list[str]:
    """The keys by whose values cells are told apart, beside condition and N; `first` is always named."""
    worlds = {cell.experiment.world.seed for cell in cells}
    rates = {cell.experiment.updates.learning_rate for cell in cells}
    rate, keys = ["learning_rate"] * (len(rates) > 1), [*first, *varying_keys(cells)]
    apart = {(cell.experiment.condition, *map(cell.values.get, ("N", *keys, *rate))) for cell in cells}
    seed = ["seed"] * (len(worlds) > 1 and len(apart) < len(cells))
    return list(dict.fromkeys([*keys, *seed, *rate]))


def name_of_cell(cell: GridCell, keys: Sequence[str]) -> str:
    """What a person calls a cell: its condition, N, and its values of the keys in which cells differ."""
    about = {"N": cell.about["N"], **{key: cell.values.get(key) for key in keys}}
    if "learning_rate" in keys:
        about["learning_rate"] = cell.experiment.step_size
    given = (f"{key}={shown(value)}" for key, value in about.items() if value is not None)
    return " ".join([cell.experiment.condition, *given])


def make_rows(cells: Sequence[GridCell], directory: SweepDirectory, whys: Mapping[str, str]) -> list[Json]:
    """One row per reported cell, with the keys in which they differ.

    Args:
        cells: to be reported.
        directory: of the sweep.
        whys: why cells failed that left no manifest, by id.
    """
    keys = varying_keys(cells)
    return [
        {**_make_row(cell, directory, whys), **{key: cell.values.get(key) for key in keys}} for cell in cells
    ]


def what_is_kept(directory: SweepDirectory) -> str:
    """What a sweep that was stopped says of its cells, and of those that tuned it."""
    record = directory.record()
    listed = ((CELLS, record.get("cells", [])), (TUNING, record.get("tuning_cells", [])))
    folders = (f"{folder}/{cell['id']}" for folder, cells in listed for cell in cells if cell["id"])
    complete = any(directory.summary(folder) is not None for folder in folders)
    return "complete cells are kept" if complete else "no cell was complete yet"


class SweepSummary(dict[str, Any]):
    """What a sweep measured, as in its summary.json.

    Args:
        found: its content.
        sentence: what came out.
        sheets: the tables that end the sweep in a terminal, and are its view in a notebook.
    """

    def __init__(self, found: Json, sentence: str, sheets: Sequence[Sheet]) -> None:
        super().__init__(found)
        self.sentence, self.sheets = sentence, sheets

    @property
    def frame(self) -> pl.DataFrame:
        """One row per cell, as in results.csv: its keys, and what came out with 95 % intervals."""
        return as_frame(self["cells"])

    def _repr_html_(self) -> str:
        from memory_rl.reporting.notebook import answer_html

        return answer_html(self.sentence, self.sheets)

    def __repr__(self) -> str:
        return "\n".join([self.sentence, *(plain(sheet) for sheet in self.sheets if sheet.rows)])

    def show(self) -> None:
        """Prints the sentence and the tables."""
        say(self.sentence)
        for sheet in self.sheets:
            show(sheet)


def as_frame(rows: Sequence[Json]) -> pl.DataFrame:
    """Rows as a frame."""
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def as_csv(rows: Sequence[Json]) -> bytes:
    """Rows as the content of a CSV file."""
    return to_csv(as_frame(rows)).encode()


_SPARE = ("status", "laws", "rate", "of the\nceiling", "memorised", "median\nepisodes")
"""What a narrow table leaves out; the last two only where the share that is stuck stands beside them."""


_LAWS = "Laws: whether the measurement keeps those of information theory."


def results_sheet(rows: Sequence[Json], location: str, cells: Sequence[GridCell] = ()) -> Sheet:
    """The table that ends a sweep: one row per cell, of which all keys in which cells differ are columns.

    Args:
        rows: as of `make_rows`.
        location: of the sweep.
        cells: whether they have base models, over whose runs the intervals are.
    """
    keys = ["condition", "N", *(key for key in (rows[0] if rows else {}) if key not in FIELDS)]
    keys += [key for key in ("seed", "learning_rate") if _tells_apart(rows, key, keys)]
    found = [stuck_of_row(row) for row in rows]
    at = one_budget(found)
    over_runs = over([1 for cell in cells if cell.experiment.policy.backend != "tabular"])
    columns = {
        **{key: key for key in keys},
        **({} if "learning_rate" in keys else {"rate": "learning_rate"}),
        "memorised": "of_runs",
        "median\nepisodes": MEDIAN,
        "bits per\nepisode": RATE,
        **({STUCK_HEAD: "stuck", OTHERS_HEAD: "others"} if any(one and one.some for one in found) else {}),
        "of the\nceiling": "share",
        "laws": "laws",
        "status": "status",
    }
    caption = "\n".join(
        filter(
            None,
            [
                f"In brackets: 95 %, {over_runs}. {_LAWS}",
                about_stuck(found),
                f"sweep directory: {location}",
            ],
        )
    )
    return Sheet(
        list(columns),
        table_rows((_in_words(*pair, keys, at) for pair in zip(rows, found, strict=True)), columns),
        keys=keys,
        spare=[one for one in _SPARE[: None if STUCK_HEAD in columns else 4] if one in columns],
        words=("condition", "status", "laws", *keys[2:]),
        caption=caption,
    )


def sweep_headline(rows: Sequence[Json]) -> str:
    """How many cells are complete, and between what rates they lie, in a sentence."""
    done = [row for row in rows if row["status"] == "completed"]
    said = f"{len(done)} of {counted(len(rows), 'cell')} {'is' if len(rows) == 1 else 'are'} complete"
    by_rate = sorted(
        (row for row in done if row["bits_per_episode"] is not None), key=lambda row: row["bits_per_episode"]
    )
    if not by_rate:
        return f"{said}."
    least, most = (
        f"{number(row['bits_per_episode'], 2)} bits an episode" for row in (by_rate[0], by_rate[-1])
    )
    if least == most:
        each = " each" if len(by_rate) > 1 else ""
        return f"{said}, with {least}{each}.{_of_all(by_rate)}"
    ends = f"from {least} ({_named(by_rate[0])}) to {most} ({_named(by_rate[-1])})"
    return f"{said}: {ends}.{_of_all(by_rate)}"


def _named(row: Json) -> str:
    more = (f"{key}={shown(row[key])}" for key in row if key not in FIELDS and row[key] is not None)
    stuck = stuck_of_row(row)
    aside = f"; {stuck.aside}" if stuck and stuck.some else ""
    return " ".join([row["condition"], f"N={row['N']}", *more]) + aside


def _of_all(rows: Sequence[Json]) -> str:
    """What the rates are over, and in how many cells runs are stuck, if in any."""
    stuck = sum(row["memorised"] < row["runs"] for row in rows)
    where = f"in {stuck} of {len(rows)} cells" if len(rows) > 1 else "there"
    return f" Some runs are stuck {where}: rates are over all runs up to the budget." if stuck else ""


def compared(cells: Sequence[GridCell], rows: Sequence[Json]) -> Iterator[Compared]:
    """What `memory_rl.analysis.remarks.why_alike` is told of the cells that are complete."""
    apart = KEEP.union(learner_keys())
    for cell, row in zip(cells, rows, strict=True):
        if row["memorised"] is not None and cell.values.get("algorithm"):
            task = {key: value for key, value in cell.values.items() if key not in apart}
            yield (
                json.dumps(task, sort_keys=True, default=str),
                str(cell.values["algorithm"]),
                cell.experiment.updates.optimiser,
                tuple(row[name] for name in ("memorised", *MEDIAN, *RATE)),
            )


def _tells_apart(rows: Sequence[Json], key: str, others: Sequence[str]) -> bool:
    """Whether some rows are the same in all other keys and differ in this one."""
    return len({(row[key], *map(row.get, others)) for row in rows}) > len(
        {tuple(map(row.get, others)) for row in rows}
    )


def _in_words(row: Json, stuck: Stuck | None, keys: Sequence[str], at: str | None) -> Json:
    """What of a row is not a number with an interval; its keys as they would be typed."""
    known, rate = row["memorised"] is not None, row["bits_per_episode"]
    share = rate / row["capacity"] if known and rate is not None and row["capacity"] else None
    return {
        **row,
        **{key: shown(row[key]) for key in keys if row[key] is not None},
        "of_runs": f"{row['memorised']} of {row['runs']}" if known else None,
        "stuck": stuck.in_a_column(at) if stuck else None,
        "others": stuck.others_in_a_cell if stuck else None,
        "share": None if share is None else f"{number(100 * share, 2)} %",
    }


def chosen_sheet(choices: Sequence[Choice | Winner]) -> Sheet:
    """What was chosen: of contests in rounds, or else of rates alone."""
    winners = [one for one in choices if isinstance(one, Winner)]
    return winners_sheet(winners) if winners else choices_sheet([*filter(_is_choice, choices)])


def _is_choice(one: Choice | Winner) -> TypeGuard[Choice]:
    return isinstance(one, Choice)


def winners_sheet(winners: Sequence[Winner]) -> Sheet:
    """The learner, group size and step size of each condition and N, and how it compares with the default."""
    keys = list(dict.fromkeys(key for one in winners for key in one.settings))
    headings = (
        *("condition", "N", *keys, "learner", "group", "factor", "rate", "median\nepisodes", "stuck", "runs"),
        *("default:\nmedian", "default:\nstuck", "default:\nruns", "candidates", "note"),
    )
    rows = [
        [
            *(one.condition, number(one.N), *(str(one.settings.get(key, UNKNOWN)) for key in keys)),
            *(one.learner or UNKNOWN, number(one.group_size), number(one.factor), number(one.learning_rate)),
            *_how_it_did(asdict(one)),
            *(_how_it_did(one.default) if one.default else [UNKNOWN] * 3),
            f"{one.candidates} in {counted(one.rounds, 'round')}",
            _note_of(one),
        ]
        for one in winners
    ]
    return Sheet(
        headings,
        rows,
        keys=("condition", "N", *keys),
        spare=("default:\nruns", "runs", "rate", "candidates", "default:\nstuck"),
        words=("condition", *keys, "learner", "note"),
        title="chosen on the tuning secrets and bases",
        caption="Factor: of the step size that the learner has by itself. Median: Kaplan-Meier. Stuck: runs "
        "that had not memorised when their budget was spent. Default: the candidate as the package has it, "
        "on the runs that it had.",
    )


def _how_it_did(standing: Mapping[str, Any]) -> list[str]:
    return [number(standing["median"]), f"{100 * standing['stuck']:.0f} %", number(standing["runs"])]


def _note_of(one: Winner) -> str:
    if one.stuck == 1:
        return "no candidate memorised: the least step was taken"
    if not one.decided:
        return "all candidates did the same: the least step was taken"
    widened = f", after {counted(one.widened, 'more factor')}" if one.widened else ""
    edge = f"at the edge{widened}: a better step may lie beyond" if one.at_edge else ""
    taken = f"learner from N={one.taken_from}" if one.taken_from else ""
    wider = f"widened by {counted(one.widened, 'factor')}" if one.widened and not edge else ""
    return "; ".join(filter(None, (taken, edge, wider)))


def choices_sheet(choices: Sequence[Choice]) -> Sheet:
    """The rate of each condition, and whether a better one may lie beyond the candidates."""
    keys = list(dict.fromkeys(key for choice in choices for key in choice.settings))
    default, candidates = "at the\ndefault rate", "of the\ncandidates"
    headings = ("condition", "N", *keys, "rate", "bits per\nepisode", default, candidates, "note")
    rows = []
    for choice in choices:
        found = {score.learning_rate: score.bits_per_episode for score in choice.scores}
        numbers = map(number, (choice.learning_rate, found[choice.learning_rate], found.get(choice.untuned)))
        rates = f"{number(choice.scores[0].learning_rate)} to {number(choice.scores[-1].learning_rate)}"
        apart = (str(choice.settings.get(key, UNKNOWN)) for key in keys)
        rows.append([choice.condition, number(choice.N), *apart, *numbers, rates, _note(choice)])
    return Sheet(
        headings,
        rows,
        keys=("condition", "N", *keys),
        spare=(candidates, default),
        words=("condition", *keys, "note"),
        title="learning rates, chosen on the tuning secrets",
    )


def _note(choice: Choice) -> str:
    if not choice.decided:
        return "all candidates did the same: the least was taken"
    return "at the edge: a better rate may lie beyond" if choice.at_edge else ""
