"""Writing a cache takes the memory of a batch, whatever the cache's size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ensembleflow.library import open_predictions

N_MODELS, N_SAMPLES, N_CLASSES = 40, 20_000, 50
MEGABYTE = 2**20

# Writes 160 MB, and tells how far that raised the process's peak memory, in bytes.
WRITER = """
import json, sys
import numpy as np
from ensembleflow.library import create_predictions

n_models, n_samples, n_classes = map(int, sys.argv[2:5])

def peak():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def write(path, n_samples):
    labels = {"valid": np.arange(n_samples) % n_classes, "test": np.arange(500) % n_classes}
    facts = dict(study="s", dataset_checksum="", class_names=[str(i) for i in range(n_classes)])
    models = [f"trial-{i:05d}" for i in range(n_models)]
    random = np.random.default_rng(0)
    with create_predictions(path, **facts, models=models, weights_sha256=models, labels=labels) as writer:
        for index in range(n_models):
            for split, truth in labels.items():
                for start in range(0, len(truth), 256):
                    batch = random.random((min(256, len(truth) - start), n_classes), dtype=np.float32)
                    writer.write(split, index, start, batch / batch.sum(axis=1, keepdims=True))

write(sys.argv[1], 500)  # what is imported and compiled at the first use
before = peak()
write(sys.argv[1], n_samples)
print(json.dumps(peak() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak memory")
def test_memory_does_not_grow_with_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "predictions.h5"
    sizes = map(str, (N_MODELS, N_SAMPLES, N_CLASSES))
    command = [sys.executable, "-c", WRITER, str(path), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert path.stat().st_size > 4 * N_MODELS * N_SAMPLES * N_CLASSES
    assert json.loads(done.stdout) < 8 * MEGABYTE
    with open_predictions(path) as predictions:
        sums = predictions.probabilities("valid")[[0, N_MODELS - 1]].sum(axis=-1)
    assert abs(sums - 1).max() < 1e-5
