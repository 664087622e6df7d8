"""A cascade from its artefact to a server that says at which stage an image stopped."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from ensembleflow.errors import BundleError
from ensembleflow.inference import CascadeDispatcher
from ensembleflow.library import open_predictions
from ensembleflow.selection.cascade import Stages
from ensembleflow.serving import check_answers, open_bundle
from ensembleflow.serving.live_shares import LiveShares
from support.server_process import INFER, MODEL, ServerProcess, png
from support.stage_artefacts import Results

ORDER = ("trial-00001", "trial-00000", "trial-00002")


@pytest.fixture(scope="module")
def results(exported, tmp_path_factory) -> Results:
    return Results(tmp_path_factory.mktemp("results"), exported, tuple(sorted(ORDER)))


@pytest.fixture(scope="module")
def thresholds(results) -> list[float]:
    """Half of the images stop at the first stage, and half of the others at the second."""
    with open_predictions(results.predictions) as predictions:
        places = [predictions.models.index(model) for model in ORDER]
        stages = Stages.of(predictions.probabilities("valid")[places])
    first = float(np.median(stages.confidences[0]))
    return [first, float(np.median(stages.confidences[1, stages.confidences[0] < first]))]


@pytest.fixture(scope="module")
def bundle(results, thresholds) -> Path:
    results.make_bundle(results.folder / "cascade", results.write_cascade(ORDER, thresholds))
    return results.folder / "cascade"


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    with ServerProcess(bundle, tmp_path_factory.mktemp("server")) as server:
        server.wait_until_ready()
        yield server


def expected_of(exported, images: np.ndarray, thresholds: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Stages from 1 on, and probabilities."""
    members = np.stack([exported.answers(model, images) for model in ORDER])
    stops = Stages.of(members).stops(thresholds)
    means = members.cumsum(axis=0)[stops, np.arange(len(images))] / (stops + 1)[:, None]
    return stops + 1, means


def test_a_bundle_keeps_where_its_images_stop_and_what_all_members_answer(bundle, exported, thresholds):
    opened = open_bundle(bundle)
    cascade = opened.manifest.cascade
    assert cascade is not None
    assert (cascade.members, cascade.thresholds) == (list(ORDER), thresholds)
    assert opened.shares[ORDER[0]] == 1 and 0.2 < opened.shares[ORDER[2]] < 0.3
    images = opened.check_images()
    _, expected = expected_of(exported, images, thresholds)
    np.testing.assert_allclose(opened.check_probabilities(), expected, atol=1e-6)
    full, rounding = opened.full_probabilities()
    np.testing.assert_allclose(full, exported.average(images), atol=1e-6)
    assert rounding < 1e-6
    assert isinstance(opened.dispatcher(), CascadeDispatcher)
    with opened.pipeline() as pipeline:
        check_answers(opened, pipeline)


def test_a_client_gets_the_cascades_answer_its_stage_and_how_sure_it_was(server, exported, thresholds, images):
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = triton.InferInput("images", images.shape, "UINT8")
        tensor.set_data_from_numpy(images)
        names = ("probabilities", "stage", "confidence", "member_probabilities", "disagreement")
        outputs = [triton.InferRequestedOutput(name, binary_data=True) for name in names]
        answer = client.infer(MODEL, [tensor], outputs=outputs)
        metadata = client.get_model_metadata(MODEL)
        config = client.get_model_config(MODEL)
    stages, expected = expected_of(exported, images, thresholds)
    np.testing.assert_array_equal(answer.as_numpy("stage"), stages)
    assert answer.as_numpy("stage").dtype == np.int32
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
    np.testing.assert_allclose(answer.as_numpy("confidence"), expected.max(axis=1), atol=1e-6)
    by_member = answer.as_numpy("member_probabilities")
    for place, model in enumerate(sorted(ORDER)):
        asked = stages > ORDER.index(model)
        assert np.isnan(by_member[~asked, place]).all()
        np.testing.assert_allclose(by_member[asked, place], exported.answers(model, images)[asked], atol=1e-6)
    assert answer.as_numpy("disagreement")[stages == 1].max(initial=0) == 0
    datatypes = {output["name"]: (output["datatype"], output["shape"]) for output in metadata["outputs"]}
    assert datatypes["stage"] == ("INT32", [-1]) and datatypes["confidence"] == ("FP32", [-1])
    assert metadata["ensemble"]["cascade"]["members"] == list(ORDER)
    assert "TYPE_INT32" in {output["data_type"] for output in config["output"]}


