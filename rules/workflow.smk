# The workflow's rules, for the Snakefile at the root and for that in workflow/.
import os
import shlex
import sys

from snakemake.utils import min_version

min_version("9.20")


report: "../workflow/report/workflow.rst"


include: "common.smk"
include: "datasets.smk"
include: "search.smk"
include: "library.smk"
include: "selection.smk"
include: "allocation.smk"
include: "bundles.smk"
include: "targets.smk"
include: "report.smk"
include: "paper.smk"


onerror:
    # Also after Ctrl-C. The jobs themselves have said what was wrong, and up to which epoch a trial is kept.
    if workflow.is_main_process:
        typed = os.environ.get("ENSEMBLEFLOW_COMMAND") or shlex.join(["snakemake", *sys.argv[1:]])
        sys.stderr.write(f"what is finished is kept, of a trial its epochs; to go on: {typed}\n")


# What both of them make by default.
EVERYTHING = [
    rules.search.input,
    rules.library.input,
    rules.selection.input,
    rules.allocation.input,
    rules.bundles.input,
    rules.record_run.output,
    rules.plot_learning_curves.output,
    rules.plot_library_distribution.output,
    rules.plot_error_against_cost.output,
    rules.plot_selection_fronts.output,
    rules.plot_allocation.output,
    rules.tabulate_budgets.output,
    rules.tabulate_mistakes.output,
    rules.make_report.output,
]
