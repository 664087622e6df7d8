# From labelled images to a served ensemble that fits an inference budget.
#   snakemake --cores all                          everything, on this machine
#   snakemake --profile slurm                      everything, as Slurm jobs
#   snakemake --cores all --configfile my.yaml     another config (only what differs from config/config.yaml)
#   snakemake --cores all TARGET                   up to one stage: search library selection allocation bundles
#   snakemake --cores all paper --configfile config/paper.yaml   the paper's tables and figures
import os
import shlex
import sys

from snakemake.settings.types import DeploymentMethod
from snakemake.utils import min_version

min_version("9.20")


configfile: os.path.join(workflow.basedir, "config", "config.yaml")


if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:

    # Made from envs/ensembleflow.def.
    container: os.path.join(workflow.basedir, "ensembleflow.sif")


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/datasets.smk"
include: "rules/search.smk"
include: "rules/library.smk"
include: "rules/selection.smk"
include: "rules/allocation.smk"
include: "rules/bundles.smk"
include: "rules/targets.smk"
include: "rules/report.smk"
include: "rules/paper.smk"


localrules:
    all,


onerror:
    # Also after Ctrl-C. The jobs themselves have said what was wrong, and up to which epoch a trial is kept.
    if workflow.is_main_process:
        typed = os.environ.get("ENSEMBLEFLOW_COMMAND") or shlex.join(["snakemake", *sys.argv[1:]])
        sys.stderr.write(f"what is finished is kept, of a trial its epochs; to go on: {typed}\n")


rule all:
    """Everything: each stage's results, tables, figures, and what they were made with."""
    default_target: True
    input:
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
