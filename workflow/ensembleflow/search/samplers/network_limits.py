"""Which proposals `search.limits` leaves to the samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution

from ensembleflow.config import SearchConfig, SearchLimits
from ensembleflow.errors import SearchError
from ensembleflow.models.family import Family
from ensembleflow.models.hyperparameters import FamilyHyperparameters, Hyperparameters
from ensembleflow.models.multiply_adds import count_multiply_adds
from ensembleflow.models.network_size import NetworkSize, network_size
from ensembleflow.search.space import distributions, hyperparameters_of, lowest_value

__all__ = ["NetworkLimits", "network_limits"]


@dataclass(frozen=True)
class NetworkLimits:
    """The networks that may be trained, as far as their size is known from the hyperparameters.

    Attributes:
        search: of the study: its limits and its space.
        image_shape: (height, width, channels) in pixels.
        n_classes: number of classes.
        families: gives those other than `resnet`, whose networks are built to know their size.
    """

    search: SearchConfig
    image_shape: tuple[int, ...]
    n_classes: int
    families: Callable[[], Mapping[str, Family]] = dict

    @property
    def limits(self) -> SearchLimits:
        """The config's."""
        return self.search.limits

    @cached_property
    def space(self) -> dict[str, BaseDistribution]:
        """Each hyperparameter's range or choices."""
        return distributions(self.search)

    @property
    def max_draws(self) -> int:
        """Points that are drawn at random before it is said that there is no network within the limits."""
        return 200 if self.search.own_families else 10_000

    def size(self, values: Mapping[str, Any]) -> NetworkSize:
        """The size of the network of some values; what has one value only in the space may be left out."""
        single = {name: lowest_value(each) for name, each in self.space.items() if each.single()}
        point = hyperparameters_of({**single, **values}, self.search)
        if isinstance(point, Hyperparameters):
            return network_size(point, self.image_shape, self.n_classes)
        assert isinstance(point, FamilyHyperparameters)
        network = self.families()[point.family].build(point, self.image_shape, self.n_classes)
        try:
            multiply_adds = count_multiply_adds(network)
        except TypeError as error:
            raise SearchError(
                "the size of a family's networks cannot be told",
                where="search.limits",
                found=str(error),
                hint="set no limits, for networks with such layers",
            ) from None
        return NetworkSize(parameters=network.count_params(), multiply_adds=multiply_adds)

    def allows(self, size: NetworkSize) -> bool:
        """Whether a network of some size is within all limits."""
        limits = self.limits
        return (limits.multiply_adds is None or size.multiply_adds <= limits.multiply_adds) and (
            limits.parameters is None or size.parameters <= limits.parameters
        )

    def nothing_left(self, tried: list[NetworkSize]) -> SearchError:
        """The error of a space in which no network was found within the limits, after so many were drawn."""
        smallest = min(tried, key=lambda size: (size.multiply_adds, size.parameters))
        asked = self.limits.model_dump(exclude_none=True)
        return SearchError(
            "no network of the space is within the limits",
            where="search.limits",
            found=f"of {len(tried)} networks drawn the smallest has {smallest.multiply_adds:,} multiply-adds per image "
            f"and {smallest.parameters:,} parameters",
            expected=", ".join(f"{name} at most {value:,.10g}" for name, value in asked.items()),
            hint="raise the limits, or give search.space narrower networks (stage_filters, stem_filters), or "
            "search.family_space where the family is your own",
        )


def network_limits(
    search: SearchConfig,
    image_shape: tuple[int, ...],
    n_classes: int,
    families: Callable[[], Mapping[str, Family]] = dict,
) -> NetworkLimits | None:
    """The limits of a search on images of one shape; None where the config sets none."""
    if not search.limits.model_dump(exclude_none=True):
        return None
    return NetworkLimits(search, image_shape, n_classes, families)
