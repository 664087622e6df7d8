"""The prepared file is mapped: processes share the system's cache of it, and none holds a copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ensembleflow.datasets import SPLITS, open_dataset
from ensembleflow.datasets.dataset_file import write_dataset
from ensembleflow.datasets.labelled_images import LabelledImages

SHAPE, N_TRAIN = (64, 64, 3), 8000  # 98 MB
N_BYTES = N_TRAIN * int(np.prod(SHAPE))
MEGABYTE = 2**20

# Reads an epoch of shuffled batches, as training does, and tells its memory before and after, in bytes.
READER = """
import json, sys
import numpy as np
from ensembleflow.datasets import open_dataset

def memory():
    lines = [line.split() for line in open("/proc/self/smaps_rollup")][1:]
    return {line[0].rstrip(":"): 1024 * int(line[1]) for line in lines}

def mapped(path):
    totals, inside = {"Rss": 0, "Pss": 0}, False
    for line in open("/proc/self/smaps"):
        key = line.split()[0]
        if "-" in key:
            inside = line.rstrip().endswith(path)
        elif inside and key.rstrip(":") in totals:
            totals[key.rstrip(":")] += 1024 * int(line.split()[1])
    return totals

with open_dataset(sys.argv[1]) as data:
    images = data.image_array("train")
order = np.random.default_rng(0).permutation(len(images))
images[np.sort(order[:32])]
before, total = memory(), 0
for start in range(0, len(order), 32):
    total += int(images[np.sort(order[start:start + 32])].sum())
print(json.dumps({"before": before, "after": memory(), "total": total}), flush=True)
sys.stdin.readline()
print(json.dumps(mapped(sys.argv[1])), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A dataset file of 98 MB, and the sum of its training images' pixels."""
    path = tmp_path_factory.mktemp("large") / "large.h5"
    block = np.random.default_rng(0).integers(0, 256, (1000, *SHAPE), dtype=np.uint8)
    labels = np.arange(N_TRAIN + 4) % 2
    source = LabelledImages(("a", "b"), labels, SHAPE, lambda indices: block[indices % len(block)])
    splits = dict(zip(SPLITS, np.split(np.arange(N_TRAIN + 4), [N_TRAIN, N_TRAIN + 2]), strict=True))
    write_dataset(path, source, splits, name="large", source="synthetic", split_seed=0)
    return path, int(block.sum(dtype=np.int64)) * (N_TRAIN // len(block))


@pytest.fixture
def readers(large):
    """Two processes that read the file."""
    if not Path("/proc/self/smaps_rollup").exists():
        reason = "the system does not tell a process's shared and private memory"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    command = [sys.executable, "-c", READER, str(large[0])]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    yield processes
    for process in processes:
        process.communicate()


def test_reading_all_images_takes_no_memory_of_ones_own_and_two_readers_share(large, readers):
    told = [json.loads(process.stdout.readline()) for process in readers]
    for reader in told:
        assert reader["total"] == large[1]
        assert reader["after"]["Anonymous"] - reader["before"]["Anonymous"] < 8 * MEGABYTE
    for process in readers:  # both have read all, and both still run
        process.stdin.write("\n")
        process.stdin.flush()
        pages = json.loads(process.stdout.readline())
        assert pages["Rss"] > 0.9 * N_BYTES
        assert pages["Pss"] < 0.6 * pages["Rss"], "each of two readers bears half of each shared page"


def test_the_images_are_mapped_read_only_where_they_lie(large):
    with open_dataset(large[0]) as dataset:
        images = dataset.image_array("train")
        assert isinstance(images, np.memmap)
        assert (images.shape, images.dtype) == ((N_TRAIN, *SHAPE), np.uint8)
        np.testing.assert_array_equal(images[5:9], dataset.images("train")[5:9])
        valid = dataset.image_array("valid")
        np.testing.assert_array_equal(valid, dataset.images("valid"))
        with pytest.raises(ValueError, match="read-only"):
            images[0, 0, 0, 0] = 1
    assert images[7].any(), "the map outlives the open file"


@pytest.mark.parametrize("storage", [{"chunks": True}, {"chunks": (1, 64, 64, 3), "compression": "gzip"}])
def test_chunked_images_are_read_part_by_part_instead(tmp_path, large, storage):
    path = tmp_path / "chunked.h5"
    with h5py.File(large[0]) as source, h5py.File(path, "w") as target:
        target.attrs.update(source.attrs)
        source.copy("class_names", target)
        for split in SPLITS:
            target[f"{split}/labels"] = source[f"{split}/labels"][:20]
            target.create_dataset(f"{split}/images", data=source[f"{split}/images"][:20], **storage)
    with open_dataset(path) as dataset:
        images = dataset.image_array("train")
        assert isinstance(images, h5py.Dataset)
        np.testing.assert_array_equal(images[[2, 3, 11]], dataset.images("train")[[2, 3, 11]])
