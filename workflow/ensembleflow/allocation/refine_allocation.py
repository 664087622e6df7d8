"""Algorithm 1 on an ensemble's allocation: from a start that fits to one that is fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ensembleflow.allocation.devices import Device
from ensembleflow.allocation.neighbours import Neighbourhood
from ensembleflow.allocation.placement import Allocation, allocation_text
from ensembleflow.allocation.profile_table import ProfileTable
from ensembleflow.allocation.refine import Refinement, refine
from ensembleflow.allocation.score import Score
from ensembleflow.allocation.simulate import SimulatedBench
from ensembleflow.config.models import AllocationConfig
from ensembleflow.errors import AllocationError

__all__ = ["refine_allocation"]


def refine_allocation(
    start: Allocation,
    devices: Sequence[Device],
    profiles: ProfileTable,
    bench: Callable[[Allocation], Score],
    config: AllocationConfig,
) -> Refinement[Allocation]:
    """Improve an allocation by benching those near it, beginning with where the profiles alone would lead.

    When no single update is better, exchanges and distant allocations are the second chance. Measured gains are
    confirmed, simulated ones need not be.

    Args:
        start: fits in memory.
        devices: where members may go.
        profiles: the settings that may be chosen.
        bench: measured or simulated.
        config: the objective, the most replicas and the most benches.

    Raises:
        AllocationError: no allocation that was benched could run.
    """
    n_images = config.bench_images if config.objective == "throughput" else config.request_images
    near = Neighbourhood(devices, profiles, n_images, config.max_replicas)
    found = refine(
        start,
        near.neighbours,
        bench,
        config.max_benches,
        proposals=[("predicted by the profiles", near.most_promising(start))],
        second_chances=near.second_chances,
        confirm=not isinstance(bench, SimulatedBench),
        signature=near.signature,
    )
    if found.best.score.value <= 0:
        raise AllocationError(
            "no allocation could run",
            found="\n            ".join(
                f"{each.move}: {each.score.failure} ({allocation_text(each.state)})" for each in found.benches
            ),
            hint="if memory is the reason, lower the largest of allocation.batch_sizes",
        )
    return found
