# Requires: `config`, merged by Snakemake.
# Makes: CONFIG, the checked config; the paths and parameters that all rules share.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Jobs find the package here too where it is not installed, as in a conda environment or on a cluster's node.
PACKAGE_PARENT = str(Path(workflow.basedir).resolve().joinpath("workflow"))
sys.path.insert(0, PACKAGE_PARENT)
os.environ["PYTHONPATH"] = os.pathsep.join(
    [PACKAGE_PARENT]
    + [
        entry
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if entry and entry != PACKAGE_PARENT
    ]
)

from ensembleflow.config import canonical_json, parse_config
from ensembleflow.config.plan import job_slots, n_jobs, plan_job
from ensembleflow.errors import EnsembleflowError
from ensembleflow.io.folder import require_writable

try:
    # Snakemake lists the files of the command line first, but they win over the default one.
    CONFIG = parse_config(config, [*workflow.configfiles[-1:], *workflow.configfiles[:-1]])
    require_writable(CONFIG.results_dir)
except EnsembleflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS = CONFIG.results_dir
STUDY = CONFIG.study
JOBS = list(range(n_jobs(CONFIG.search.n_trials, CONFIG.search.trials_per_job)))
BUDGETS = CONFIG.selection.budgets
N_DEVICES = max(CONFIG.allocation.device_counts)

DATASET = f"{RESULTS}/datasets/{CONFIG.dataset.name}.h5"
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"


wildcard_constraints:
    study=r"[A-Za-z0-9_]+-[a-z]+-s\d+",
    job=r"\d+",
    budget=r"\d+(\.\d+)?x?",
    n=r"\d+",


def stage_code(folder):
    """A stage's own modules, as inputs of its cheap rules: editing one makes them run again."""
    return sorted(str(path) for path in Path(PACKAGE_PARENT, "ensembleflow", folder).glob("*.py"))


def whole_machine(threads):
    """All cores of a local run, so that nothing else disturbs a measurement; `threads` on a cluster."""
    return max(threads, workflow.cores or 1)
