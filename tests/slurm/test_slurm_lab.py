"""The lab itself: what the other tests rely on, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import slurm_lab as lab_module
from support.slurm_lab import SlurmLab, SlurmLabError


def test_only_the_last_node_hands_out_a_gpu_and_the_job_sees_it(slurm_lab: SlurmLab) -> None:
    done = slurm_lab.client("srun", "--ntasks=1", "--gpus=1", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES")
    assert done.stdout.split() == [slurm_lab.gpu_node, "0"]
    job = slurm_lab.jobs()[-1]
    assert (job.nodes, job.gpus, job.state) == ((slurm_lab.gpu_node,), 1, "COMPLETED")
    task = slurm_lab.tasks()[-1]
    assert (task.job, task.node, task.cuda_visible_devices) == (job.id, slurm_lab.gpu_node, "0")


def test_a_job_without_gpu_sees_none(slurm_lab: SlurmLab) -> None:
    slurm_lab.client("srun", "--ntasks=1", f"--nodelist={slurm_lab.gpu_node}", "true")
    assert slurm_lab.jobs()[-1].gpus == 0
    assert slurm_lab.tasks()[-1].cuda_visible_devices is None


def test_more_gpus_than_there_are_cannot_be_had(slurm_lab: SlurmLab) -> None:
    done = slurm_lab.client("srun", f"--gpus={slurm_lab.n_gpus + 1}", "--ntasks=1", "true", check=False)
    assert done.returncode != 0


def test_a_node_goes_down_and_comes_back(slurm_lab: SlurmLab) -> None:
    with slurm_lab.node_away("n2"):
        assert slurm_lab.node_state("n2").startswith("down")
    assert slurm_lab.client("srun", "--nodelist=n2", "echo", "back").stdout == "back\n"


def test_a_node_comes_back_even_if_what_was_to_be_seen_meanwhile_fails(slurm_lab: SlurmLab) -> None:
    with pytest.raises(AssertionError, match="not seen"), slurm_lab.node_away("n2"):
        raise AssertionError("not seen")
    assert slurm_lab.node_state("n2") == "idle"


@pytest.mark.usefixtures("slurm_lab")
def test_a_real_configuration_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_module, "LINKED_FOLDER", tmp_path)
    (tmp_path / "slurm.conf").write_text("ClusterName=production\n", encoding="utf-8")
    with pytest.raises(SlurmLabError, match="belongs to a cluster"), SlurmLab(tmp_path / "lab"):
        pass
    assert (tmp_path / "slurm.conf").read_text(encoding="utf-8") == "ClusterName=production\n"
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.conf"]


def test_a_second_lab_is_refused_while_one_runs(slurm_lab: SlurmLab, tmp_path: Path) -> None:
    with pytest.raises(SlurmLabError, match="stop it first"), SlurmLab(tmp_path / "second"):
        pass
    assert slurm_lab.client("scontrol", "ping").returncode == 0


def test_stopping_leaves_neither_processes_nor_links(slurm_lab: SlurmLab) -> None:
    slurm_lab.client("sbatch", "--output=/dev/null", "--wrap", "sleep 300")
    assert slurm_lab.processes()
    slurm_lab.stop()
    try:
        assert slurm_lab.processes() == []
        assert not any((lab_module.LINKED_FOLDER / name).is_symlink() for name in lab_module.LINKED_FILES)
    finally:
        slurm_lab.start()
