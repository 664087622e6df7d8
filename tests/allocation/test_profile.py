"""Members measured in processes of their own, some of which come to grief."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from itertools import pairwise

import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.allocation import Profile, profile_members, profiles_from_table, profiles_table
from ensembleflow.allocation.benches import profile_process
from ensembleflow.inference import Device, Member
from ensembleflow.models.engines import ENGINES
from support.processor import has_bfloat16
from support.troubled_members import make_member

CORES = tuple(sorted(os.sched_getaffinity(0)))
ONE_CORE = Device("cpu0", CORES[:1], 4096)


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ended meanwhile
            if profile_process.__file__ in child.cmdline():
                found.append(child)
    return found


@contextmanager
def watching(*, kill_first: bool = False) -> Iterator[dict[int, set[int]]]:
    """The cores that each measuring process was last seen bound to, by its number; the first is killed if wanted."""
    seen: dict[int, set[int]] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for child in children():
                with suppress(psutil.Error):
                    if kill_first and not seen:
                        child.kill()
                    seen[child.pid] = set(child.cpu_affinity())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_each_member_kind_of_device_and_engine_is_measured_once(exported, images, caplog):
    models = exported.models[:2]
    members = [Member(model, exported.folder / model) for model in models]
    devices = [ONE_CORE, Device("cpu1", CORES[-1:], 4096), Device("both", CORES, 4096)]
    expected = {model: exported.answers(model, images) for model in models}
    with caplog.at_level(logging.INFO, "ensembleflow"), watching() as seen:
        profiles = profile_members(members, devices, ["openvino"], [32, 1, 8], images, expected=expected, seconds=0.3)
    kinds = list(dict.fromkeys(device.kind for device in devices))
    assert [(each.model, each.device_kind, each.engine, each.batch_size) for each in profiles] == [
        (model, kind, "openvino", size) for model in models for kind in kinds for size in (1, 8, 32)
    ]
    assert [each.failure for each in profiles] == [""] * len(profiles)
    assert all(each.images_per_second > 0 and 30 < each.peak_memory_mb < 2000 for each in profiles)
    for small, large in pairwise(profiles):
        if small.batch_size < large.batch_size:
            assert small.peak_memory_mb <= large.peak_memory_mb
    # A fresh process each, bound to the cores of the first device of its kind.
    assert list(seen.values()) == [set(ONE_CORE.core_ids), set(CORES)][: len(kinds)] * len(models)
    messages = [record.getMessage() for record in caplog.records if getattr(record, "progress", False)]
    assert len(messages) == len(models) * len(kinds)
    assert messages[-1].startswith(
        f"profiles: {len(messages)}/{len(messages)}: {models[-1]} on {kinds[-1]} with openvino: "
    )


_PARENT = """
import sys
import numpy as np
from ensembleflow.allocation import profile_members
from ensembleflow.inference import Device, Member
model, folder, core = sys.argv[1:]
images = np.zeros((8, 8, 8, 1), np.uint8)
(profile,) = profile_members(
    [Member(model, folder)], [Device("cpu0", (int(core),), 4096)], ["tensorflow"], [8], images, seconds=0.05
)
assert profile.images_per_second > 0, profile
assert "tensorflow" not in sys.modules
"""


def test_whoever_has_members_measured_need_not_import_tensorflow(exported):
    model = exported.models[0]
    command = [sys.executable, "-c", _PARENT, model, str(exported.folder / model), str(CORES[0])]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


def test_a_member_that_fails_at_a_batch_size_scores_0_there_and_above(exported, images):
    members = [Member("trial-00002", exported.folder / "trial-00002")]
    profiles = profile_members(members, [ONE_CORE], ["tensorflow"], [8, 64, 65, 128], images, seconds=0.05)
    fine, failed = profiles[:2], profiles[2:]
    assert all(each.images_per_second > 0 and each.peak_memory_mb > 0 and not each.failure for each in fine)
    assert all(each.images_per_second == each.peak_memory_mb == 0 for each in failed)
    assert all("out of pretended memory" in each.failure for each in failed)


@pytest.mark.parametrize(
    ("trouble", "reason"), [("hang", "no answer within 4 seconds"), ("memory", "Failed to allocate memory")]
)
def test_a_hang_or_full_memory_ends_that_process_alone(exported, images, tmp_path, trouble, reason):
    one = Member("one", make_member(tmp_path / "one", trouble))
    other = Member("other", make_member(tmp_path / "other", trouble))
    profiles = profile_members(
        [one, other], [ONE_CORE], ["onnxruntime"], [4, 8, 9, 16], images, seconds=0.05, timeout_seconds=4
    )
    for of_one in (profiles[:4], profiles[4:]):
        assert [each.images_per_second > 0 for each in of_one] == [True, True, False, False]
        assert all(reason in each.failure for each in of_one[2:])
    assert children() == []


def test_a_killed_process_harms_no_other(exported, images):
    members = [Member(model, exported.folder / model) for model in exported.models[:2]]
    with watching(kill_first=True):
        profiles = profile_members(members, [ONE_CORE], ["openvino"], [1, 8], images, seconds=0.05)
    killed, unharmed = profiles[:2], profiles[2:]
    assert {each.failure for each in killed} == {"its process was killed by SIGKILL (out of memory?)"}
    assert all(each.images_per_second > 0 and not each.failure for each in unharmed)


def test_an_engine_that_answers_otherwise_than_the_cache_scores_0(exported, images):
    model = exported.models[0]
    wrong = exported.answers(model, images)
    wrong[7, 3] += 2e-4
    members = [Member(model, exported.folder / model)]
    profiles = profile_members(members, [ONE_CORE], ["openvino"], [1, 8], images, expected={model: wrong}, seconds=0.05)
    assert all(each.images_per_second == 0 for each in profiles)
    assert all(
        "answers otherwise than the exported function: probabilities that differ by up to 0.0002" in each.failure
        for each in profiles
    )


def test_each_engine_has_its_own_tolerance_beyond_the_rounding_of_the_cache(exported, images):
    model = exported.models[0]
    wrong = exported.answers(model, images)
    wrong[7, 3] += 2e-4
    members, expected = [Member(model, exported.folder / model)], {model: wrong}
    engines = ["openvino", "openvino_bfloat16"]
    profiles = profile_members(members, [ONE_CORE], engines, [8], images, expected=expected, seconds=0.05)
    assert "answers otherwise" in profiles[0].failure
    assert ("does not compute in bfloat16" in profiles[1].failure) is not has_bfloat16()
    (rounded,) = profile_members(
        members, [ONE_CORE], engines[:1], [8], images, expected=expected, expected_rounding=2e-4, seconds=0.05
    )
    assert not rounded.failure and rounded.images_per_second > 0


def test_what_cannot_be_loaded_scores_0_with_the_reason(images, tmp_path):
    members = [Member("absent", tmp_path / "absent")]
    on_gpu = Device("gpu0", CORES[:1], 80_000, gpu="0", gpu_name="NVIDIA H100")
    profiles = profile_members(members, [ONE_CORE, on_gpu], ["openvino", "caffe"], [1], images)
    assert [(each.device_kind, each.engine, each.images_per_second) for each in profiles] == [
        ("cpu-1", "openvino", 0),
        ("cpu-1", "caffe", 0),
        ("NVIDIA H100", "openvino", 0),
        ("NVIDIA H100", "caffe", 0),
    ]
    reasons = [each.failure for each in profiles]
    assert "cannot be read" in reasons[0]
    assert "CPU cores only" in reasons[2]
    assert reasons[1] == reasons[3] == "there is no such engine: caffe"


_PROFILES = st.lists(
    st.builds(
        Profile,
        model=st.from_regex(r"trial-[0-9]{5}", fullmatch=True),
        device_kind=st.sampled_from(["cpu-1", "NVIDIA H100 80GB HBM3"]),
        engine=st.sampled_from(ENGINES),
        batch_size=st.integers(1, 4096),
        images_per_second=st.floats(0, 1e7),
        peak_memory_mb=st.floats(0, 1e6),
        failure=st.text(st.characters(categories=["L", "N", "P"]), max_size=20).map(lambda text: text and f"x{text}"),
    ),
    max_size=5,
)


@given(profiles=_PROFILES)
def test_profiles_survive_a_table_in_a_file(profiles):
    table = profiles_table(profiles)
    assert profiles_from_table(table) == profiles
    assert profiles_from_table(pd.read_csv(StringIO(table.to_csv(index=False)))) == profiles


def test_images_are_repeated_up_to_the_largest_batch(exported, images):
    model = exported.models[0]
    members = [Member(model, exported.folder / model)]
    (profile,) = profile_members(members, [ONE_CORE], ["openvino"], [7], images[:3], seconds=0.05)
    assert profile.images_per_second > 0


def test_a_process_ends_with_its_parent(exported, images, tmp_path):
    """Even while its engine hangs."""
    hanging = make_member(tmp_path / "bad", "hang")
    code = (
        "import numpy as np, sys; from pathlib import Path\n"
        "from ensembleflow.allocation import profile_members\n"
        "from ensembleflow.inference import Device, Member\n"
        f"profile_members([Member('bad', Path(sys.argv[1]))], [Device('cpu0', {CORES[:1]}, 4096)], ['onnxruntime'],"
        " [16], np.zeros((1, 8, 8, 1), np.uint8))"
    )
    parent = psutil.Popen([sys.executable, "-c", code, str(hanging)])
    try:
        child = _wait_for(lambda: next(iter(parent.children()), None))
        _wait_for(lambda: child.cpu_times().user > 2)  # it has imported all, and hangs
    finally:
        parent.kill()
        parent.wait()
    assert psutil.wait_procs([child], timeout=30)[1] == []


def _wait_for(found):
    for _ in range(1200):
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("nothing happened for a minute")
