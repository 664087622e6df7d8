"""Section 3.3.4: majority voting, averaging and weighted averaging of the same ensembles."""

from __future__ import annotations

import pandas as pd

from ensembleflow.io import write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.paper.page import what_differs, write_page
from ensembleflow.report.paper.sources import Study, read_sources

__all__ = ["make_combiners"]

_CAPTION = """Test error in percent of SMOBF's ensembles, of each seed and budget, by what combines their members: the
average of the probabilities, their average weighted as greedy selection with replacement on the validation images
weights the members, and the majority of the members' votes. Ensembles of one member are left out: all combiners are the
same there. In the paper (section 3.3.4): of six ensembles voting is the worst each time, and averaging as good as
weighting; it prints no numbers. {differs}"""

_COMBINERS = ("average", "weighted_average", "majority_vote")
_COLUMNS = ["study", "seed", "budget", "n_members", *_COMBINERS]


def make_combiners(run: PaperRun) -> None:
    """Write `combiners.csv` (one row per study and budget; errors in percent) and its page.

    Raises:
        ArtefactError: a study's `comparison.csv` is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "combiners")
    table = pd.DataFrame([row for study in sources.studies for row in _rows(study)], columns=_COLUMNS)
    write_csv(run.output("combiners", "csv"), table)
    caption = _CAPTION.format(differs=what_differs(run, sources))
    write_page(run, sources, table, title="Section 3.3.4: combining the members", caption=caption)


def _rows(study: Study) -> list[dict[str, object]]:
    test = f"test_{study.metric}"
    columns = ["budget", "method", "combiner", "n_members", test]
    comparison = study.table("selection/comparison.csv", columns, dtype={"budget": str})
    own = comparison[comparison.method == "smobf"]
    rows: list[dict[str, object]] = []
    for budget, group in own.groupby("budget", sort=False):
        by_combiner = group.set_index("combiner")
        n_members = int(by_combiner.n_members["average"])
        if n_members > 1:
            errors = (100.0 * by_combiner[test]).to_dict()
            rows.append(
                {"study": study.name, "seed": study.seed, "budget": budget, "n_members": n_members}
                | {name: errors.get(name) for name in _COMBINERS}
            )
    return rows
