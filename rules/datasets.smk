# Requires: nothing, or the archive, file or folder that `dataset.path` names.
# Makes: datasets/{dataset}.h5.


rule prepare_dataset:
    """Read the labelled images and split them into train, valid and test."""
    input:
        source=dataset_source,
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
        dataset=lambda wildcards: dataset_plan(),
    script:
        "../workflow/scripts/prepare_dataset.py"
