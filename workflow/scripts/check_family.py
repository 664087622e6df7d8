"""Rule check_family: `ensembleflow.search.check_study_family`."""

from ensembleflow.io import rule_log
from ensembleflow.search import check_study_family

with rule_log(snakemake.log[0]):
    check_study_family(
        file=snakemake.input.files[0],
        plan_json=snakemake.params.plan,
        dataset_path=snakemake.input.dataset,
        output_copy=snakemake.output.file,
        output_json=snakemake.output.facts,
        threads=snakemake.threads,
    )
