# Requires: datasets/{dataset}.h5.
# Makes: {study}/search/trials/job-{job}.json and models/job-{job}/ (a job a few trials), trials.csv, epochs.csv, runs.csv,
# accounting.json.
# Beside them, and no outputs: study.journal (Optuna's storage) and store/ (checkpoints), which outlive any rerun.
from ensembleflow.search.attempts import n_finished_epochs, too_little_time


rule check_family:
    """Try a family of the user's own before anything is trained with it, and keep a copy of its file."""
    input:
        # The first is the family's own; others are weights that the config names.
        files=lambda wildcards: family_inputs(config_of(wildcards.study).search, wildcards.family),
        dataset=DATASET,
    output:
        file=f"{RESULTS}/{{study}}/search/family/{{family}}.py",
        facts=f"{RESULTS}/{{study}}/search/family/{{family}}.json",
    log:
        f"{LOGS}/{{study}}/check_family/{{family}}.log",
    conda:
        "../envs/training.yaml"
    threads: CONFIG.resources.library.threads
    resources:
        mem_mb=CONFIG.resources.library.mem_mb,
        runtime=CONFIG.resources.library.runtime_minutes,
    params:
        plan=lambda wildcards: plan_family(config_of(wildcards.study), wildcards.family),
    script:
        "../workflow/scripts/check_family.py"


rule train_trials:
    """Train the trials of one job's slots, resuming those that a killed job left."""
    input:
        dataset=DATASET,
        families=lambda wildcards: checked_families(wildcards.study, "py", "json"),
        # Only an algorithm with generations has any.
        earlier=lambda wildcards: expand(
            f"{RESULTS}/{wildcards.study}/search/trials/job-{{job}}.json",
            job=earlier_jobs(config_of(wildcards.study).search, int(wildcards.job)),
        ),
    output:
        trials=f"{RESULTS}/{{study}}/search/trials/job-{{job}}.json",
        models=directory(f"{RESULTS}/{{study}}/search/models/job-{{job}}"),
    log:
        f"{LOGS}/{{study}}/train_trials/job-{{job}}.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/train_trials/job-{{job}}.tsv"
    # In the order of the slots, so that a run on one core is the same each time; a study after the other, so that each
    # has the machine to itself, and its time can be told.
    priority: lambda wildcards: study_priority(wildcards.study) + 1 / (1 + int(wildcards.job))
    # Attempts in a row that finish no epoch: see FAILURES below. Not in the two Snakemakes that wrap a cluster job:
    # each would try again by itself, in a job told to stop.
    retries: 0 if workflow.remote_exec else CONFIG.resources.search.retries
    conda:
        training_environment(CONFIG.resources.search.gpus)
    threads: CONFIG.resources.search.threads
    resources:
        mem_mb=CONFIG.resources.search.mem_mb,
        runtime=CONFIG.resources.search.runtime_minutes,
        gpu=CONFIG.resources.search.gpus,
        attempt=lambda wildcards, attempt: attempt,
    params:
        plan=lambda wildcards: plan_job(config_of(wildcards.study), int(wildcards.job)),
    script:
        "../workflow/scripts/train_trials.py"


FAILURES.resume(
    "train_trials",
    Resumable(
        progress=lambda wildcards: n_finished_epochs(*job_slots(wildcards)),
        unit="epoch",
        too_little_time=lambda wildcards, limit_minutes: too_little_time(*job_slots(wildcards), limit_minutes),
    ),
)


rule freeze_tables:
    """Gather the jobs' trials into one table of trials and one of epochs."""
    input:
        jobs=lambda wildcards: study_jobs(wildcards.study, "trials/job-{job}.json"),
        # Not the training's modules: see ALGORITHM_VERSION.
        code=code("freeze_tables"),
    output:
        trials=f"{RESULTS}/{{study}}/search/trials.csv",
        epochs=f"{RESULTS}/{{study}}/search/epochs.csv",
        runs=f"{RESULTS}/{{study}}/search/runs.csv",
    log:
        f"{LOGS}/{{study}}/freeze_tables.log",
    conda:
        "../envs/training.yaml"
    script:
        "../workflow/scripts/freeze_tables.py"


rule account_search:
    """Say where the search's time went: duration, occupancy of each device, idle tail, brackets, lost work."""
    input:
        trials=f"{RESULTS}/{{study}}/search/trials.csv",
        epochs=f"{RESULTS}/{{study}}/search/epochs.csv",
        runs=f"{RESULTS}/{{study}}/search/runs.csv",
        code=code("account_search"),
    output:
        accounting=f"{RESULTS}/{{study}}/search/accounting.json",
    log:
        f"{LOGS}/{{study}}/account_search.log",
    conda:
        "../envs/training.yaml"
    params:
        search=canonical_json({"max_epochs": CONFIG.search.max_epochs}),
    script:
        "../workflow/scripts/account_search.py"
