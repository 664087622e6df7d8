"""Rule account_search: `ensembleflow.search.accounting.write_accounting`."""

import json
from pathlib import Path

from ensembleflow.io import rule_log
from ensembleflow.search.accounting import write_accounting

with rule_log(snakemake.log[0]):
    write_accounting(
        Path(snakemake.input.trials).parent,
        json.loads(snakemake.params.search)["max_epochs"],
        snakemake.output.accounting,
    )
