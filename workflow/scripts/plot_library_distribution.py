"""Rule plot_library_distribution: `ensembleflow.report.plot_library_distribution`."""

import json

from ensembleflow.config import ReportConfig
from ensembleflow.io import rule_log
from ensembleflow.report import plot_library_distribution

with rule_log(snakemake.log[0]):
    values = json.loads(snakemake.params.report)
    metric = values.pop("metric")
    plot_library_distribution(
        models_csv=snakemake.input.models,
        costs_csv=snakemake.input.costs,
        config=ReportConfig(**values),
        metric=metric,
        table_csv=snakemake.output.table,
        figure_png=snakemake.output.png,
        figure_svg=snakemake.output.svg,
    )
