"""What TensorFlow sums is what the compiled sums are, and a selection with it chooses the same members."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import SelectionError
from ensembleflow.models import configure_tensorflow
from ensembleflow.models.metrics import SMALLEST_PROBABILITY
from ensembleflow.selection import forward_greedy_path, read_candidates, selection_workers, smobf_budgets
from ensembleflow.selection.sums.evaluation import ThreadWorkers
from ensembleflow.selection.sums.kernels import cross_entropy_sums as sums_by_kernel
from ensembleflow.selection.sums.losses import Prefixes
from ensembleflow.selection.sums.partition import MemorySource, partitions_of
from ensembleflow.selection.sums.stored import stored_for_kernels
from support.selection_problems import problems


@pytest.fixture(scope="module", autouse=True)
def gpu_sums():
    """The module, with TensorFlow on its CPU device."""
    configure_tensorflow(threads=1, training=True)
    from ensembleflow.selection.sums import gpu_sums

    return gpu_sums


@st.composite
def sums_to_make(draw):
    """True-class probabilities (models, samples), prefixes that may hold a model twice, and candidates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_models, n_samples = draw(st.integers(1, 6)), draw(st.one_of(st.integers(1, 40), st.integers(1000, 3000)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    stored = rng.beta(0.5, 0.3, (n_models, n_samples)).astype(dtype)
    stored[rng.random(stored.shape) < 0.1] = draw(
        st.sampled_from([0.0, 1.0, float(np.finfo(dtype).smallest_subnormal), float(np.finfo(dtype).tiny)])
    )
    stored[-1] = stored[0]
    model = st.integers(0, n_models - 1)
    prefixes = draw(st.lists(st.lists(model, max_size=8), min_size=1, max_size=4))
    candidates = draw(st.lists(model, min_size=1, max_size=8))
    return stored, Prefixes(prefixes), np.array(candidates, dtype=np.int64)


@settings(deadline=None)
@given(sums_to_make(), st.sampled_from([1, 1000, 2**23]))
def test_the_sums_are_those_of_the_compiled_kernel_whatever_the_chunks(gpu_sums, problem, chunk_values):
    stored, prefixes, candidates = problem
    arguments = (prefixes.offsets, prefixes.members, candidates, SMALLEST_PROBABILITY)
    expected, found = np.ones((2, len(prefixes), len(candidates)))
    sums_by_kernel(stored_for_kernels(stored), *arguments, expected)
    with pytest.MonkeyPatch.context() as patch:
        # At least some tens of samples at a time, or a thousand samples take a thousand steps.
        patch.setattr(gpu_sums, "_CHUNK_VALUES", max(chunk_values, stored.shape[1] * 8 // 40))
        gpu_sums.cross_entropy_sums(gpu_sums.resident(stored), *arguments, found)
    # The sum of logarithms is a difference from this.
    scale = stored.shape[1] * np.log1p(len(prefixes.members))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * max(1.0, scale))


def with_tensorflow(source, loss):
    return ThreadWorkers(partitions_of(source, loss, 2, block_samples=5, use_gpu=True))


def with_kernels(source, loss):
    return ThreadWorkers(partitions_of(source, loss, 2, block_samples=5))


@settings(deadline=None, max_examples=50)
@given(problems(), st.sampled_from([np.float16, np.float32, np.float64]))
def test_the_members_are_the_same(problem, dtype):
    probabilities, labels, costs, budget = problem
    one, other = (
        read_candidates(probabilities.astype(dtype), labels, costs, "cross_entropy", make_workers)
        for make_workers in (with_tensorflow, with_kernels)
    )
    (found,), (expected,) = smobf_budgets(one, [budget]), smobf_budgets(other, [budget])
    assert found.members == expected.members
    assert [each.members for each in found.by_weight] == [each.members for each in expected.by_weight]
    path, expected_path = forward_greedy_path(one).path, forward_greedy_path(other).path
    assert [each.members for each in path] == [each.members for each in expected_path]


def test_samples_on_a_gpu_are_held_whatever_the_memory_of_the_machine():
    source = MemorySource(np.full((3, 10), 0.5, np.float32), np.zeros(10, np.int64), 2)
    (part,) = partitions_of(source, "cross_entropy", 1, memory_bytes=0, use_gpu=True)
    assert part.hold


def test_a_loss_that_no_gpu_sums_is_summed_on_the_cpu(caplog):
    labels = np.array([0, 1, 0, 1])
    probabilities = np.random.default_rng(0).dirichlet(np.ones(2), (3, 4))
    with caplog.at_level("INFO", "ensembleflow"), selection_workers(use_gpu=True) as make_workers:
        candidates = read_candidates(probabilities, labels, [1.0, 1.0, 1.0], "brier", make_workers)
    assert "the loss brier is summed on the CPU" in caplog.text
    expected = ((probabilities - np.eye(2)[labels]) ** 2).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(candidates.evaluator.losses_with([]), expected, rtol=1e-12)


def test_processes_have_no_gpu():
    with pytest.raises(SelectionError, match="one process only"), selection_workers("processes", use_gpu=True):
        pass


_WITHOUT_A_GPU = """
import numpy as np
from ensembleflow.errors import SelectionError
from ensembleflow.selection import read_candidates, selection_workers
probabilities = np.random.default_rng(0).dirichlet(np.ones(2), (3, 4))
with selection_workers(use_gpu=True) as make_workers:
    try:
        read_candidates(probabilities, [0, 1, 0, 1], [1.0, 1.0, 1.0], "cross_entropy", make_workers)
    except SelectionError as error:
        print(error)
"""


def test_a_gpu_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    command = [sys.executable, "-c", _WITHOUT_A_GPU]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "the selection is to sum on a GPU, and there is none" in done.stdout
    assert "resources.selection.gpus: 0" in done.stdout
