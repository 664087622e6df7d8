"""The Optuna study behind the slots: slot i is trial number i."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

import ensembleflow
from ensembleflow.config import canonical_json
from ensembleflow.errors import SearchError
from ensembleflow.planning.search_plan import ALGORITHM_VERSION, SearchPlan
from ensembleflow.search.lease import Lease
from ensembleflow.search.optuna_internals import StoredTrial, add_trial
from ensembleflow.search.samplers import NetworkLimits, SlotSampler, make_sampler
from ensembleflow.search.storage import open_storage

__all__ = [
    "SlotSampler",
    "claim_slot",
    "make_trials",
    "open_storage",
    "open_study",
    "study_name",
    "warn_of_other_versions",
]

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger("ensembleflow.search")

# A study's attribute, and what it says in words; the version of the package may differ.
_VERSION_KEY = "ensembleflow:algorithm_version"
_IDENTITY = {
    _VERSION_KEY: "version of the search's algorithms",
    "ensembleflow:search": "search space, settings or seed",
    "ensembleflow:dataset_checksum": "dataset",
}
_PACKAGE_KEY = "ensembleflow:version"


def study_name(plan: SearchPlan, dataset_checksum: str) -> str:
    """The name in Optuna's storage: trials whose results depend on other things lie in another study."""
    name = f"{plan.study}-{plan.fingerprint(dataset_checksum)}"
    # A random search's trials do not depend on the metric, but what their study minimises does.
    of_another_metric = plan.search.algorithm == "random" and plan.search.metric != "error"
    return f"{name}-{plan.search.metric}" if of_another_metric else name


def open_study(
    storage: BaseStorage, plan: SearchPlan, dataset_checksum: str, limits: NetworkLimits | None = None
) -> optuna.Study:
    """Create the plan's study or load it, also while other processes do the same.

    Args:
        storage: of `open_storage`.
        plan: what the trials depend on.
        dataset_checksum: of the prepared dataset.
        limits: the networks that may be proposed; None is all.

    Raises:
        SearchError: the storage has a study of this name that something else made, or that was made with another
            space, dataset or version of the algorithms.
    """
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if plan.search.algorithm in ("hyperband", "bohb"):
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=plan.search.min_epochs,
            max_resource=plan.search.max_epochs,
            reduction_factor=plan.search.reduction_factor,
        )
    study = optuna.create_study(
        storage=storage,
        study_name=study_name(plan, dataset_checksum),
        sampler=make_sampler(plan, limits),
        pruner=pruner,
        direction="minimize",
        load_if_exists=True,
    )
    _check_identity(study, plan, dataset_checksum)
    return study


def warn_of_other_versions(storage: BaseStorage, plan: SearchPlan) -> None:
    """Say that trials of this study are there which another version of the search's algorithms made, if there are.

    They lie in Optuna studies of their own and are never mixed with this version's.
    """
    others = [
        each.user_attrs[_VERSION_KEY]
        for each in storage.get_all_studies()
        if each.study_name.startswith(f"{plan.study}-")
        and each.user_attrs.get(_VERSION_KEY, ALGORITHM_VERSION) != ALGORITHM_VERSION
    ]
    if others:
        logger.warning(
            "%s has trials of another version of the search's algorithms (%s; this is version %d), which gives other "
            "results: they stay where they are and are not used; all trials are trained anew",
            plan.study,
            ", ".join(map(str, sorted(set(others)))),
            ALGORITHM_VERSION,
        )


def _check_identity(study: optuna.Study, plan: SearchPlan, dataset_checksum: str) -> None:
    """Compare what the study says it was made for with the plan; a study that says nothing yet is marked."""
    search = canonical_json(plan.result_values(), seed=plan.seed)
    expected = dict(zip(_IDENTITY, (ALGORITHM_VERSION, search, dataset_checksum), strict=True))
    known = study.user_attrs
    if not known.keys() >= expected.keys():
        # Another process may be just as far. Whoever trains has marked it before, so a silent study has no trials.
        has_trials = bool(study.get_trials(deepcopy=False))
        known = study.user_attrs
        if has_trials and not known.keys() >= expected.keys():
            raise SearchError(
                "the storage has a study of this name that was not made by ensembleflow",
                where=study.study_name,
                hint="delete it (optuna delete-study) or use another storage",
            )
        for key, value in {**expected, _PACKAGE_KEY: ensembleflow.__version__}.items():
            if key not in known:
                study.set_user_attr(key, value)
        known = study.user_attrs
    for key, value in expected.items():
        if known[key] != value:
            found, wanted = _differing(known[key], value)
            raise SearchError(
                f"the storage has a study of this name that was made with another {_IDENTITY[key]}",
                where=study.study_name,
                found=f"{found} (ensembleflow {known.get(_PACKAGE_KEY, 'of an unknown version')})",
                expected=f"{wanted} (ensembleflow {ensembleflow.__version__})",
                hint="use another storage, the version that made it, or delete it (optuna delete-study)",
            )
    if study.directions != [optuna.study.StudyDirection.MINIMIZE]:
        raise SearchError(
            "the storage has a study of this name that does not minimise",
            where=study.study_name,
            hint="use another storage",
        )


def _differing(found: Any, expected: Any) -> tuple[str, str]:
    """Two attributes in words; of two JSON texts only the keys in which they differ."""
    try:
        found_keys, expected_keys = _flat(json.loads(found)), _flat(json.loads(expected))
    except (TypeError, ValueError, AttributeError):
        return str(found), str(expected)
    differing = [name for name in {**expected_keys, **found_keys} if found_keys.get(name) != expected_keys.get(name)]
    first, second = (
        ", ".join(f"{name} {json.dumps(keys[name]) if name in keys else 'unset'}" for name in differing)
        for keys in (found_keys, expected_keys)
    )
    return first, second


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def claim_slot(study: optuna.Study, slot: int, lease_dir: Path) -> optuna.Trial:
    """Take a slot's trial, which the caller must hold the lease of.

    A trial found RUNNING was left by a dead process and is resumed as it is; one found finished is returned as it is.
    """
    make_trials(study, slot + 1, lease_dir)
    frozen = study.get_trials(deepcopy=False)[slot]
    if frozen.number != slot:
        raise SearchError("the study's trials are not numbered from 0", where=study.study_name, found=frozen.number)
    stored = StoredTrial(study, frozen)
    if frozen.state == TrialState.WAITING:
        stored.claim()
    return stored.attach()


def make_trials(
    study: optuna.Study, n_trials: int, lease_dir: Path, finished: Mapping[int, FrozenTrial] | None = None
) -> None:
    """Make those of the first `n_trials` trials that the study does not have: WAITING, or as `finished` has them.

    Under a lease, so that their numbers are the slots and no two jobs can make one too many.
    """
    if len(study.get_trials(deepcopy=False)) >= n_trials:
        return
    waiting = optuna.trial.create_trial(state=TrialState.WAITING)
    with Lease(lease_dir / "new-trials.lease"):
        for slot in range(len(study.get_trials(deepcopy=False)), n_trials):
            add_trial(study, (finished or {}).get(slot, waiting))
