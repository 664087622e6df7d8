"""How far a search is, in one line."""

from __future__ import annotations

import datetime

import optuna
from optuna.trial import TrialState

from ensembleflow.config.plan import model_id
from ensembleflow.search.study import count_states

__all__ = ["progress_line", "readable_duration"]


def progress_line(study: optuna.Study, metric: str, n_trials: int) -> str:
    """Trials done, stopped early and failed, the best so far, and about how long the rest takes.

    The time left is the remaining trials' number times the mean duration of a finished one, shared by the
    trials that run now and the one that this process takes next.
    """
    states = count_states(study)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    parts = [f"search {len(trials)}/{n_trials} trials"]
    if states[TrialState.PRUNED]:
        parts.append(f"{states[TrialState.PRUNED]} stopped early")
    if states[TrialState.FAIL]:
        parts.append(f"{states[TrialState.FAIL]} failed")
    # After its last epoch, as the library ranks it: a better epoch before leaves no model.
    scored = [(t.intermediate_values[max(t.intermediate_values)], t.number) for t in trials if t.intermediate_values]
    if scored:
        value, number = min(scored)
        text = f"{value:.4f}" if metric == "cross_entropy" else f"{100 * value:.2f} %"
        parts.append(f"best {metric} {text} ({model_id(number)})")
    left = _seconds_left(trials, n_trials - len(trials), 1 + states[TrialState.RUNNING])
    if left is not None:
        parts.append(f"about {readable_duration(left)} left")
    return ", ".join(parts)


def _seconds_left(finished: list[optuna.trial.FrozenTrial], n_left: int, n_running: int) -> float | None:
    durations = [trial.duration for trial in finished if trial.duration is not None]
    if not durations or n_left <= 0:
        return None
    mean = sum(durations, datetime.timedelta()) / len(durations)
    return n_left * mean.total_seconds() / n_running


def readable_duration(seconds: float) -> str:
    """Seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
