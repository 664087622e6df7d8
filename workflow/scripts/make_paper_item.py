"""Rules of the paper's items: the function of `ensembleflow.report.paper` that is named after the item."""

from ensembleflow.io import rule_log
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.paper import make_item

with rule_log(snakemake.log[0]):
    make_item(snakemake.params.item, PaperRun.model_validate_json(snakemake.params.run))
