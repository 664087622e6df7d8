"""What `snakemake paper` makes: the items, the studies and the artefacts that each is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ensembleflow.config import (
    AllocationConfig,
    Config,
    DeviceConfig,
    LibraryConfig,
    PaperConfig,
    ReportConfig,
    SearchConfig,
    SelectionConfig,
    StudyName,
)
from ensembleflow.config.base import Block

__all__ = ["FIGURES", "ITEMS", "TABLE_1_ALGORITHMS", "WHOLE_LIBRARY", "PaperRun", "simulated_allocation"]

TABLE_1_ALGORITHMS = ("random", "hyperband", "genetic")
WHOLE_LIBRARY = "library/whole"
"""Folder of a study in which all of its models are cached and measured, not the kept ones only."""

_TRIALS, _ACCOUNTING, _ENSEMBLES = "search/trials.csv", "search/accounting.json", "selection/ensembles.csv"
_SEARCH = (_TRIALS, "search/epochs.csv", "search/runs.csv", _ACCOUNTING)
_WHOLE = tuple(f"{WHOLE_LIBRARY}/{name}" for name in ("models.csv", "costs.csv", "predictions.h5"))


class PaperRun(Block):
    """What the paper's items depend on: the config without seed, algorithm and what jobs ask for.

    `search.algorithm` is the config's own and no study's: see `studies`.
    """

    results_dir: str
    dataset: str
    search: SearchConfig
    library: LibraryConfig
    selection: SelectionConfig
    allocation: AllocationConfig
    report: ReportConfig
    paper: PaperConfig

    @classmethod
    def of(cls, config: Config) -> PaperRun:
        """The run of a config. What does not change a result, or is nobody's business, is left at its default."""
        return cls(
            results_dir=config.results_dir,
            dataset=config.dataset.name,
            search=config.search.model_copy(update={"storage": None, "algorithm": config.paper.algorithm}),
            library=config.library,
            selection=config.selection,
            allocation=config.allocation,
            report=config.report,
            paper=config.paper.model_copy(update={"missing_studies": "make", "autokeras_python": "python"}),
        )

    @property
    def metric(self) -> str:
        """What is called the error: as in the paper 1 - macro F1 where the search minimises that, else 1 - accuracy."""
        return "macro_f1_error" if self.search.metric == "macro_f1_error" else "error"

    def study(self, algorithm: str, seed: int) -> str:
        """A study's name."""
        return str(StudyName(self.dataset, algorithm, seed))

    def studies(self, item: str) -> list[tuple[str, int]]:
        """Algorithm and seed of each study that an item is drawn from."""
        algorithms, seeds = ITEMS[item].algorithms(self.paper), self.paper.seeds
        return [
            (algorithm, seed) for algorithm in algorithms for seed in (seeds if ITEMS[item].all_seeds else seeds[:1])
        ]

    def files(self, item: str, algorithm: str, seed: int) -> list[str]:
        """The artefacts of one study that an item is drawn from."""
        folder = Path(self.results_dir, self.study(algorithm, seed))
        return [str(folder / name) for name in ITEMS[item].files(self)]

    def output(self, item: str, suffix: str) -> str:
        """A file of an item, such as `results/paper/table_1.csv`."""
        return str(Path(self.results_dir, "paper", f"{item}.{suffix}"))


def simulated_allocation(config: Config, n_devices: int) -> AllocationConfig:
    """The allocation's config with simulated benches on its first device and `n_devices - 1` GPUs."""
    paper = config.paper
    gpus = [
        DeviceConfig(
            name=f"gpu{n}", cores=1, memory_mb=paper.simulated_gpu_memory_mb, gpu=n, speed=paper.simulated_gpu_speed
        )
        for n in range(n_devices - 1)
    ]
    devices = [config.allocation.devices[0], *gpus]
    changed = {"bench": "simulated", "devices": devices, "device_counts": [n_devices]}
    return config.allocation.model_copy(update=changed)


class Item:
    """One table, figure or section of the paper.

    Args:
        algorithms: of the studies that it is drawn from.
        files: of each of these studies.
        all_seeds: whether it needs every seed's study or the first one's only.
        items: other items, whose tables it takes numbers from.
        optional: files of `results/paper/` that it shows if they are there.
    """

    def __init__(
        self,
        algorithms: Callable[[PaperConfig], Sequence[str]],
        files: Callable[[PaperRun], Sequence[str]],
        *,
        all_seeds: bool = True,
        items: Sequence[str] = (),
        optional: Sequence[str] = (),
    ) -> None:
        self.algorithms, self.files, self.all_seeds, self.items = algorithms, files, all_seeds, items
        self.optional = optional


def _table_1_algorithms(paper: PaperConfig) -> list[str]:
    return [name for name in TABLE_1_ALGORITHMS if name in paper.algorithms]


def _one_algorithm(paper: PaperConfig) -> list[str]:
    return [paper.algorithm]


def _allocations(run: PaperRun) -> list[str]:
    names = [f"devices-{n}" for n in run.allocation.device_counts]
    # The first device is the CPU.
    names += [f"simulated-{1 + n}" for n in run.paper.simulated_gpus]
    return [f"allocation/budget-{budget}/{name}.json" for budget in run.paper.allocated_budgets for name in names]


ITEMS: dict[str, Item] = {
    "table_1": Item(_table_1_algorithms, lambda run: [*_SEARCH, _ENSEMBLES]),
    "table_2": Item(lambda paper: paper.algorithms, lambda run: [_TRIALS, _ACCOUNTING, _ENSEMBLES]),
    "figure_3": Item(_one_algorithm, lambda run: [*_SEARCH, "library/costs.csv", *_WHOLE]),
    "pruning": Item(_one_algorithm, lambda run: ["selection/pruning.csv"]),
    "figure_5": Item(_one_algorithm, lambda run: [_ENSEMBLES, "selection/pareto.csv"], all_seeds=False),
    "smobf": Item(_one_algorithm, lambda run: [_ENSEMBLES]),
    "combiners": Item(_one_algorithm, lambda run: ["selection/comparison.csv"]),
    "table_3": Item(_one_algorithm, _allocations, all_seeds=False),
    "table_4": Item(
        lambda paper: paper.algorithms,
        lambda run: [_TRIALS, _ACCOUNTING, _ENSEMBLES],
        items=["figure_3"],
        optional=["autokeras.json"],
    ),
    "claims": Item(
        lambda paper: paper.algorithms,
        lambda run: [_TRIALS, _ACCOUNTING, _ENSEMBLES],
        items=["figure_3", "pruning", "smobf", "combiners", "table_3"],
    ),
}
"""By name, in the paper's order. Figures 3 and 4 are one item of two data sets, and so are 5 and 6."""

FIGURES = ("figure_3", "pruning", "figure_5")
"""The items that are drawn as well."""
