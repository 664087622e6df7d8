"""Rule tabulate_budgets: `ensembleflow.report.tabulate_budgets`."""

from ensembleflow.io import rule_log
from ensembleflow.report import tabulate_budgets

with rule_log(snakemake.log[0]):
    tabulate_budgets(
        ensembles_csv=snakemake.input.ensembles,
        selection_jsons=snakemake.input.selections,
        allocation_jsons=snakemake.input.allocations,
        costs_csv=snakemake.input.costs,
        table_csv=snakemake.output.table,
        table_html=snakemake.output.html,
    )
