"""What an ensemble gets wrong: class by class, which class is taken for which, and where it was surest of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ensembleflow.io import read_json, write_csv
from ensembleflow.library import open_predictions
from ensembleflow.report.answers import Answers, answers_on_test

__all__ = ["class_table", "confusion_table", "surest_mistakes", "tabulate_mistakes"]

_N_TABULATED = 50
_CLASS_COLUMNS = ["class", "images", "answered", "right", "recall", "precision", "f1", "most_taken_for"]
_CONFUSION_COLUMNS = ["label", "predicted", "images"]
_MISTAKE_COLUMNS = [
    *("rank", "image", "label", "predicted", "confidence", "label_probability"),
    *("member", "member_predicted", "member_probability", "member_label_probability"),
]


def tabulate_mistakes(
    predictions_h5: str | Path,
    selection_jsons: Sequence[str | Path],
    classes_csv: str | Path,
    confusion_csv: str | Path,
    mistakes_csv: str | Path,
) -> None:
    """Write what each budget's ensemble gets wrong on the test images; see the functions for the columns.

    The tables have no rows where only the true class's probabilities are cached.

    Args:
        predictions_h5: the library's cache.
        selection_jsons: `budget-{budget}.json` of every budget, in the order of the rows.
        classes_csv: `class_table` of each budget.
        confusion_csv: `confusion_table` of each budget.
        mistakes_csv: the 50 `surest_mistakes` of each budget.

    Raises:
        ArtefactError: an artefact is missing or damaged.
        StorageError: an output cannot be written.
    """
    ensembles: dict[str, list[str]] = {}
    for path in selection_jsons:
        selection = read_json(path, ["budget", "members"])
        ensembles[str(selection["budget"])] = selection["members"]
    answers = answers_on_test(predictions_h5, ensembles) or {}
    with open_predictions(predictions_h5) as predictions:
        names = predictions.class_names
    classes = {budget: class_table(own, names) for budget, own in answers.items()}
    confusions = {budget: confusion_table(own, names) for budget, own in answers.items()}
    mistakes = {
        budget: surest_mistakes(predictions_h5, ensembles[budget], own, _N_TABULATED) for budget, own in answers.items()
    }
    write_csv(classes_csv, _by_budget(classes, _CLASS_COLUMNS))
    write_csv(confusion_csv, _by_budget(confusions, _CONFUSION_COLUMNS))
    write_csv(mistakes_csv, _by_budget(mistakes, _MISTAKE_COLUMNS))


def class_table(answers: Answers, class_names: Sequence[str]) -> pd.DataFrame:
    """One row per class, in the data's order.

    | column | is |
    | --- | --- |
    | `images`, `answered`, `right` | test images of the class, images answered with it, and both |
    | `recall`, `precision`, `f1` | right / images, right / answered, their harmonic mean; NaN where undefined |
    | `most_taken_for` | the class that its images are most often wrongly answered with; empty where none is |
    """
    n_classes = len(class_names)
    images = np.bincount(answers.labels, minlength=n_classes)
    answered = np.bincount(answers.predicted, minlength=n_classes)
    right = np.bincount(answers.labels[answers.right], minlength=n_classes)
    with np.errstate(invalid="ignore"):
        recall, precision, f1 = right / images, right / answered, 2 * right / (images + answered)
    wrong = confusion_table(answers, class_names)
    wrong = wrong[wrong.label != wrong.predicted].sort_values("images", ascending=False, kind="stable")
    most = wrong.drop_duplicates("label").set_index("label").predicted
    columns = [
        class_names,
        images,
        answered,
        right,
        recall,
        precision,
        f1,
        [most.get(name, "") for name in class_names],
    ]
    return pd.DataFrame(dict(zip(_CLASS_COLUMNS, columns, strict=True)))


def confusion_table(answers: Answers, class_names: Sequence[str]) -> pd.DataFrame:
    """How many test `images` of a class (`label`) were answered with which (`predicted`): the pairs that occur."""
    pairs, counts = np.unique(np.stack([answers.labels, answers.predicted], axis=1), axis=0, return_counts=True)
    names = np.asarray(class_names, dtype=object)
    columns = [names[pairs[:, 0]], names[pairs[:, 1]], counts]
    return pd.DataFrame(dict(zip(_CONFUSION_COLUMNS, columns, strict=True)))


def surest_mistakes(
    predictions_h5: str | Path, members: Sequence[str], answers: Answers, n_mistakes: int
) -> pd.DataFrame:
    """The wrong answers that the ensemble was surest of, one row per member's vote; of equal ones the first image.

    | column | is |
    | --- | --- |
    | `rank`, `image` | from 1, and the image's place among the test images |
    | `label`, `predicted` | the true class and the ensemble's |
    | `confidence`, `label_probability` | the ensemble's probabilities of the two |
    | `member`, `member_predicted` | who votes, and for what |
    | `member_probability`, `member_label_probability` | the member's probabilities of its class and of the true one |
    """
    wrong = np.flatnonzero(~answers.right)
    order = np.argsort(-answers.confidences[wrong], kind="stable")
    rows = []
    with open_predictions(predictions_h5) as predictions:
        values, names = predictions.probabilities("test"), predictions.class_names
        places = [predictions.models.index(member) for member in members]
        for rank, image in enumerate(wrong[order][:n_mistakes], start=1):
            votes = np.array([values[place, image] for place in places], dtype=np.float64)
            label, predicted = answers.labels[image], answers.predicted[image]
            mean = votes.mean(axis=0)
            told = [rank, int(image), names[label], names[predicted], mean[predicted], mean[label]]
            for member, vote in zip(members, votes, strict=True):
                rows.append([*told, member, names[vote.argmax()], vote.max(), vote[label]])
    return pd.DataFrame(rows, columns=_MISTAKE_COLUMNS)


def _by_budget(tables: dict[str, pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    if not tables:
        return pd.DataFrame(columns=["budget", *columns])
    return pd.concat([table.assign(budget=budget)[["budget", *columns]] for budget, table in tables.items()])
