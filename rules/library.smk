# Requires: {study}/search/trials.csv and the jobs' models.
# Makes: {study}/library/models.csv, exported/, predictions.h5, costs.csv, baseline.json, baseline.csv.


rule rank_models:
    """Rank the models that are better than chance by the validation metric and mark the kept ones."""
    input:
        trials=f"{RESULTS}/{{study}}/search/trials.csv",
        dataset=DATASET,
        code=code("rank_models"),
    output:
        models=f"{RESULTS}/{{study}}/library/models.csv",
    log:
        f"{LOGS}/{{study}}/rank_models.log",
    conda:
        "../envs/training.yaml"
    params:
        library=canonical_json({"keep_fraction": CONFIG.library.keep_fraction, "metric": CONFIG.search.metric}),
    script:
        "../workflow/scripts/rank_models.py"


rule cache_predictions:
    """Export the kept models and cache what they predict on validation and test."""
    input:
        models=f"{RESULTS}/{{study}}/library/models.csv",
        trained=lambda wildcards: study_jobs(wildcards.study, "models/job-{job}"),
        # Which may have layers of their own.
        families=lambda wildcards: checked_families(wildcards.study, "py"),
        dataset=DATASET,
    output:
        exported=directory(f"{RESULTS}/{{study}}/library/exported"),
        predictions=f"{RESULTS}/{{study}}/library/predictions.h5",
    log:
        f"{LOGS}/{{study}}/cache_predictions.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/cache_predictions.tsv"
    conda:
        training_environment(CONFIG.resources.library.gpus)
    threads: CONFIG.resources.library.threads
    resources:
        mem_mb=CONFIG.resources.library.mem_mb,
        runtime=CONFIG.resources.library.runtime_minutes,
        gpu=CONFIG.resources.library.gpus,
    params:
        predictions=canonical_json(CONFIG.library.predictions),
    script:
        "../workflow/scripts/cache_predictions.py"


rule measure_costs:
    """Measure time, latency, memory and energy of each kept model, alone on an otherwise idle device."""
    input:
        models=f"{RESULTS}/{{study}}/library/models.csv",
        exported=f"{RESULTS}/{{study}}/library/exported",
        # Made with the exported functions, whose time counts.
        predictions=ancient(f"{RESULTS}/{{study}}/library/predictions.h5"),
        dataset=DATASET,
    output:
        costs=f"{RESULTS}/{{study}}/library/costs.csv",
    log:
        f"{LOGS}/{{study}}/measure_costs.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/measure_costs.tsv"
    conda:
        training_environment(CONFIG.resources.library.gpus)
    threads: whole_machine(CONFIG.library.cost.threads)
    resources:
        mem_mb=CONFIG.resources.library.mem_mb,
        runtime=CONFIG.resources.library.runtime_minutes,
        gpu=CONFIG.resources.library.gpus,
    params:
        cost=canonical_json(CONFIG.library.cost),
        engine=CONFIG.library.engine,
    script:
        "../workflow/scripts/measure_costs.py"


rule fit_baseline:
    """Fit a simple classifier to the same images: the floor that every ensemble is held against."""
    input:
        dataset=DATASET,
        code=code("fit_baseline"),
    output:
        baseline=f"{RESULTS}/{{study}}/library/baseline.json",
        answers=f"{RESULTS}/{{study}}/library/baseline.csv",
    log:
        f"{LOGS}/{{study}}/fit_baseline.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/fit_baseline.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=CONFIG.resources.library.mem_mb,
        runtime=CONFIG.resources.library.runtime_minutes,
    params:
        baseline=canonical_json(CONFIG.library.baseline),
    script:
        "../workflow/scripts/fit_baseline.py"
