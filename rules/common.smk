# Requires: the config files that Snakemake was given, and its `--config`.
# Makes: CONFIG, the checked config; the paths and parameters that all rules share.
import functools
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Of the Snakefile at the root; that in workflow/ finds the package beside it.
MAIN_FOLDER = Path(workflow.basedir).resolve()
PACKAGE_PARENT = str(MAIN_FOLDER if MAIN_FOLDER.joinpath("ensembleflow").is_dir() else MAIN_FOLDER / "workflow")
if Path(PACKAGE_PARENT, "ensembleflow").is_dir():
    # Jobs find the package here too where it is not installed, as in a conda environment or on a cluster's node.
    sys.path.insert(0, PACKAGE_PARENT)
    python_path = dict(os.environ).get("PYTHONPATH", "").split(os.pathsep)
    entries = [PACKAGE_PARENT, *(entry for entry in python_path if entry not in ("", PACKAGE_PARENT))]
    os.environ.update(PYTHONPATH=os.pathsep.join(entries))
else:
    # As a module of another workflow, which is how snakedeploy deploys: the package is pip's.
    try:
        import ensembleflow
    except ModuleNotFoundError as error:
        raise WorkflowError(
            "the package ensembleflow is not installed beside Snakemake; docs/install.md, "
            "'As a module of your own workflow', has the command"
        ) from error
    PACKAGE_PARENT = str(Path(ensembleflow.__file__).resolve().parents[1])

from ensembleflow.config import STUDY_PATTERN, canonical_json, parse_config
from ensembleflow.config.files import read_values
from ensembleflow.config.paths import expansions
from ensembleflow.config.storage_url import without_passwords
from ensembleflow.errors import EnsembleflowError
from ensembleflow.io.folder import require_writable
from ensembleflow.io.snakemake_command import record_config_options, set_config_options
from ensembleflow.planning.dataset_plan import plan_dataset, recorded_source_state
from ensembleflow.planning.paper_plan import ITEMS, PaperRun, simulated_allocation
from ensembleflow.planning.search_plan import (
    earlier_jobs,
    family_inputs,
    plan_family,
    plan_job,
    require_families,
    search_jobs,
)
from ensembleflow.planning.studies import study_config
from snakemake_logger_plugin_ensembleflow.failures import FailureFilter, Resumable

try:
    # Snakemake lists the files of the command line first, but they win over the default one.
    # The files as they are written: in `config` YAML has already read 4:00:00 as 14,400, and 010 as 8.
    files = [*workflow.configfiles[-1:], *workflow.configfiles[:-1]]
    values = read_values(files, workflow.config_settings.config_args) if files else config
    CONFIG = parse_config(values, files)
    require_writable(CONFIG.results_dir)
    require_families(CONFIG.search)
    # Every job's hints name the same config.
    set_config_options(files[1:], workflow.config_settings.config_args, workflow.main_snakefile)
    if workflow.is_main_process:
        for line in expansions(values, CONFIG):
            logger.info(line)
except EnsembleflowError as error:
    raise WorkflowError(str(error)) from None

# Scripts and captions see the checked values, defaults included.
config.update(CONFIG.model_dump(mode="json"))

RESULTS = CONFIG.results_dir
STUDY = CONFIG.study
BUDGETS = CONFIG.selection.budgets
WITH_CASCADES = CONFIG.selection.cascade.max_changed is not None
# A budget's cascade, for the rules that use it where there are cascades.
CASCADE = [f"{RESULTS}/{{study}}/selection/cascade-{{budget}}.json"] if WITH_CASCADES else []
N_DEVICES = max(CONFIG.allocation.device_counts)
PAPER = PaperRun.of(CONFIG)

DATASET = f"{RESULTS}/datasets/{CONFIG.dataset.name}.h5"
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"

# Says what ended a job, and which attempts count; they are counted in the main process only.
FAILURES = FailureFilter(workflow)
if workflow.is_main_process:
    FAILURES.watch(logger)


onstart:
    # For the commands that are typed later: `ensembleflow summary` and others.
    record_config_options(RESULTS)


wildcard_constraints:
    study=STUDY_PATTERN,
    job=r"\d+",
    family=r"[A-Za-z][A-Za-z0-9_]*",
    budget=r"[A-Za-z0-9_=.,]+",
    n=r"\d+",


