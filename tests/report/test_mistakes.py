"""What an ensemble gets wrong: tables that agree with scikit-learn's, and the votes behind each wrong answer."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ensembleflow.io import read_json
from ensembleflow.library import create_predictions, open_predictions
from ensembleflow.report import tabulate_mistakes
from ensembleflow.report.answers import Answers, answers_on_test
from ensembleflow.report.mistakes import class_table, confusion_table, surest_mistakes
from ensembleflow.report.page.mistakes import picture
from support.report_artefacts import write_artefacts


def answered(labels: np.ndarray, predicted: np.ndarray) -> Answers:
    return Answers(labels, predicted, np.ones(len(labels)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_classes_and_confusions_are_those_of_scikit_learn(seed: int, n_images: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, n_classes, (2, n_images))
    names = [f"class {i}" for i in range(n_classes)]
    table = class_table(answered(labels, predicted), names)
    counts = confusion_table(answered(labels, predicted), names)
    matrix = confusion_matrix(labels, predicted, labels=range(n_classes))
    found = counts.pivot(index="label", columns="predicted", values="images")
    np.testing.assert_array_equal(found.reindex(index=names, columns=names).fillna(0), matrix)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(n_classes), zero_division=np.nan
    )
    assert table["class"].tolist() == names
    assert table.images.tolist() == support.tolist()
    np.testing.assert_allclose(table.precision, precision)
    np.testing.assert_allclose(table.recall, recall)
    np.testing.assert_allclose(table.f1, f1)
    wrong = matrix - np.diag(np.diag(matrix))
    for row, other in zip(wrong, table.most_taken_for, strict=True):
        assert (other == "") == (row.sum() == 0)
        assert other == "" or row[names.index(other)] == row.max()


def test_the_surest_mistakes_come_first_with_every_members_vote(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("16x",))
    members = read_json(made.selection_jsons[0])["members"]
    answers = answers_on_test(made.predictions_h5, {"16x": members})["16x"]
    table = surest_mistakes(made.predictions_h5, members, answers, 5)
    with open_predictions(made.predictions_h5) as predictions:
        values, labels = np.array(predictions.probabilities("test")), predictions.labels("test")
        names, places = predictions.class_names, [predictions.models.index(member) for member in members]
    mean = values[places].mean(axis=0, dtype=np.float64)
    wrong = np.flatnonzero(mean.argmax(axis=1) != labels)
    expected = wrong[np.argsort(-mean[wrong].max(axis=1), kind="stable")][:5]
    assert table.drop_duplicates("rank").image.tolist() == expected.tolist()
    for rank, image in enumerate(expected, start=1):
        own = table[table["rank"] == rank]
        assert own.member.tolist() == members
        assert set(own.label) == {names[labels[image]]} and set(own.predicted) == {names[mean[image].argmax()]}
        np.testing.assert_allclose(own.confidence, mean[image].max())
        np.testing.assert_allclose(own.label_probability, mean[image, labels[image]])
        np.testing.assert_allclose(own.member_probability, values[places, image].max(axis=1))
        assert own.member_predicted.tolist() == [names[vote.argmax()] for vote in values[places, image]]


@pytest.mark.parametrize("every_class", [True, False])
def test_every_budget_has_its_rows_in_all_three_tables_if_the_classes_are_known(
    tmp_path: Path, every_class: bool
) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "16x"))
    if not every_class:
        with open_predictions(made.predictions_h5) as old:
            facts = {"study": old.study, "dataset_checksum": old.dataset_checksum, "class_names": old.class_names}
            labels = {split: old.labels(split) for split in ("valid", "test")}
            values = {split: np.array(old.probabilities(split)) for split in labels}
            models = list(old.models)
        digests = ["0"] * len(models)
        with create_predictions(
            made.predictions_h5, **facts, models=models, weights_sha256=digests, labels=labels, every_class=False
        ) as writer:
            for split, own in values.items():
                for place, probabilities in enumerate(own):
                    writer.write(split, place, 0, probabilities)
    paths = [tmp_path / f"{name}.csv" for name in ("classes", "confusion", "mistakes")]
    tabulate_mistakes(made.predictions_h5, made.selection_jsons, *paths)
    classes, confusion, mistakes = (pd.read_csv(path, dtype={"budget": str}) for path in paths)
    known = ["1x", "16x"] if every_class else []
    assert list(dict.fromkeys(classes.budget)) == list(dict.fromkeys(confusion.budget)) == known
    wrong = confusion[confusion.label != confusion.predicted].groupby("budget").images.sum()
    assert mistakes.groupby("budget").image.nunique().to_dict() == wrong.clip(upper=50).to_dict()
    assert classes.images.sum() == confusion.images.sum() == (2 * 240 if every_class else 0)


@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_picture_of_any_shape_is_a_small_png_and_a_small_one_keeps_every_pixel(
    height: int, width: int, channels: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    head, data = picture(image).split(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        assert max(opened.size) <= 64
        if max(height, width) <= 64:
            shown = image if channels == 3 else image[:, :, 0]
            np.testing.assert_array_equal(np.asarray(opened), shown)
