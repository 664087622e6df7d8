"""The config: typed, documented key by key, refused when a key is unknown or a combination impossible."""

from ensembleflow.config.allocation import (
    MEASURED,
    SIMULATED,
    AllocationConfig,
    DeviceConfig,
    Engine,
    is_simulated,
)
from ensembleflow.config.budget import PRIMARY_COST, budget_name, budget_parts
from ensembleflow.config.dataset import DatasetConfig, Samples
from ensembleflow.config.library import FASTEST, BaselineConfig, CostConfig, LibraryConfig, PredictionsConfig, n_kept
from ensembleflow.config.load import canonical_json, load_config, parse_config
from ensembleflow.config.models import Config
from ensembleflow.config.paper import PaperConfig
from ensembleflow.config.ranges import FloatRange, IntRange, Range, Values, read_values, written_values
from ensembleflow.config.report import ReportConfig
from ensembleflow.config.search import (
    BUNDLED_FAMILIES,
    Schedule,
    SearchConfig,
    SearchLimits,
    SpaceConfig,
    family_name,
)
from ensembleflow.config.selection import CascadeConfig, SelectionConfig
from ensembleflow.config.study_name import STUDY_PATTERN, StudyName

__all__ = [
    "BUNDLED_FAMILIES",
    "FASTEST",
    "MEASURED",
    "PRIMARY_COST",
    "SIMULATED",
    "STUDY_PATTERN",
    "AllocationConfig",
    "BaselineConfig",
    "CascadeConfig",
    "Config",
    "CostConfig",
    "DatasetConfig",
    "DeviceConfig",
    "Engine",
    "FloatRange",
    "IntRange",
    "LibraryConfig",
    "PaperConfig",
    "PredictionsConfig",
    "Range",
    "ReportConfig",
    "Samples",
    "Schedule",
    "SearchConfig",
    "SearchLimits",
    "SelectionConfig",
    "SpaceConfig",
    "StudyName",
    "Values",
    "budget_name",
    "budget_parts",
    "canonical_json",
    "family_name",
    "is_simulated",
    "load_config",
    "n_kept",
    "parse_config",
    "read_values",
    "written_values",
]
