"""Rule plot_learning_curves: `ensembleflow.report.plot_learning_curves`."""

import json

from ensembleflow.config import ReportConfig
from ensembleflow.io import rule_log
from ensembleflow.report import plot_learning_curves

with rule_log(snakemake.log[0]):
    plot_learning_curves(
        trials_csv=snakemake.input.trials,
        epochs_csv=snakemake.input.epochs,
        config=ReportConfig.model_validate_json(snakemake.params.report),
        **json.loads(snakemake.params.search),
        table_csv=snakemake.output.table,
        figure_png=snakemake.output.png,
        figure_svg=snakemake.output.svg,
    )
