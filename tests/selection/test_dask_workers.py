"""The same members whoever sums over the samples: threads, processes, any cut of the samples, a worker that dies."""

import os
import signal
import time

import dask
import h5py
import numpy as np
import pytest
from distributed import Client, LocalCluster

from ensembleflow.errors import SelectionError
from ensembleflow.io import create_hdf5
from ensembleflow.library import FileSource, open_predictions
from ensembleflow.selection import read_candidates, smobf_budgets
from ensembleflow.selection.sums.cluster import selection_workers
from ensembleflow.selection.sums.dask_workers import DaskWorkers
from ensembleflow.selection.sums.evaluation import ThreadWorkers
from ensembleflow.selection.sums.partition import partitions_of
from support.selection_problems import DeadlySource

N_MODELS, N_SAMPLES, N_CLASSES = 12, 5000, 4
COSTS = np.random.default_rng(3).uniform(0.2, 2.0, N_MODELS)
BUDGETS = ("2x", "6x")


@pytest.fixture(scope="module", autouse=True)
def patient_clusters():
    """A worker that a busy machine takes long to start again is not given up."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}):
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A `predictions.h5` of models that are right more often than not."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("library") / "predictions.h5"
    labels = rng.integers(0, N_CLASSES, N_SAMPLES)
    logits = rng.normal(0, 1.5, (N_MODELS, N_SAMPLES, N_CLASSES))
    logits[:, np.arange(N_SAMPLES), labels] += rng.uniform(0.5, 1.5, N_MODELS)[:, None]
    probabilities = np.exp(logits)
    probabilities = (probabilities / probabilities.sum(axis=2, keepdims=True)).astype(np.float32)
    with create_hdf5(path, "predictions", 1) as file:
        file.attrs["study"], file.attrs["dataset_checksum"] = "study", "0" * 64
        file.attrs["class_names"] = np.array(list("abcd"), dtype=h5py.string_dtype())
        file.create_dataset("models", data=[f"m{i:02}" for i in range(N_MODELS)], dtype=h5py.string_dtype())
        for split in ("valid", "test"):
            group = file.create_group(split)
            group.create_dataset("probabilities", data=probabilities)
            group.create_dataset("true_class_probability", data=probabilities[:, np.arange(N_SAMPLES), labels])
            group.create_dataset("labels", data=labels)
    return path


def members(cache, loss, make_workers):
    with open_predictions(cache) as predictions:
        candidates = read_candidates(predictions, None, COSTS, loss, make_workers)
    results = smobf_budgets(candidates, BUDGETS)
    return [each.members for result in results for each in (result, *result.by_weight)]


def on_threads(n_threads=1, memory_bytes=None, block_samples=None):
    return lambda source, loss: ThreadWorkers(partitions_of(source, loss, n_threads, memory_bytes, block_samples))


@pytest.mark.parametrize("loss", ["cross_entropy", "error", "macro_f1_error", "brier"])
@pytest.mark.parametrize("block_samples", [137, 1000, N_SAMPLES])
@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_threads_and_blocks_do_not_change_the_members(cache, loss, n_threads, block_samples):
    expected = members(cache, loss, on_threads())
    assert members(cache, loss, on_threads(n_threads, block_samples=block_samples)) == expected
    assert len(expected[0]) > 1


@pytest.mark.parametrize("loss", ["cross_entropy", "brier"])
def test_samples_that_do_not_fit_into_memory_are_read_for_each_step(cache, loss):
    streamed = []

    def make_workers(source, name):
        parts = partitions_of(source, name, 2, memory_bytes=1000, block_samples=700)
        streamed.extend(parts)
        return ThreadWorkers(parts)

    assert members(cache, loss, make_workers) == members(cache, loss, on_threads())
    assert all(not part.hold and part._held is None for part in streamed)


@pytest.fixture(scope="module", params=[1, 2, 4])
def dask_client(request):
    with (
        LocalCluster(n_workers=request.param, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("loss", ["cross_entropy", "error"])
@pytest.mark.parametrize("block_samples", [None, 211])
def test_a_local_cluster_of_any_size_chooses_the_same_members(cache, dask_client, loss, block_samples):
    def make_workers(source, name):
        return DaskWorkers(dask_client, source, name, block_samples=block_samples)

    assert members(cache, loss, make_workers) == members(cache, loss, on_threads())


def test_a_cluster_of_threads_in_one_process_and_without_memory_chooses_the_same_members(cache):
    with (
        LocalCluster(n_workers=3, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        streaming = members(cache, "cross_entropy", lambda *args: DaskWorkers(client, *args, 0, block_samples=300))
    assert streaming == members(cache, "cross_entropy", on_threads())


def test_arrays_are_sent_to_the_workers_in_parts(dask_client):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 900)
    probabilities = rng.dirichlet(np.ones(3), (5, 900))

    def chosen(make_workers):
        candidates = read_candidates(probabilities, labels, np.ones(5), "brier", make_workers)
        return smobf_budgets(candidates, ["3x"])[0].members

    assert chosen(lambda *args: DaskWorkers(dask_client, *args, block_samples=100)) == chosen(on_threads())


class KillsAWorker(DaskWorkers):
    """In the third step the worker that holds the first samples is killed while its task runs."""

    n_results = 0

    def _result(self, place, future):
        self.n_results += 1
        if self.n_results == 3 * len(self._partitions):
            pids = self._client.run(os.getpid)
            os.kill(pids[self._homes[0]], signal.SIGKILL)
        return super()._result(place, future)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_worker_killed_in_the_middle_of_a_step_changes_nothing(cache, n_workers):
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        made = []

        def make_workers(*args):
            made.append(KillsAWorker(client, *args, block_samples=250))
            return made[-1]

        found = members(cache, "cross_entropy", make_workers)
        (workers,) = made
        assert workers.n_results > 6 * n_workers, "the run ended before the kill"
        # Its place is taken by the worker that was started instead, so that all share the samples again.
        client.wait_for_workers(n_workers, timeout=60)
        workers._settle()
        assert sorted(workers._homes) == sorted(client.scheduler_info()["workers"])
    assert found == members(cache, "cross_entropy", on_threads())


def held_keys():
    from ensembleflow.selection.sums import dask_workers

    return sorted(key.rpartition("-")[2] for _, key in dask_workers._partitions)


def test_the_survivors_of_a_death_keep_what_they_hold(cache):
    source = FileSource(cache, "valid", every_class=False)
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        workers = DaskWorkers(client, source, "cross_entropy", block_samples=250)
        list(workers.ranges())
        survivors = {address: keys for address, keys in client.run(held_keys).items() if address != workers._homes[0]}
        client.retire_workers([workers._homes[0]])
        workers._settle()
        held = client.run(held_keys)
        assert all(set(keys) <= set(held[address]) for address, keys in survivors.items())
        assert sum(map(len, survivors.values())) == 2


@pytest.mark.parametrize("n_workers", [1, 2])
def test_samples_that_kill_whoever_reads_them_end_in_one_message(n_workers, monkeypatch):
    monkeypatch.setattr("ensembleflow.selection.sums.dask_workers._SECONDS_BETWEEN_LOOKS", 0.2)
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        workers = DaskWorkers(client, DeadlySource(), "cross_entropy", block_samples=50)
        with pytest.raises(SelectionError, match="whichever worker takes up a part of the samples is killed"):
            list(workers.ranges())


def test_workers_that_join_share_the_samples_and_what_they_forget_is_gone(cache):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        source = FileSource(cache, "valid", every_class=False)
        first = DaskWorkers(client, source, "cross_entropy", block_samples=500)
        assert len(list(first.ranges())) == 1
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        second = DaskWorkers(client, source, "cross_entropy", block_samples=500)
        assert len(list(second.ranges())) == 2
        assert len(set(second._homes)) == 2
        first.close()
        second.close()
        assert list(client.run(held_keys).values()) == [[], []]


def test_a_cluster_that_loses_all_workers_ends_in_one_message(cache, monkeypatch):
    monkeypatch.setattr("ensembleflow.selection.sums.dask_workers._SECONDS_WITHOUT_WORKERS", 1.0)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        with open_predictions(cache) as predictions:
            candidates = read_candidates(
                predictions, None, COSTS, "cross_entropy", lambda *args: DaskWorkers(client, *args)
            )
        cluster.scale(0)
        while client.scheduler_info()["workers"]:
            time.sleep(0.05)
        with pytest.raises(SelectionError, match="the Dask cluster has no worker"):
            smobf_budgets(candidates, ["2x"])


def test_processes_of_its_own_cluster_leave_a_report_and_nothing_else(cache, tmp_path, caplog):
    report = tmp_path / "report" / "dask.html"
    caplog.set_level("INFO", logger="ensembleflow.selection")
    with selection_workers("processes", 2, scratch_dir=tmp_path, report_html=report) as make_workers:
        assert [path.stat().st_mode & 0o077 for path in tmp_path.glob(".dask-*/*.pem")] == [0, 0, 0]
        found = members(cache, "cross_entropy", make_workers)
    assert found == members(cache, "cross_entropy", on_threads())
    assert any("Dask dashboard of the selection: http://127.0.0.1:" in message for message in caplog.messages)
    assert "bokeh" in report.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_threads_of_a_job_with_little_memory_stream(cache, tmp_path):
    with selection_workers("threads", 2, memory_bytes=1000) as make_workers:
        assert members(cache, "cross_entropy", make_workers) == members(cache, "cross_entropy", on_threads())


def test_slurm_outside_a_job_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with (
        pytest.raises(SelectionError, match="the Dask workers are to run on the nodes of a Slurm job"),
        selection_workers("slurm", 1, scratch_dir=tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())