def dataset_source(wildcards):
    """What the images are read from, so that a change is noticed.

    Once the dataset's file tells what it was made of, `dataset_plan` notices changes, and times do not count.
    """
    if CONFIG.dataset.path is None:
        return []
    # Loaded late: each job reads this file, and few look at the images.
    from ensembleflow.datasets.source_state import is_remembered, source_inputs

    # Snakemake takes braces for wildcards, in what a function gives as well.
    paths = [path for path in map(str, source_inputs(CONFIG.dataset, DATASET)) if not {"{", "}"} & set(path)]
    return [ancient(path) for path in paths] if is_remembered(DATASET) else paths


@functools.cache  # a million files are looked at once
def dataset_plan():
    """What the dataset's file depends on: keys of the config, and what now lies at `dataset.path`."""
    if CONFIG.dataset.path is None:
        return plan_dataset(CONFIG.dataset)
    from ensembleflow.datasets.source_state import source_state

    recorded = recorded_source_state(workflow.persistence.params(rules.prepare_dataset.output.dataset))
    return plan_dataset(CONFIG.dataset, source_state(CONFIG.dataset, DATASET, recorded))


# SMOBF, and what it reads.
SMOBF_CODE = [
    *("library/predictions.py", "models/metrics.py", "models/tolerances.py", "selection/budget.py"),
    *("selection/cache_checks.py", "selection/candidates.py", "selection/costs.py", "selection/greedy.py"),
    *("selection/smobf.py", "selection/sums/check_kernels.py", "selection/sums/checks.py"),
    *("selection/sums/compiled.py", "selection/sums/evaluation.py", "selection/sums/gpu_sums.py"),
    *("selection/sums/kernels.py", "selection/sums/losses.py", "selection/sums/partition.py"),
    *("selection/sums/prediction_kernels.py", "selection/sums/stored.py"),
]
CLUSTER_CODE = ["selection/sums/cluster.py", "selection/sums/dask_workers.py"]
SELECTION_CODE = [
    *SMOBF_CODE,
    *("selection/combiners.py", "selection/ensemble_metrics.py", "selection/local_search.py", "selection/stage.py"),
]
ANSWERS_CODE = ["library/predictions.py", "models/metrics.py", "report/answers.py"]
FIGURE_CODE = ["report/drawing.py", "report/ensembleflow.mplstyle"]
PAPER_CODE = ["report/drawing.py", "report/paper/page.py", "report/paper/sources.py"]
PUBLISHED_CODE = ["report/paper/published.py", "report/paper/published.yaml"]
# What each rule's results hang on, below the package: an edit makes the rule run again, and what is made of its
# results. Rules without a row train, measure or place for hours: an edit never makes them run again, but
# `ALGORITHM_VERSION` does where it changes results. What only reads a config, keeps files or starts processes has no
# place here.
CODE = {
    "freeze_tables": ["search/record.py", "search/tables.py"],
    "account_search": ["search/accounting.py", "search/record.py"],
    "rank_models": ["library/chance.py", "library/ranking.py"],
    "fit_baseline": ["library/baseline.py"],
    "select_ensemble": [*SELECTION_CODE, *CLUSTER_CODE],
    "select_cascade": [
        *("library/predictions.py", "models/tolerances.py"),
        *("selection/cascade.py", "selection/cascade_stage.py", "selection/costs.py"),
    ],
    "collect_ensembles": [*SELECTION_CODE, "selection/pareto.py", "selection/tables.py"],
    "compare_methods": [
        *SELECTION_CODE,
        *CLUSTER_CODE,
        "selection/pareto.py",
        *("selection/rivals/certificate.py", "selection/rivals/certificate_kernels.py"),
        *("selection/rivals/comparison.py", "selection/rivals/methods.py", "selection/rivals/relaxation.py"),
    ],
    "study_pruning": [*SMOBF_CODE, "selection/arrays.py", "selection/rivals/pruning_study.py"],
    "make_bundle": [
        *("selection/cascade.py", "serving/make_bundle.py", "serving/bundle.py", "serving/bundled_allocation.py"),
        "serving/manifest.py",
    ],
    "plot_learning_curves": [*FIGURE_CODE, "report/learning_curves.py"],
    "plot_library_distribution": [*FIGURE_CODE, "report/library_distribution.py"],
    "plot_error_against_cost": [*FIGURE_CODE, "report/error_against_cost.py", "report/labels.py"],
    "plot_selection_fronts": [*FIGURE_CODE, "report/method_names.py", "report/selection_fronts.py"],
    "plot_allocation": [*FIGURE_CODE, "report/allocation.py"],
    "tabulate_budgets": [*ANSWERS_CODE, "report/budgets.py", "report/measurement.py"],
    "tabulate_mistakes": [*ANSWERS_CODE, "report/mistakes.py"],
    "make_report": [
        *ANSWERS_CODE,
        *("report/budgets.py", "report/drawing.py", "report/measurement.py", "report/method_names.py"),
        *("report/mistakes.py", "report/page/[!_]*.py", "report/page/templates/*.*"),
        *("models/tolerances.py", "search/accounting.py", "search/record.py", "search/tables.py"),
    ],
    "run_autokeras": ["report/paper/autokeras_process.py"],
    "table_1": [
        *PAPER_CODE,
        *PUBLISHED_CODE,
        *("report/paper/table_1.py", "search/simulation/limits.py", "search/simulation/recording.py"),
        *("search/simulation/rungs.py", "search/simulation/simulate.py", "search/simulation/trials.py"),
    ],
    "table_2": [*PAPER_CODE, *PUBLISHED_CODE, "report/paper/table_2.py"],
    "table_3": [*PAPER_CODE, *PUBLISHED_CODE, "report/paper/table_3.py"],
    "table_4": [*PAPER_CODE, *PUBLISHED_CODE, "report/paper/table_4.py"],
    "figure_3": [
        *PAPER_CODE,
        *SMOBF_CODE,
        *("report/ensembleflow.mplstyle", "report/paper/figure_3.py", "report/paper/whole_library.py"),
        "selection/arrays.py",
    ],
    "figure_5": [
        *PAPER_CODE,
        *("report/ensembleflow.mplstyle", "report/error_against_cost.py", "report/labels.py"),
        "report/paper/figure_5.py",
    ],
    "pruning": [*PAPER_CODE, "report/ensembleflow.mplstyle", "report/paper/pruning.py"],
    "smobf": [*PAPER_CODE, "report/paper/smobf.py"],
    "combiners": [*PAPER_CODE, "report/paper/combiners.py"],
    "claims": [*PAPER_CODE, "report/paper/claims.py", "report/paper/interval.py"],
    "numbers": ["report/paper/numbers.py"],
}


