"""Check the config files and `--config` of the running Snakemake before it reads them, and the folder of its cache.

Snakemake reads config files before the workflow, and ends in a traceback where one is faulty, or where it cannot make
its cache. The workflow's default profile (profiles/default/config.yaml) is read earlier, and runs this.
"""

import sys
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.common import get_appdirs

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ensembleflow.config.command_line import check_command_line
from ensembleflow.errors import EnsembleflowError
from ensembleflow.io.folder import require_cache_folder

arguments, _ = get_argument_parser().parse_known_args()
try:
    check_command_line(arguments.configfile, arguments.config or ())
    require_cache_folder(get_appdirs().user_cache_dir)
except EnsembleflowError as error:
    sys.exit(f"Error: {error}")
