"""A study's family of networks: checked once, copied beside the results, and run from there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ensembleflow.config import (
    FloatRange,
    IntRange,
    Range,
    SearchConfig,
    Values,
    canonical_json,
    read_values,
    written_values,
)
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import ArtefactError, FamilyError
from ensembleflow.io import atomic_path, file_sha256, provenance, read_json, write_json
from ensembleflow.models.family_input import RANKS_OF_IMAGES, check_takes
from ensembleflow.models.hyperparameters import FamilyHyperparameters
from ensembleflow.planning.search_plan import SearchPlan
from ensembleflow.search.space import distributions, hyperparameters_of, lowest_value

__all__ = ["check_resnet_takes", "check_study_family", "checked_plan", "family_copy"]

logger = logging.getLogger("ensembleflow.search")

# Mixup is the training's, whatever changed the images before.
_AUGMENTATION = (
    *("max_zoom", "max_translation", "max_shear", "max_channel_shift", "horizontal_flips", "vertical_flips", "cutout"),
    "max_rotation_degrees",
)


def family_copy(search_dir: str | Path, name: str) -> Path:
    """The copy of a family's file that the study's jobs run; `.json` beside it has what the check found."""
    return Path(search_dir) / "family" / f"{name}.py"


def check_study_family(
    file: str | Path,
    plan_json: str,
    dataset_path: str | Path,
    output_copy: str | Path,
    output_json: str | Path,
    threads: int = 1,
) -> None:
    """Check that a family does all that is asked of it, then copy its file and write down its space.

    Args:
        file: the family's.
        plan_json: what `planning.plan_family` made.
        dataset_path: the prepared dataset, for the images' shape and the number of classes.
        output_copy: the copy to write.
        output_json: the space, the config's ranges in it, and the networks that were tried.
        threads: CPU cores to use.

    Raises:
        FamilyError: the file cannot be used, or the config names hyperparameters that it does not have.
    """
    from ensembleflow.models import configure_tensorflow, load_family
    from ensembleflow.models.family_check import check_family

    configure_tensorflow(threads, training=True)
    search = SearchConfig.model_validate_json(plan_json)
    with open_dataset(dataset_path) as data:
        image_shape, n_classes, standardisation = data.image_shape, data.n_classes, data.standardisation
    check_resnet_takes(search, image_shape)
    family = load_family(file)
    check_takes(family.name, family.input_ranks, image_shape, file)
    space = _with_config(family.space(image_shape, n_classes), search.family_space, file)
    written = {name: written_values(values) for name, values in space.items()}
    own_augmentation = family.has_augmentation or not _are_images(image_shape)
    training = _lowest(_with_families(search, {family.name: written}, own_augmentation))
    points = check_family(family, space, training, image_shape, n_classes, search.precision, standardisation)
    with atomic_path(output_copy) as aside:
        aside.write_bytes(family.source)
    write_json(
        output_json,
        {
            "family": family.name,
            "sha256": family.sha256,
            "space": written,
            "files": _checksums(space),
            "has_augmentation": family.has_augmentation,
            "image_shape": list(image_shape),
            "n_classes": n_classes,
            "networks": [asdict(point) for point in points],
            "provenance": provenance(),
        },
    )


def checked_plan(plan: SearchPlan, search_dir: str | Path) -> SearchPlan:
    """A job's plan with what the check of its families found; with `resnet` alone, as it is.

    Raises:
        ArtefactError: a check has not been made, or a file is not the one that was checked.
    """
    names = list(plan.search.own_families)
    if not names:
        return plan
    facts = {name: _checked_facts(search_dir, name, plan.search) for name in names}
    spaces = {name: each["space"] for name, each in facts.items()}
    resnet = len(names) < len(plan.search.family)
    own_augmentation = not resnet and all(
        each["has_augmentation"] or not _are_images(each["image_shape"]) for each in facts.values()
    )
    search = _with_families(plan.search, spaces, own_augmentation)
    content = {name: {"file": each["sha256"], **each["files"]} for name, each in facts.items()}
    # Where files lie does not count, what is in them does.
    told = canonical_json({name: sorted(each.values()) for name, each in content.items()})
    return replace(plan, search=search, families_sha256=hashlib.sha256(told.encode()).hexdigest())


def check_resnet_takes(search: SearchConfig, image_shape: Sequence[int]) -> None:
    """Refuse samples other than images where the study has the residual networks, which are no file that says so.

    Raises:
        FamilyError: they would get samples of another rank.
    """
    if len(search.own_families) < len(search.family):
        check_takes("resnet", RANKS_OF_IMAGES, tuple(image_shape), "search.family")


def _are_images(image_shape: Sequence[int]) -> bool:
    """Whether the augmentation that comes along is for samples of this shape."""
    return len(image_shape) in RANKS_OF_IMAGES


def _checked_facts(search_dir: str | Path, name: str, search: SearchConfig) -> dict[str, Any]:
    copy = family_copy(search_dir, name)
    facts: dict[str, Any] = read_json(
        copy.with_suffix(".json"), expected_keys=("sha256", "space", "files", "has_augmentation", "image_shape")
    )
    found = file_sha256(copy) if copy.exists() else "no file"
    if found != facts["sha256"]:
        raise ArtefactError(
            "the copy of the family is not the one that was checked",
            where=copy,
            found=found,
            expected=facts["sha256"],
            hint=f"edit {search.own_families[name]} instead, and delete this copy: the next run makes it again",
        )
    for path, sha256 in facts["files"].items():
        found = file_sha256(path) if Path(path).is_file() else "no file"
        if found != sha256:
            raise ArtefactError(
                "a file that the family reads is not the one that it was checked with",
                where=path,
                found=found,
                expected=sha256,
                hint=f"delete {copy} to have it checked again, and trained anew; or put the former file back",
            )
    return facts


def _checksums(space: Mapping[str, Values]) -> dict[str, str]:
    """The files among the choices, weights for example, which the trials' results depend on too."""
    choices = {each for values in space.values() if not isinstance(values, Range) for each in values}
    return {each: file_sha256(each) for each in sorted(map(str, choices)) if Path(each).is_file()}