def code(row):
    """The files of one row of `CODE`, as inputs: of a rule, or of an item of the paper."""
    package = Path(PACKAGE_PARENT, "ensembleflow")
    files = {path for pattern in CODE[row] for path in package.glob(pattern)}
    # Relative, so that a project folder that moves, or is mounted elsewhere, has the same inputs as before.
    return sorted(os.path.relpath(path) for path in files)


def whole_machine(threads):
    """All cores of a local run, so that nothing else disturbs a measurement; `threads` on a cluster."""
    cores = workflow.resource_settings.cores
    return threads if workflow.remote_exec or cores is None else max(threads, cores)


def training_environment(gpus):
    """The conda environment of rules that use TensorFlow."""
    return "../envs/training-gpu.yaml" if gpus else "../envs/training.yaml"


@functools.cache  # each of a study's thousands of jobs asks
def config_of(study):
    """The config of one study of the run: its own algorithm and seed, else what all have in common."""
    try:
        return study_config(CONFIG, study)
    except EnsembleflowError as error:
        raise WorkflowError(str(error)) from None


def checked_families(study, *kinds):
    """The copies (`py`) of a study's families other than `resnet`, and what their checks found (`json`)."""
    names = config_of(study).search.own_families
    return [f"{RESULTS}/{study}/search/family/{name}.{kind}" for name in names for kind in kinds]


def study_jobs(study, pattern):
    """A file of each of a study's search jobs, by the pattern of its path below `{study}/search`."""
    jobs = range(len(search_jobs(config_of(study).search)))
    return expand(f"{RESULTS}/{study}/search/{pattern}", job=jobs)


def job_slots(wildcards):
    """Where a search job's trials are kept, and their slots."""
    study = wildcards["study"]
    return f"{RESULTS}/{study}/search", search_jobs(config_of(study).search)[int(wildcards["job"])]


def study_priority(study):
    """Higher for the earlier of the paper's studies; 0 for any other study."""
    names = [PAPER.study(algorithm, seed) for algorithm in CONFIG.paper.algorithms for seed in CONFIG.paper.seeds]
    return len(names) - names.index(study) if study in names else 0


def paper_sources(item):
    """The artefacts that an item is drawn from: all of them, or those that are there."""
    files = [path for study in PAPER.studies(item) for path in PAPER.files(item, *study)]
    if CONFIG.paper.missing_studies == "leave_out":
        files = [path for path in files if os.path.exists(path)]
    optional = [f"{RESULTS}/paper/{name}" for name in ITEMS[item].optional]
    return [*files, *(path for path in optional if os.path.exists(path))]


def allocation_block(n):
    """The allocation's config as far as the first n devices are concerned."""
    block = CONFIG.allocation.model_dump(mode="json")
    return {**block, "devices": block["devices"][:n], "device_counts": [n]}
