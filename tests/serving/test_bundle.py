"""Bundles: made, checked, opened elsewhere, and predicting."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembleflow.cli import main
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import BundleError
from ensembleflow.inference import MemberError
from ensembleflow.models.tolerances import BFLOAT16_ANSWER_TOLERANCE
from ensembleflow.serving import check_answers, open_bundle
from support.processor import has_bfloat16
from support.stage_artefacts import Results

MEMBERS = ("trial-00001", "trial-00000")


@pytest.fixture(scope="module")
def original(exported, tmp_path_factory) -> Path:
    """A bundle whose results folder is gone."""
    folder = tmp_path_factory.mktemp("results")
    made = tmp_path_factory.mktemp("elsewhere") / "bundle"
    Results(folder, exported, MEMBERS).make_bundle(folder / "bundle")
    shutil.copytree(folder / "bundle", made)
    shutil.rmtree(folder)
    return made


@pytest.fixture
def bundle(original, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def edit_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    return str(caught.value)


def test_the_manifest_tells_what_the_ensemble_is(bundle):
    manifest = open_bundle(bundle).manifest
    assert (manifest.schema_version, manifest.study, manifest.budget) == (2, "digits-random-s0", "4x")
    assert manifest.members == [placement.model for placement in manifest.allocation] == list(MEMBERS)
    assert manifest.image_shape == (8, 8, 1)
    assert manifest.class_names == [str(digit) for digit in range(10)]
    assert (manifest.combiner, manifest.cost_seconds, manifest.images_per_second) == ("average", 0.3, 1000.0)
    assert set(manifest.valid) == {"error", "macro_f1_error", "cross_entropy", "brier"}
    assert "members/trial-00001/saved_model.pb" in manifest.files
    assert manifest.provenance["python"]


def test_budgets_of_the_same_ensemble_and_allocation_share_one_proof_and_its_files(exported, tmp_path):
    results = Results(tmp_path, exported, MEMBERS)

    def bundle_of(budget: str, **edits: object) -> Path:
        for path, more in ((results.selection, {}), (results.allocation, edits)):
            results.write(path, {**json.loads(path.read_text()), "budget": budget, **more})
        results.make_bundle(tmp_path / budget)
        return tmp_path / budget

    def entries() -> int:
        return sum(path.is_dir() for path in (tmp_path / "bundle-store").iterdir())

    first, second = bundle_of("1x"), bundle_of("2x")
    assert entries() == 1
    manifests = [open_bundle(path).manifest for path in (first, second)]
    assert [manifest.budget for manifest in manifests] == ["1x", "2x"]
    assert manifests[0] == manifests[1].model_copy(update={"budget": "1x"})
    weights = [path / "members/trial-00001/saved_model.pb" for path in (first, second)]
    assert weights[0].samefile(weights[1])
    other = bundle_of("4x", images_per_second=2000.0)
    assert entries() == 2 and open_bundle(other).manifest.images_per_second == 2000
    shutil.rmtree(tmp_path / "bundle-store")
    open_bundle(second)


def test_a_bundle_is_servable_by_the_proof_that_a_server_answered_as_the_cache_does(bundle):
    proof = open_bundle(bundle).manifest.servable
    assert proof is not None
    assert proof.n_images == 200
    assert 0 <= proof.largest_difference <= 1e-5 < proof.tolerance < 2e-4
    assert (proof.engines, proof.n_other_classes) == (["tensorflow"], 0)


def test_a_bundle_tells_what_computed_it_and_holds_other_engines_to_the_wider_tolerance(exported, tmp_path):
    results = Results(tmp_path, exported, MEMBERS)
    allocation = json.loads(results.allocation.read_text())
    allocation["members"][0]["engine"] = "openvino_bfloat16"
    results.allocation.write_text(json.dumps(allocation))
    if not has_bfloat16():
        with pytest.raises(MemberError, match="does not compute in bfloat16"):
            results.make_bundle(tmp_path / "bundle")
        return
    results.make_bundle(tmp_path / "bundle")
    opened = open_bundle(tmp_path / "bundle")
    proof = opened.manifest.servable
    assert proof.engines == ["openvino_bfloat16", "tensorflow"]
    assert 1e-6 < proof.largest_difference <= BFLOAT16_ANSWER_TOLERANCE <= proof.tolerance
    assert 0 <= proof.n_other_classes <= proof.n_images
    exact = tuple(replace(placement, engine="tensorflow") for placement in opened.allocation)
    assert opened.answer_tolerance(exact) == opened.answer_tolerance(opened.allocation) == BFLOAT16_ANSWER_TOLERANCE
    with opened.pipeline() as pipeline:
        pipeline.reconfigure(exact)
        check_answers(opened, pipeline)


def test_a_bundle_without_the_proof_is_not_served(bundle, capsys):
    edit_manifest(bundle, servable=None)
    assert main(["serve", str(bundle), "--port", "0"]) == 1
    printed = capsys.readouterr().err
    assert "the bundle is not servable" in printed and "snakemake bundles" in printed and "Traceback" not in printed


def test_a_simulated_allocation_is_neither_bundled_nor_served(bundle, exported, tmp_path, capsys):
    results = Results(tmp_path, exported, MEMBERS)
    allocation = json.loads(results.allocation.read_text())
    results.allocation.write_text(json.dumps({**allocation, "bench": {"kind": "simulated"}}))
    with pytest.raises(BundleError, match="a simulated allocation cannot be served"):
        results.make_bundle(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert main(["serve", str(bundle), "--port", "0", "--allocation", str(results.allocation)]) == 1
    assert "a simulated allocation cannot be served" in capsys.readouterr().err


def test_check_images_come_with_the_ensembles_answers(bundle, exported):
    opened = open_bundle(bundle)
    images = opened.check_images()
    assert len(images) == 200
    np.testing.assert_allclose(opened.check_probabilities(), exported.average(images, MEMBERS), atol=1e-6)


def test_a_copied_bundle_predicts_files_and_arrays_without_the_results_folder(
    bundle, exported, tmp_path, capsys, monkeypatch
):
    random = np.random.default_rng(3)
    small, large = (random.integers(0, 256, (size, size), dtype=np.uint8) for size in (8, 40))
    several = random.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    Image.fromarray(large).convert("RGB").save(tmp_path / "large.jpg")
    np.save(tmp_path / "several.npy", several)
    monkeypatch.chdir(tmp_path)

    assert main(["predict", str(bundle), "small.png", "large.jpg", "several.npy", "--top", "2", "--json"]) == 0
    printed = capsys.readouterr()
    answers = json.loads(printed.out)
    assert [(answer["file"], answer["index"]) for answer in answers] == [
        ("small.png", None),
        ("large.jpg", None),
        ("several.npy", 0),
        ("several.npy", 1),
        ("several.npy", 2),
    ]
    expected = exported.average(np.concatenate([small[None, :, :, None], several]), MEMBERS)
    for answer, row in zip([answers[0], *answers[2:]], expected, strict=True):
        best = np.argsort(-row)[:2]
        assert [each["class"] for each in answer["predictions"]] == [str(digit) for digit in best]
        assert [each["probability"] for each in answer["predictions"]] == pytest.approx(list(row[best]), abs=1e-5)
    assert printed.err == "note: large.jpg was resized from 40x40 to 8x8 pixels\n"


def test_a_folder_that_is_no_bundle_is_refused(tmp_path, capsys):
    assert main(["predict", str(tmp_path / "nothing"), "image.png"]) == 1
    assert "there is no bundle" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["members/trial-00001/saved_model.pb", "check/probabilities.npy"])
def test_a_changed_file_is_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    assert f"changed: {name}" in refusal(bundle)


def test_missing_foreign_and_linked_files_are_named(bundle):
    (bundle / "check/images.npy").unlink()
    assert "missing: check/images.npy" in refusal(bundle)
    (bundle / "members/trial-00001/extra.py").write_text("")
    assert "not part of the bundle: members/trial-00001/extra.py" in refusal(bundle)
    (bundle / "check/images.npy").symlink_to("/etc/passwd")
    assert "must not hold links" in refusal(bundle)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema_version": 3}, "another version"),
        ({"members": []}, "members"),
        ({"members": ["../../outside"]}, "members.0"),
        ({"allocation": [{"model": "trial-00001", "device": "gpu0", "batch_size": 1}]}, "device gpu0"),
        ({"image_shape": [8, 8, 10**9]}, "image_shape"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(bundle, changes, expected):
    edit_manifest(bundle, **changes)
    message = refusal(bundle)
    assert expected in message
    assert "bundle.json" in message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', "[" * 100_000])
def test_a_broken_manifest_is_refused(bundle, content):
    (bundle / "bundle.json").write_text(content)
    assert "bundle.json" in refusal(bundle)


def test_a_pickled_check_array_is_refused(bundle):
    np.save(bundle / "check/images.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(BundleError, match="damaged"):
        open_bundle_unchecked(bundle).check_images()


def open_bundle_unchecked(bundle: Path):
    """With checksums that agree, as a malicious sender would write them."""
    from ensembleflow.serving.bundle import file_checksums

    edit_manifest(bundle, files=file_checksums(bundle))
    return open_bundle(bundle)


def test_devices_with_more_cores_than_the_machine_share_them_with_a_warning(bundle, caplog):
    devices = [{"name": "cpu0", "cores": 3000, "memory_mb": 4096}]
    edit_manifest(bundle, devices=devices)
    with caplog.at_level(logging.WARNING):
        pipeline = open_bundle(bundle).pipeline()
    assert "the devices ask for 3000 cores" in caplog.text
    assert pipeline.allocation[0].device == "cpu0"


def test_a_bundle_that_would_answer_differently_is_not_made(exported, tmp_path):
    results = Results(tmp_path, exported, ("trial-00000",), disturbance=1e-3)
    with pytest.raises(BundleError, match="answers differently") as caught:
        results.make_bundle(tmp_path / "bundles" / "budget-4x")
    assert "1 of 200 images differ" in str(caught.value)
    assert "predictions.h5" in str(caught.value)
    assert not (tmp_path / "bundles").exists() and list((tmp_path / "bundle-store").iterdir()) == []


@pytest.mark.parametrize("every_class", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_whatever_the_cache_holds_the_bundle_holds_every_answer_unrounded(exported, tmp_path, dtype, every_class):
    Results(tmp_path, exported, MEMBERS, dtype=dtype, every_class=every_class).make_bundle(tmp_path / "bundle")
    opened = open_bundle(tmp_path / "bundle")
    images = opened.check_images()
    np.testing.assert_allclose(opened.check_probabilities(), exported.average(images, MEMBERS), atol=1e-6)
    with opened.pipeline() as pipeline:
        check_answers(opened, pipeline)
    known = {"error", "macro_f1_error", "cross_entropy", "brier"} if every_class else {"cross_entropy"}
    assert set(opened.manifest.valid) == set(opened.manifest.test) == known


@pytest.mark.parametrize("every_class", [True, False])
@pytest.mark.parametrize(("dtype", "disturbance"), [("float32", 2e-4), ("float16", 1e-3)])
def test_more_than_the_rounding_of_the_cache_makes_no_bundle(exported, tmp_path, dtype, disturbance, every_class):
    results = Results(tmp_path, exported, ("trial-00000",), disturbance, dtype, every_class)
    with pytest.raises(BundleError, match="1 of 200 images differ"):
        results.make_bundle(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_probabilities_near_1_in_half_precision_are_within_the_rounding():
    rounding = np.finfo(np.float16).epsneg / 2
    exact = np.random.default_rng(0).random(100_000)
    assert rounding * 0.99 < np.abs(exact.astype(np.float16) - exact).max() <= rounding


def test_artefacts_that_do_not_belong_together_make_no_bundle(exported, tmp_path):
    results = Results(tmp_path, exported, MEMBERS)
    allocation = json.loads(results.allocation.read_text())
    results.allocation.write_text(json.dumps({**allocation, "members": allocation["members"][::-1]}))
    with pytest.raises(BundleError, match="do not belong together") as caught:
        results.make_bundle(tmp_path / "bundle")
    assert "allocation.json: members" in str(caught.value)
    results.allocation.write_text(json.dumps({**allocation, "budget": "8x"}))
    with pytest.raises(BundleError, match="do not belong together"):
        results.make_bundle(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_predictions_of_another_dataset_make_no_bundle(exported, tmp_path):
    import h5py

    results = Results(tmp_path, exported, MEMBERS)
    with h5py.File(results.predictions, "a") as file:
        file.attrs["dataset_checksum"] = "0" * 64
    with pytest.raises(BundleError, match="do not belong together"):
        results.make_bundle(tmp_path / "bundle")
    with open_dataset(results.dataset) as dataset:
        assert dataset.name == "digits"
