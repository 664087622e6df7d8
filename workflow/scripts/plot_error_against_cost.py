"""Rule plot_error_against_cost: `ensembleflow.report.plot_error_against_cost`."""

import json

from ensembleflow.config import ReportConfig
from ensembleflow.io import rule_log
from ensembleflow.report import plot_error_against_cost

with rule_log(snakemake.log[0]):
    values = json.loads(snakemake.params.report)
    loss, n_images = values.pop("loss"), values.pop("n_images")
    plot_error_against_cost(
        ensembles_csv=snakemake.input.ensembles,
        pareto_csv=snakemake.input.pareto,
        config=ReportConfig(**values),
        loss=loss,
        n_images=n_images,
        table_csv=snakemake.output.table,
        figure_png=snakemake.output.png,
        figure_svg=snakemake.output.svg,
    )
