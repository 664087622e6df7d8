"""Rule tabulate_mistakes: `ensembleflow.report.tabulate_mistakes`."""

from ensembleflow.io import rule_log
from ensembleflow.report import tabulate_mistakes

with rule_log(snakemake.log[0]):
    tabulate_mistakes(
        predictions_h5=snakemake.input.predictions,
        selection_jsons=snakemake.input.selections,
        classes_csv=snakemake.output.classes,
        confusion_csv=snakemake.output.confusion,
        mistakes_csv=snakemake.output.mistakes,
    )
