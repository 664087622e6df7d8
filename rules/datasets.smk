# Requires: nothing, or the archive or folder that `dataset.path` names.
# Makes: datasets/{dataset}.h5.


rule prepare_dataset:
    """Read the labelled images and split them into train, valid and test."""
    input:
        source=dataset_source(),
    output:
        dataset=DATASET,
    log:
        f"{LOGS}/prepare_dataset.log",
    benchmark:
        f"{BENCHMARKS}/prepare_dataset.tsv"
    conda:
        "../envs/training.yaml"
    params:
        dataset=canonical_json(CONFIG.dataset),
    script:
        "../workflow/scripts/prepare_dataset.py"