def test_json_has_null_for_members_that_were_not_asked(server, exported, thresholds, images):
    stages, _ = expected_of(exported, images, thresholds)
    place = int(np.flatnonzero(stages == 1)[0])
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": images[place].tolist()}
    content = {"inputs": [tensor], "outputs": [{"name": "member_probabilities"}, {"name": "stage"}]}
    outputs = httpx.post(f"{server.url}{INFER}", json=content).json()["outputs"]
    assert outputs[1] == {"name": "stage", "datatype": "INT32", "shape": [1], "data": [1]}
    values = np.array(outputs[0]["data"], dtype=object).reshape(3, 10)
    assert [row[0] is None for row in values] == [model != ORDER[0] for model in sorted(ORDER)]


def test_a_dropped_image_has_the_votes_of_those_that_saw_it(server, exported, thresholds, images):
    stages, expected = expected_of(exported, images, thresholds)
    for stage in (1, 2, 3):
        place = int(np.flatnonzero(stages == stage)[0])
        told = httpx.post(f"{server.url}/classify", content=png(images[place, :, :, 0])).json()
        assert told["stage"] == len(told["votes"]) == stage
        assert {vote["member"] for vote in told["votes"]} == set(ORDER[:stage])
        assert told["confidence"] == pytest.approx(expected[place].max(), abs=1e-5)


def test_metrics_tell_which_share_each_member_sees_and_what_was_calibrated(server, bundle):
    text = httpx.get(f"{server.url}/metrics").text
    for model in ORDER:
        assert f'ensembleflow_cascade_images_total{{model="{model}"}}' in text
    for model in ORDER[1:]:
        assert f'ensembleflow_cascade_share{{model="{model}"}}' in text
        assert f'ensembleflow_cascade_share_calibrated_low{{model="{model}"}}' in text
    assert "ensembleflow_cascade_shifted 0.0" in text


def test_other_members_and_other_budgets_are_refused(results, thresholds, tmp_path):
    content = json.loads(results.write_cascade(ORDER, thresholds).read_text())
    for changes in ({"members": [*ORDER[:2], "trial-00009"]}, {"budget": "8x"}, {"study": "other"}):
        cascade = tmp_path / "cascade.json"
        cascade.write_text(json.dumps({**content, **changes}))
        with pytest.raises(BundleError, match="do not belong together"):
            results.make_bundle(tmp_path / "bundle", cascade)
    assert not (tmp_path / "bundle").exists()


def test_a_cascade_whose_images_are_all_near_a_threshold_cannot_be_proven(results, thresholds, tmp_path, monkeypatch):
    module = sys.modules["ensembleflow.serving.make_bundle"]  # whose name in the package is the function's
    monkeypatch.setattr(module, "answer_tolerance", lambda engines: 1.0)
    with pytest.raises(BundleError, match="no validation image tells"):
        results.make_bundle(tmp_path / "bundle", results.write_cascade(ORDER, thresholds))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"members": ["trial-00001", "trial-00000", "trial-00007"]}, "other members"),
        ({"thresholds": [0.5]}, "do not belong to the members"),
        ({"max_changed": 2}, "max_changed"),
    ],
)
def test_a_manifest_whose_cascade_was_edited_is_refused(bundle, tmp_path, changes, told):
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["cascade"] |= changes
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="a bundle is damaged") as caught:
        open_bundle(copy)
    assert told in str(caught.value)


def test_a_server_does_not_start_with_other_thresholds(bundle, tmp_path):
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["cascade"]["thresholds"] = [0.0, 0.0]
    (copy / "bundle.json").write_text(json.dumps(manifest))
    opened = open_bundle(copy)
    with opened.pipeline() as pipeline, pytest.raises(BundleError, match="answers differently"):
        check_answers(opened, pipeline)


INTERVALS = {"a": (1.0, 1.0), "b": (0.28, 0.32), "c": (0.09, 0.12)}


def counted(n_images: int, second: float = 0.3, third: float = 0.1, before: int = 0) -> LiveShares:
    """After so many images before, of which the calibrated shares went on, `n_images` of which others do."""
    live, random = LiveShares(INTERVALS), np.random.default_rng(0)
    for start in range(0, before + n_images, 50):
        shares = (0.3, 0.1) if start < before else (second, third)
        live.add({"a": 50, **{model: random.binomial(50, share) for model, share in zip("bc", shares, strict=True)}})
    return live


def test_the_alarm_is_silent_as_long_as_shares_are_what_was_calibrated():
    assert not counted(50_000).shifted


def test_the_alarm_is_raised_once_other_shares_of_the_last_images_go_on(caplog):
    assert counted(5_000, 0.6, 0.4, before=20_000).shifted
    assert caplog.text.count("images of another kind come") == 1
    assert counted(5_000, 0.1, 0.0).shifted


def test_few_images_are_no_sample():
    assert not counted(450, 0.9, 0.9).shifted
    samples = [sample for metric in LiveShares(INTERVALS).collect() for sample in metric.samples]
    assert all(math.isfinite(sample.value) for sample in samples)
