"""The report: the page, the figures, the table of budgets and the summary, drawn from the other stages' artefacts."""

import logging
from typing import TYPE_CHECKING

from ensembleflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from ensembleflow.report.allocation import plot_allocation
    from ensembleflow.report.budgets import tabulate_budgets
    from ensembleflow.report.error_against_cost import plot_error_against_cost
    from ensembleflow.report.learning_curves import plot_learning_curves
    from ensembleflow.report.library_distribution import plot_library_distribution
    from ensembleflow.report.mistakes import tabulate_mistakes
    from ensembleflow.report.page.render import make_report
    from ensembleflow.report.selection_fronts import plot_selection_fronts

__all__ = [
    "make_report",
    "plot_allocation",
    "plot_error_against_cost",
    "plot_learning_curves",
    "plot_library_distribution",
    "plot_selection_fronts",
    "tabulate_budgets",
    "tabulate_mistakes",
]

# Without a home to write into Matplotlib draws the same, and says so each time.
_OF_NO_HOME = ("mkdir -p failed for path", "%s is not a writable directory", "Matplotlib created a temporary")
logging.getLogger("matplotlib").addFilter(lambda record: not str(record.msg).startswith(_OF_NO_HOME))


# `ensembleflow summary` draws nothing, and matplotlib is slow to import.
__getattr__ = lazy_names(
    __name__,
    {
        **{name: name.removeprefix("plot_").removeprefix("tabulate_") for name in __all__},
        "make_report": "page.render",
    },
)
