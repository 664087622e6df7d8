"""What lies at `dataset.path` is known by names, sizes and contents; a change of times alone is none."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from test_datasets_idx import arrays as idx_arrays
from test_datasets_idx import write as write_idx

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import prepare_dataset, source_state
from ensembleflow.datasets.source_state import find_source_files, is_remembered
from ensembleflow.datasets.source_state import source_state as state_of

RECORDED = "0123456789abcdef"
AN_HOUR_AGO = time.time() - 3600


def pixels(seed: int):
    return np.random.default_rng(seed).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


def make_images(folder: Path, seed: int) -> Path:
    """Two classes of bitmaps: all of one size, whatever they show."""
    for i, each in enumerate(pixels(seed)):
        (folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(folder / f"class{i % 2}" / f"{i:02}.bmp")
    return folder


def make_arrays(folder: Path, seed: int) -> Path:
    folder.mkdir()
    np.save(folder / "images.npy", pixels(seed))
    np.save(folder / "labels.npy", np.arange(24) % 2)
    return folder


def make_idx(folder: Path, seed: int) -> Path:
    values = idx_arrays()
    return write_idx(folder, {name: (each + seed if "images" in name else each) for name, each in values.items()})


MAKERS = {"image_folder": make_images, "arrays": make_arrays, "idx": make_idx}


def with_times_of(folder: Path, model: Path) -> None:
    """Give all that lies in a folder the times of what lies in another at the same place."""
    for each in [folder, *folder.rglob("*")]:
        status = (model / each.relative_to(folder)).stat()
        os.utime(each, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(params=MAKERS)
def made(request, tmp_path):
    """A source, its config, and the dataset's file made of it."""
    folder = MAKERS[request.param](tmp_path / "own", 0)
    config = DatasetConfig(name="own", source=request.param, path=str(folder), image_size=8)
    prepare_dataset(config, tmp_path / "own.h5")
    return folder, config, tmp_path / "own.h5"


def is_noticed(config: DatasetConfig, dataset: Path, recorded: str | None = RECORDED) -> bool:
    return state_of(config, dataset, recorded) != recorded


def test_an_unchanged_source_keeps_its_state(made):
    _, config, dataset = made
    assert is_remembered(dataset)
    assert not is_noticed(config, dataset)
    assert not is_noticed(config, dataset, None)


def test_another_source_moved_in_place_is_noticed_whatever_its_times(made, tmp_path):
    folder, config, dataset = made
    other = MAKERS[config.source](tmp_path / "other", 1)
    with_times_of(other, folder)
    prepare_dataset(config, dataset)  # so the other one is older than the dataset in every respect
    folder.rename(tmp_path / "gone")
    other.rename(folder)
    assert is_noticed(config, dataset)


def test_a_link_that_leads_elsewhere_is_noticed(made, tmp_path):
    folder, config, dataset = made
    other = MAKERS[config.source](tmp_path / "other", 1)
    with_times_of(other, folder)
    folder.rename(tmp_path / "gone")
    folder.symlink_to(tmp_path / "gone")
    prepare_dataset(config, dataset)
    assert not is_noticed(config, dataset)
    folder.unlink()
    folder.symlink_to(other)
    assert is_noticed(config, dataset)


def test_a_folder_above_that_is_exchanged_is_noticed(made, tmp_path):
    _, config, _ = made
    for place, seed in (("data", 0), ("other", 1)):
        (tmp_path / place).mkdir()
        MAKERS[config.source](tmp_path / place / "own", seed)
    config = config.model_copy(update={"path": str(tmp_path / "data" / "own")})
    prepare_dataset(config, tmp_path / "own.h5")
    (tmp_path / "data").rename(tmp_path / "gone")
    (tmp_path / "other").rename(tmp_path / "data")
    assert is_noticed(config, tmp_path / "own.h5")


def a_file(folder: Path) -> Path:
    """A file of the source that is read, the largest one."""
    return max((each for each in folder.rglob("*") if each.is_file()), key=lambda each: (each.stat().st_size, each))


def edited(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] = (content[-1] + 1) % 256
    times = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def exchanged(file: Path) -> None:
    """As `tar` and `cp --preserve` write a file: another one with the old times, of the same size."""
    beside = file.with_name("beside")
    shutil.copy2(file, beside)
    edited(beside)
    beside.rename(file)


