# Requires: {study}/selection/budget-{budget}.json, the exported models, their cached predictions and costs.
# Makes: {study}/allocation/budget-{budget}/devices-{n}.json, search-{n}.csv and profile-{n}.csv.


rule allocate_ensemble:
    """Profile one ensemble's members on the first n devices, place them there, and refine that by measuring."""
    input:
        ensemble=f"{RESULTS}/{{study}}/selection/budget-{{budget}}.json",
        cascade=CASCADE,
        exported=f"{RESULTS}/{{study}}/library/exported",
        predictions=f"{RESULTS}/{{study}}/library/predictions.h5",
        # Which say the engine.
        costs=f"{RESULTS}/{{study}}/library/costs.csv",
        dataset=DATASET,
    output:
        allocation=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/devices-{{n}}.json",
        search=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/search-{{n}}.csv",
        profiles=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/profile-{{n}}.csv",
    log:
        f"{LOGS}/{{study}}/allocate_ensemble/budget-{{budget}}-devices-{{n}}.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/allocate_ensemble/budget-{{budget}}-devices-{{n}}.tsv"
    conda:
        training_environment(CONFIG.resources.allocation.gpus)
    threads: whole_machine(CONFIG.resources.allocation.threads)
    resources:
        gpu=CONFIG.resources.allocation.gpus,
        mem_mb=CONFIG.resources.allocation.mem_mb,
        runtime=CONFIG.resources.allocation.runtime_minutes,
    params:
        allocation=lambda wildcards: canonical_json(allocation_block(int(wildcards.n))),
    script:
        "../workflow/scripts/allocate_ensemble.py"
