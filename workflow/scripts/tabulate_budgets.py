"""Rule tabulate_budgets: `ensembleflow.report.tabulate_budgets`."""

from ensembleflow.io import rule_log
from ensembleflow.report import tabulate_budgets

with rule_log(snakemake.log[0]):
    tabulate_budgets(
        ensembles_csv=snakemake.input.ensembles,
        pareto_csv=snakemake.input.pareto,
        selection_jsons=snakemake.input.selections,
        allocation_jsons=snakemake.input.allocations,
        models_csv=snakemake.input.models,
        costs_csv=snakemake.input.costs,
        predictions_h5=snakemake.input.predictions,
        baseline_json=snakemake.input.baseline,
        baseline_csv=snakemake.input.answers,
        metric=snakemake.params.metric,
        table_csv=snakemake.output.table,
        table_html=snakemake.output.html,
    )
