# From labelled images to a served ensemble that fits an inference budget.
#   snakemake --cores all                          everything, on this machine
#   snakemake --profile slurm                      everything, as Slurm jobs
#   snakemake --cores all --configfile my.yaml     another config (only what differs from config/config.yaml)
#   snakemake --cores all TARGET                   up to one stage: search library selection allocation bundles
#   snakemake --cores all paper --configfile config/paper.yaml   the paper's tables and figures
import os

from snakemake.settings.types import DeploymentMethod


configfile: os.path.join(workflow.basedir, "config", "config.yaml")


if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:

    # Made from envs/ensembleflow.def.
    container: os.path.join(workflow.basedir, "ensembleflow.sif")


include: "rules/workflow.smk"


localrules:
    all,


rule all:
    """Everything: each stage's results, tables, figures, and what they were made with."""
    default_target: True
    input:
        EVERYTHING,
