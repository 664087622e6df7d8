"""The config: typed, documented key by key, refused when a key is unknown or a combination impossible."""

from ensembleflow.config.load import canonical_json, load_config, parse_config
from ensembleflow.config.models import (
    AllocationConfig,
    Config,
    CostConfig,
    DatasetConfig,
    DeviceConfig,
    LibraryConfig,
    ReportConfig,
    SearchConfig,
    SelectionConfig,
    SpaceConfig,
    budget_name,
    n_kept,
)

__all__ = [
    "AllocationConfig",
    "Config",
    "CostConfig",
    "DatasetConfig",
    "DeviceConfig",
    "LibraryConfig",
    "ReportConfig",
    "SearchConfig",
    "SelectionConfig",
    "SpaceConfig",
    "budget_name",
    "canonical_json",
    "load_config",
    "n_kept",
    "parse_config",
]
