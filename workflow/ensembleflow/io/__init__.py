"""Reading and writing: files appear whole or not at all, and broken ones are named."""

from ensembleflow.io.atomic import (
    atomic_directory,
    atomic_path,
    link_or_copy,
    link_or_copy_folder,
    write_csv,
    write_json,
)
from ensembleflow.io.hdf5 import create_hdf5, map_array, open_hdf5
from ensembleflow.io.idle import BUSY_PERCENT, warn_of_other_work
from ensembleflow.io.provenance import provenance, record_run
from ensembleflow.io.read import file_sha256, read_csv, read_json
from ensembleflow.io.rule import rule_log
from ensembleflow.io.snakemake_command import snakemake_command

__all__ = [
    "BUSY_PERCENT",
    "atomic_directory",
    "atomic_path",
    "create_hdf5",
    "file_sha256",
    "link_or_copy",
    "link_or_copy_folder",
    "map_array",
    "open_hdf5",
    "provenance",
    "read_csv",
    "read_json",
    "record_run",
    "rule_log",
    "snakemake_command",
    "warn_of_other_work",
    "write_csv",
    "write_json",
]