def _with_families(search: SearchConfig, spaces: Mapping[str, Any], own_augmentation: bool) -> SearchConfig:
    """The search with the families' whole spaces, and without our augmentation where all have their own or none."""
    off: dict[str, Range] = {name: FloatRange(0.0, 0.0) for name in _AUGMENTATION[:-1]}
    off[_AUGMENTATION[-1]] = IntRange(0, 0)
    updated = search.space.model_copy(update=off) if own_augmentation else search.space
    family_space = dict(spaces) if len(search.family) > 1 else next(iter(spaces.values()))
    return search.model_copy(update={"family_space": family_space, "space": updated})


def _lowest(search: SearchConfig) -> FamilyHyperparameters:
    """A point of the space: the lowest of each range, the first of each choice."""
    values = {name: lowest_value(each) for name, each in distributions(search).items()}
    point = hyperparameters_of(values, search)
    assert isinstance(point, FamilyHyperparameters)
    return point


def _with_config(space: dict[str, Values], config: Mapping[str, Any], file: str | Path) -> dict[str, Values]:
    """The family's space with the config's ranges and choices in it."""
    if unknown := sorted(config.keys() - space.keys()):
        raise FamilyError(
            "the config has ranges for hyperparameters that the family does not have",
            where=f"search.family_space: {', '.join(unknown)}",
            expected=f"some of {', '.join(space) or 'none: its space is empty'}",
            hint=f"see `space` in {file}",
        )
    return {
        name: _overridden(name, values, config[name]) if name in config else values for name, values in space.items()
    }


def _overridden(name: str, values: Values, written: Any) -> Values:
    asked = read_values(written)
    if isinstance(values, FloatRange) and isinstance(asked, IntRange):
        return FloatRange(float(asked.low), float(asked.high), asked.log)
    kinds = {_kind(values), _kind(asked)}
    if len(kinds) > 1:
        raise FamilyError(
            "the config has values of another kind than the family",
            where=f"search.family_space.{name}",
            found=f"{_kind(asked)}: {written}",
            expected=f"{_kind(values)}, as in {written_values(values)}",
        )
    return asked


def _kind(values: Values) -> str:
    if isinstance(values, Range):
        return "whole numbers" if isinstance(values, IntRange) else "numbers"
    if all(type(each) is int for each in values):
        return "whole numbers"
    return {str: "texts", bool: "true and false"}.get(type(values[0]), "numbers")
