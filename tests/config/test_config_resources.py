"""What a job may ask the cluster for."""

from __future__ import annotations

import pytest

from ensembleflow.config import parse_config
from ensembleflow.errors import ConfigError


@pytest.mark.parametrize("stage", ["search", "library", "selection"])
def test_a_second_gpu_a_job_is_refused_because_it_would_lie_idle(stage: str) -> None:
    block = {"gpus": 1}
    values = {"resources": {stage: block}, "library": {"cost": {"device": "gpu" if stage == "library" else "cpu"}}}
    assert getattr(parse_config(values).resources, stage).gpus == 1
    block["gpus"] = 2
    with pytest.raises(ConfigError, match="≤ 1") as caught:
        parse_config(values)
    assert f"resources.{stage}.gpus" in str(caught.value)
