"""Rule plot_allocation: `ensembleflow.report.plot_allocation`."""

from ensembleflow.config import ReportConfig
from ensembleflow.io import rule_log
from ensembleflow.report import plot_allocation

with rule_log(snakemake.log[0]):
    plot_allocation(
        allocation_jsons=snakemake.input.allocations,
        search_csvs=snakemake.input.searches,
        config=ReportConfig.model_validate_json(snakemake.params.report),
        table_csv=snakemake.output.table,
        members_csv=snakemake.output.members,
        figure_png=snakemake.output.png,
        figure_svg=snakemake.output.svg,
    )
