"""Rule plot_selection_fronts: `ensembleflow.report.plot_selection_fronts`."""

import json

from ensembleflow.config import ReportConfig
from ensembleflow.io import rule_log
from ensembleflow.report import plot_selection_fronts

with rule_log(snakemake.log[0]):
    values = json.loads(snakemake.params.report)
    loss, n_images = values.pop("loss"), values.pop("n_images")
    plot_selection_fronts(
        fronts_csv=snakemake.input.fronts,
        comparison_csv=snakemake.input.comparison,
        config=ReportConfig(**values),
        loss=loss,
        n_images=n_images,
        table_csv=snakemake.output.table,
        figure_png=snakemake.output.png,
        figure_svg=snakemake.output.svg,
    )
