"""Algorithm 1 on an ensemble's allocation: from a start that fits to one that is fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.benches.score import Score
from ensembleflow.allocation.benches.simulated import SimulatedBench
from ensembleflow.allocation.hill_climb import Refinement, refine
from ensembleflow.allocation.neighbours import Neighbourhood
from ensembleflow.config import AllocationConfig
from ensembleflow.errors import AllocationError
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, allocation_text

__all__ = ["refine_allocation"]

# Profiles know of no loss to anything else, so an allocation is rarely faster than they say. One that by them should
# take longer than the present one was measured to take, and half as long again, cannot be better.
_HOPELESS_FACTOR = 1.5


def refine_allocation(
    start: Allocation,
    devices: Sequence[Device],
    profiles: ProfileTable,
    bench: Callable[[Allocation], Score],
    config: AllocationConfig,
) -> Refinement[Allocation]:
    """Improve an allocation by benching those near it, beginning with where the profiles alone would lead.

    When no single update is better, exchanges and distant allocations are the second chance. Measured gains are
    confirmed, simulated ones need not be. Of allocations that differ only in which of several equal devices does what,
    one is benched; none is that should take half as long again, by the profiles, as the present one does.

    Args:
        start: fits in memory.
        devices: where members may go.
        profiles: the settings that may be chosen.
        bench: measured or simulated.
        config: the objective, the most replicas and the most benches.

    Raises:
        AllocationError: no allocation that was benched could run.
    """
    throughput = config.objective == "throughput"
    n_images = config.bench_images if throughput else config.request_images

    def hopeless(allocation: Allocation, score: Score) -> bool:
        # Both objectives' scores are per second: of the images, or of the requests.
        seconds = (n_images if throughput else 1) / score.value if score.value else math.inf
        return near.predicted_seconds(allocation) > _HOPELESS_FACTOR * seconds

    near = Neighbourhood(devices, profiles, n_images, config.max_replicas)
    found = refine(
        start,
        near.neighbours,
        bench,
        config.max_benches,
        proposals=[("predicted by the profiles", near.best_predicted(start))],
        second_chances=near.second_chances,
        confirm=not isinstance(bench, SimulatedBench),
        signature=near.signature,
        hopeless=hopeless,
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
