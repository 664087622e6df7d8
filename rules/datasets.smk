# Requires: nothing, or the archive, file or folder that `dataset.path` names.
# Makes: datasets/{dataset}.h5.
from ensembleflow.config.dataset_plan import plan_dataset


rule prepare_dataset:
    """Read the labelled images and split them into train, valid and test."""
    input:
        source=without_braces(dataset_source()),
    output:
        dataset=DATASET,
    log:
        f"{LOGS}/prepare_dataset.log",
    benchmark:
        f"{BENCHMARKS}/prepare_dataset.tsv"
    conda:
        "../envs/training.yaml"
    # Nothing else can run before the data is there.
    threads: whole_machine(CONFIG.resources.library.threads)
    params:
        dataset=lambda wildcards: plan_dataset(CONFIG.dataset),
    script:
        "../workflow/scripts/prepare_dataset.py"
