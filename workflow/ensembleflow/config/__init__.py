"""The config: typed, documented key by key, refused when a key is unknown or a combination impossible."""

from ensembleflow.config.budget import PRIMARY_COST, budget_name, budget_parts
from ensembleflow.config.load import canonical_json, load_config, parse_config
from ensembleflow.config.models import (
    AllocationConfig,
    BaselineConfig,
    Config,
    CostConfig,
    DatasetConfig,
    DeviceConfig,
    LibraryConfig,
    PaperConfig,
    PredictionsConfig,
    ReportConfig,
    Schedule,
    SearchConfig,
    SelectionConfig,
    SpaceConfig,
    n_kept,
)
from ensembleflow.config.ranges import FloatRange, IntRange, Range
from ensembleflow.config.studies import study_config

__all__ = [
    "PRIMARY_COST",
    "AllocationConfig",
    "BaselineConfig",
    "Config",
    "CostConfig",
    "DatasetConfig",
    "DeviceConfig",
    "FloatRange",
    "IntRange",
    "LibraryConfig",
    "PaperConfig",
    "PredictionsConfig",
    "Range",
    "ReportConfig",
    "Schedule",
    "SearchConfig",
    "SelectionConfig",
    "SpaceConfig",
    "budget_name",
    "budget_parts",
    "canonical_json",
    "load_config",
    "n_kept",
    "parse_config",
    "study_config",
]
