# Requires: {study}/selection/budget-{budget}.json, the exported models and their costs.
# Makes: {study}/allocation/budget-{budget}/devices-{n}.json and search-{n}.csv.


rule allocate_ensemble:
    """Place one ensemble's members on the first n devices and tune their batch sizes by measuring."""
    input:
        ensemble=f"{RESULTS}/{{study}}/selection/budget-{{budget}}.json",
        exported=f"{RESULTS}/{{study}}/library/exported",
        costs=f"{RESULTS}/{{study}}/library/costs.csv",
        dataset=DATASET,
    output:
        allocation=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/devices-{{n}}.json",
        search=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/search-{{n}}.csv",
    log:
        f"{LOGS}/{{study}}/allocate_ensemble/budget-{{budget}}-devices-{{n}}.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/allocate_ensemble/budget-{{budget}}-devices-{{n}}.tsv"
    conda:
        "../envs/training.yaml"
    threads: whole_machine(CONFIG.resources.allocation.threads)
    resources:
        mem_mb=CONFIG.resources.allocation.mem_mb,
        runtime=CONFIG.resources.allocation.runtime_minutes,
    params:
        allocation=lambda wildcards: canonical_json(allocation_block(int(wildcards.n))),
    script:
        "../workflow/scripts/allocate_ensemble.py"
