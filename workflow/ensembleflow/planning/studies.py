"""Several studies in one run: each has the run's config, but for its own algorithm and seed."""

from __future__ import annotations

from pydantic import ValidationError

from ensembleflow.config import Config, StudyName
from ensembleflow.errors import ConfigError

__all__ = ["study_config"]


def study_config(config: Config, study: str) -> Config:
    """The config of one study of a run.

    All studies of a run share its dataset file: the split has a seed of its own (`dataset.split_seed`).

    Args:
        config: the run's; of its own study it is given back as it is.
        study: the study's name.

    Raises:
        ConfigError: the name is of another dataset or of no algorithm, or the algorithm does not suit the config.
    """
    if study == config.study:
        return config
    name = StudyName.parse(study)
    if name is None or name.dataset != config.dataset.name:
        raise ConfigError(
            "this is no study of this config",
            where=study,
            expected=f"{config.dataset.name}-ALGORITHM-sSEED, such as {config.study}",
            hint="another dataset needs its own config file: --configfile",
        )
    values = config.model_dump()
    values["search"]["algorithm"], values["seed"] = name.algorithm, name.seed
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        told = "; ".join(str(each["msg"]) for each in error.errors())
        raise ConfigError("a study's algorithm does not suit the config", where=study, found=told) from None
