"""Rule make_report: `ensembleflow.report.make_report`."""

from pathlib import Path

from ensembleflow.io import rule_log
from ensembleflow.report import make_report

with rule_log(snakemake.log[0]):
    make_report(Path(snakemake.output.page).parent, snakemake.output.page, snakemake.params.study)
