"""Table 3: images per second of ensembles placed by memory alone, and refined by measuring, by number of devices."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ensembleflow.io import write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.paper.page import what_differs, write_page
from ensembleflow.report.paper.published import published
from ensembleflow.report.paper.sources import Study, read_sources

__all__ = ["make_table_3"]

_CAPTION = """Images a second of ensembles placed by worst-fit on memory (the paper's first algorithm), and then refined
(its second{replicas}). Rows `measured` are benches of the whole ensemble on the first n of this machine's devices:
{devices}. Rows `simulated` are n GPUs beside the first of these: benches in virtual time from the members' profiles,
each GPU assumed to be {speed:g} times as fast as {place}, with {memory:,} MB; they show where the members go, not how
fast a certain GPU is. Rows `paper` are the paper's, n GPUs beside one CPU. {differs}"""

_COLUMNS = ["ensemble", "source", "members", "devices", "worst_fit", "refined", "gain", "benches"]


def make_table_3(run: PaperRun) -> None:
    """Write `table_3.csv` (one row per ensemble and number of devices) and its page.

    Raises:
        ArtefactError: an allocation is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "table_3")
    rows = [row for study in sources.studies for row in _rows(run, study)]
    for ensemble in published("table_3"):
        rows += [
            {"ensemble": ensemble["ensemble"], "source": "paper", "members": ensemble["members"], "devices": n}
            | {"worst_fit": worst_fit, "refined": refined, "gain": refined / worst_fit}
            for n, worst_fit, refined in zip(ensemble["gpus"], ensemble["worst_fit"], ensemble["refined"], strict=True)
        ]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    write_csv(run.output("table_3", "csv"), table)
    devices = ", ".join(
        f"{each.name} ({'a GPU' if each.gpu is not None else f'{each.cores} CPU cores'}, {each.memory_mb} MB)"
        for each in run.allocation.devices
    )
    n_replicas = run.allocation.max_replicas
    caption = _CAPTION.format(
        replicas=f"; a member may run on up to {n_replicas} devices at once, as it cannot in the paper"
        if n_replicas > 1
        else "",
        devices=devices,
        speed=run.paper.simulated_gpu_speed,
        place="this machine's first GPU, or one core where there is none",
        memory=run.paper.simulated_gpu_memory_mb,
        differs=what_differs(run, sources),
    )
    write_page(run, sources, table.round(2), title="Table 3: allocation on n devices", caption=caption)


def _rows(run: PaperRun, study: Study) -> list[dict[str, Any]]:
    """An ensemble's measured rows, by number of devices, then its simulated ones, by number of GPUs."""
    counts = [("measured", n, f"devices-{n}") for n in sorted(run.allocation.device_counts)]
    counts += [("simulated", n, f"simulated-{1 + n}") for n in sorted(run.paper.simulated_gpus)]
    rows = []
    for budget in run.paper.allocated_budgets:
        for source, n_devices, name in counts:
            keys = ["members", "worst_fit_images_per_second", "images_per_second", "n_benches"]
            found = study.json(f"allocation/budget-{budget}/{name}.json", keys)
            worst_fit, refined = found["worst_fit_images_per_second"], found["images_per_second"]
            rows.append(
                {
                    "ensemble": f"{study.name}, B={budget}",
                    "source": source,
                    # A member's replicas are one member.
                    "members": len({member["model"] for member in found["members"]}),
                    "devices": n_devices,
                    "worst_fit": worst_fit,
                    "refined": refined,
                    "gain": refined / worst_fit if worst_fit > 0 else None,
                    "benches": found["n_benches"],
                }
            )
    return rows
