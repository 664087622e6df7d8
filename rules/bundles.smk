# Requires: a budget's ensemble and its allocation on the largest number of devices.
# Makes: {study}/bundles/budget-{budget}/, which serves without the results folder.


rule make_bundle:
    """Pack what serving one budget's ensemble needs, and check its answers against the cache."""
    input:
        ensemble=f"{RESULTS}/{{study}}/selection/budget-{{budget}}.json",
        cascade=CASCADE,
        allocation=f"{RESULTS}/{{study}}/allocation/budget-{{budget}}/devices-{N_DEVICES}.json",
        exported=f"{RESULTS}/{{study}}/library/exported",
        predictions=f"{RESULTS}/{{study}}/library/predictions.h5",
        dataset=DATASET,
        code=code("make_bundle"),
    output:
        bundle=directory(f"{RESULTS}/{{study}}/bundles/budget-{{budget}}"),
    log:
        f"{LOGS}/{{study}}/make_bundle/budget-{{budget}}.log",
    benchmark:
        f"{BENCHMARKS}/{{study}}/make_bundle/budget-{{budget}}.tsv"
    conda:
        training_environment(CONFIG.resources.allocation.gpus)
    resources:
        gpu=CONFIG.resources.allocation.gpus,
        mem_mb=CONFIG.resources.allocation.mem_mb,
        runtime=CONFIG.resources.allocation.runtime_minutes,
    script:
        "../workflow/scripts/make_bundle.py"