def shortened(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("change", [edited, exchanged, shortened, Path.unlink])
def test_one_changed_file_is_noticed_whatever_its_times(made, change):
    folder, config, dataset = made
    file = a_file(folder)
    times = file.parent.stat()
    change(file)
    os.utime(file.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert is_noticed(config, dataset)


def touched(folder: Path) -> None:
    for each in [folder, *folder.rglob("*")]:
        os.utime(each)


def made_older(folder: Path) -> None:
    for each in [folder, *folder.rglob("*")]:
        os.utime(each, (AN_HOUR_AGO, AN_HOUR_AGO))


def copied(folder: Path) -> None:
    folder.rename(folder.with_name("gone"))
    shutil.copytree(folder.with_name("gone"), folder, copy_function=shutil.copyfile)


def copied_with_times(folder: Path) -> None:
    copied(folder)
    with_times_of(folder, folder.with_name("gone"))


def with_something_else_in_it(folder: Path) -> None:
    (folder / "README").write_text("for people")
    (folder / ".hidden").write_text("for programs")


@pytest.mark.parametrize("change", [touched, made_older, copied, copied_with_times, with_something_else_in_it])
def test_a_change_of_times_alone_is_none(made, change):
    folder, config, dataset = made
    change(folder)
    assert not is_noticed(config, dataset)


def test_a_project_copied_to_another_place_is_unchanged(made, tmp_path, monkeypatch):
    folder, config, dataset = made
    (tmp_path / "copy").mkdir()
    shutil.copytree(folder, tmp_path / "copy" / "own")
    shutil.copy(dataset, tmp_path / "copy" / "own.h5")
    monkeypatch.chdir(tmp_path / "copy")
    assert not is_noticed(config.model_copy(update={"path": "own"}), Path("own.h5"))


def test_a_change_has_a_state_of_its_own_each_time(made):
    folder, config, dataset = made
    states = {RECORDED}
    for _ in range(3):
        time.sleep(0.02)  # the kernel's clock has ticked
        edited(a_file(folder))
        states.add(state_of(config, dataset, RECORDED))
    assert len(states) == 4


def test_images_that_were_left_out_count_by_name_alone(tmp_path):
    """Of images that were not read no content is known; the part that is trained with hangs on names and numbers."""
    folder = make_images(tmp_path / "own", 0)
    config = DatasetConfig(name="own", source="image_folder", path=str(folder), image_size=8, train_images=2)
    prepare_dataset(config, tmp_path / "own.h5")
    assert not is_noticed(config, tmp_path / "own.h5")
    with h5py.File(tmp_path / "own.h5") as file:
        assert 0 < np.sum(file["source_files/checksums"][:] == 0) < 24


def test_a_mended_image_that_was_skipped_is_noticed(tmp_path):
    folder = make_images(tmp_path / "own", 0)
    broken = folder / "class0" / "00.bmp"
    whole = broken.read_bytes()
    broken.write_bytes(bytes(len(whole)))
    config = DatasetConfig(name="own", source="image_folder", path=str(folder), image_size=8, unreadable_images="skip")
    prepare_dataset(config, tmp_path / "own.h5")
    assert not is_noticed(config, tmp_path / "own.h5")
    broken.write_bytes(whole)
    assert is_noticed(config, tmp_path / "own.h5")


def test_of_many_files_with_new_times_a_sample_is_read_and_with_it_what_changed_last(tmp_path, monkeypatch):
    folder = make_images(tmp_path / "own", 0)
    config = DatasetConfig(name="own", source="image_folder", path=str(folder), image_size=8)
    prepare_dataset(config, tmp_path / "own.h5")
    touched(folder)
    read = []
    checksum = source_state.file_checksum
    monkeypatch.setattr(source_state, "_MAX_FILES", 4)
    monkeypatch.setattr(source_state, "file_checksum", lambda path: read.append(path) or checksum(path))
    assert not is_noticed(config, tmp_path / "own.h5")
    assert 2 <= len(read) <= 4
    for name in ("class0/08.bmp", "class1/13.bmp"):
        time.sleep(0.02)
        edited(folder / name)
        assert is_noticed(config, tmp_path / "own.h5")


@pytest.mark.parametrize("same", [True, False])
def test_a_large_file_is_known_by_blocks_of_it(tmp_path, monkeypatch, same):
    monkeypatch.setattr(source_state, "_WHOLE_BYTES", 2**16)
    content = np.random.default_rng(0).integers(0, 256, 2**20, dtype=np.uint8)
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "other").write_bytes(content if same else content ^ 1)
    checksums = {source_state.file_checksum(tmp_path / name) for name in ("one", "other")}
    assert len(checksums) == (1 if same else 2)


def test_without_a_dataset_the_source_itself_is_told(made):
    _, config, dataset = made
    dataset.unlink()
    assert state_of(config, dataset, RECORDED) == find_source_files(config).state
    dataset.write_bytes(b"cut off")
    assert state_of(config, dataset, None) == find_source_files(config).state


def test_a_source_that_is_gone_is_no_change(made):
    folder, config, dataset = made
    shutil.rmtree(folder)
    assert not is_noticed(config, dataset)


def of_earlier_version(dataset: Path) -> None:
    with h5py.File(dataset, "r+") as file:
        del file["source_files"]


def test_a_dataset_of_an_earlier_version_is_left_as_it_is_unless_its_source_has_changed(made):
    folder, config, dataset = made
    made_older(folder)
    of_earlier_version(dataset)
    assert not is_remembered(dataset)
    assert not is_noticed(config, dataset, None)
    file = a_file(folder)
    times = [(each, each.stat()) for each in (folder, file.parent)]
    shutil.copy(file, file.with_name(f"more{file.suffix}"))
    for each, status in times:
        os.utime(each, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(file.with_name(f"more{file.suffix}"), (AN_HOUR_AGO, AN_HOUR_AGO))
    if config.source == "image_folder":
        assert is_noticed(config, dataset, None), "another number of images"
    os.utime(file)
    os.utime(file.parent)
    assert is_noticed(config, dataset, None), "as its rule's inputs tell anyway"


def test_sources_without_files_of_their_own_have_no_state(tmp_path):
    for source in ("digits", "synthetic", "cifar100"):
        config = DatasetConfig(name="own", source=source, path=str(tmp_path))
        assert find_source_files(config) is None
        assert state_of(config, tmp_path / "own.h5", None) is None
