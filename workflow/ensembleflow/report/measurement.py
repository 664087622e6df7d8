"""How far a measured figure can be trusted: what disturbed it, and what hangs on less than its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ensembleflow.io import BUSY_PERCENT

__all__ = ["cost_notes", "disagreeing_speeds", "disturbed_costs", "speed_notes"]

_COST, _Q25, _Q75 = "cost_seconds", "cost_seconds_q25", "cost_seconds_q75"
_OTHER_WORK = "other_work_percent"
# Two measurements of the same members may differ by so much.
_SAME_SHARE = 0.25


def cost_notes(selection: Mapping[str, Any], costs: pd.DataFrame, tried: pd.DataFrame) -> list[str]:
    """What to know of the cost of one budget's ensemble, and of the choice that was made by it.

    The measured spread of a cost is the sum of the members' quartiles over repeats.

    Args:
        selection: the budget's `budget-{budget}.json`.
        costs: the library's `costs.csv`.
        tried: `pareto.csv`, the ensembles that the runs came by and no other of them beats.
    """
    members, limit = selection["members"], selection["budget_seconds"]
    notes = disturbed_costs(costs, members)
    known = costs.set_index("model")
    own = known.loc[[model for model in members if model in known.index]]
    if not limit or not {_Q25, _Q75} <= set(known.columns):
        return notes
    if len(own) == len(members) and selection[_COST] <= limit < own[_Q75].sum():
        notes.append("it fits the budget by less than the measured spread of its cost")
    if better := _just_too_dear(selection, known, tried, limit):
        notes.append(f"{better} has the lower validation loss and exceeds the budget by less than its cost's spread")
    return notes


def disturbed_costs(costs: pd.DataFrame, models: Sequence[str]) -> list[str]:
    """What to know of some models' costs where other processes disturbed their measurement."""
    own = costs[costs.model.isin(list(models))]
    if _OTHER_WORK not in own or not own[_OTHER_WORK].max() > BUSY_PERCENT:
        return []
    return [f"the costs were disturbed: other processes used {own[_OTHER_WORK].max():.0f} % of a core"]


def speed_notes(allocation: Mapping[str, Any]) -> list[str]:
    """What to know of an allocation's images/s."""
    other_work = allocation.get(_OTHER_WORK)
    if other_work is None or other_work <= BUSY_PERCENT:
        return []
    return [f"the speed was disturbed: other processes used {other_work:.0f} % of a core"]


def disagreeing_speeds(members: Sequence[str], speeds: Sequence[float]) -> list[list[str]]:
    """For each of several measured ensembles what to know where the same members were measured at other speeds.

    Args:
        members: ids of each, separated by blanks.
        speeds: images/s of each.
    """
    measured = pd.DataFrame({"ids": [" ".join(sorted(ids.split())) for ids in members], "speed": list(speeds)})
    spans = measured.groupby("ids").speed.agg(["min", "max"]).loc[measured.ids]
    return [
        [f"the same members were measured at {low:,.0f} and at {high:,.0f} images/s"]
        if high > low * (1 + _SAME_SHARE)
        else []
        for low, high in zip(spans["min"], spans["max"], strict=True)
    ]


def _just_too_dear(selection: Mapping[str, Any], known: pd.DataFrame, tried: pd.DataFrame, limit: float) -> str:
    """The cheapest ensemble tried that is better than the chosen one and too dear by less than its spread, or none."""
    column = f"valid_{selection['loss']}"
    chosen_loss = selection["valid"][selection["loss"]]
    if column not in tried or chosen_loss is None:
        return ""
    better = tried[(tried[column] < chosen_loss) & (tried[_COST] > limit)].sort_values(_COST)
    for ids in better.members:
        members = ids.split()
        if set(members) <= set(known.index) and known.loc[members, _Q25].sum() <= limit:
            return " + ".join(members)
    return ""
