"""What the chosen ensemble gets wrong: classes, confusions, and the images that it was surest and wrong about."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from ensembleflow.datasets import open_dataset
from ensembleflow.errors import ArtefactError, EnsembleflowError
from ensembleflow.io import snakemake_command
from ensembleflow.library import open_predictions
from ensembleflow.report.answers import Answers, answers_on_test, error_interval
from ensembleflow.report.mistakes import class_table, confusion_table, surest_mistakes
from ensembleflow.report.page.blocks import (
    Block,
    Drawing,
    Gallery,
    Missing,
    Mistake,
    Section,
    Table,
    Text,
    guarded,
    rows_of,
)
from ensembleflow.report.page.look import QUIET, RED, SURFACE, figure, percent
from ensembleflow.report.page.study import Study, existing

__all__ = ["mistakes", "picture"]

_CACHE = "library/predictions.h5"
_N_SHOWN = 12
_RANK_OF_IMAGES = 3
_LARGEST_PIXELS = 64
# A larger matrix cannot be read on a screen: its pairs are listed instead.
_MOST_CLASSES_DRAWN = 30
# One wrong answer in all is not to shout.
_LEAST_FULL_COLOUR = 4
_MOST_CLASSES_OPEN = 12


def mistakes(study: Study) -> Section:
    """The section of the mistakes."""
    intro = (
        "What the chosen ensemble answers wrongly on the test images. A label that is itself wrong shows up here too."
    )
    return Section("mistakes", "Mistakes", intro, guarded(_mistakes, study=study))


def _mistakes(study: Study) -> Iterator[Block]:
    budgets: dict[tuple[str, ...], list[str]] = {}
    for budget in study.budgets:
        if (study.results / study.name / f"selection/budget-{budget}.json").exists():
            members = study.json(f"selection/budget-{budget}.json", ["members"])["members"]
            budgets.setdefault(tuple(members), []).append(budget)
    cache = study.path(_CACHE)
    answers = answers_on_test(cache, {" ".join(own): members for members, own in budgets.items()})
    if answers is None:
        text = "Only the true class's probabilities are cached: library.predictions.every_class: true caches all."
        yield Text(text, "What is answered wrongly is not known.")
        return
    with open_predictions(cache) as predictions:
        names, checksum = predictions.class_names, predictions.dataset_checksum
    ensembles = {" ".join(own): members for members, own in budgets.items() if " ".join(own) in answers}
    for key in ensembles:
        yield _classes(study, key, answers[key], names)
    yield from _confusion(study, {key: answers[key] for key in ensembles}, names)
    try:
        images = _test_images(study, checksum)
    except EnsembleflowError as error:
        images = None
        yield Missing.of(error)
    for key, members in ensembles.items():
        votes = surest_mistakes(cache, members, answers[key], _N_SHOWN)
        yield _gallery(study, key, answers[key], votes, images)


def _classes(study: Study, budgets: str, answers: Answers, names: list[str]) -> Table:
    """One row per class, the hardest first."""
    rows = []
    for row in class_table(answers, names).sort_values("f1", kind="stable").to_dict("records"):
        interval = "–"
        if row["images"]:
            low, high = error_interval(row["right"], row["images"])
            interval = f"{low * 100:.0f} to {percent(high, 0)}"
        shares = [percent(row[name], 1) for name in ("recall", "precision", "f1")]
        rows.append([str(row["class"]), f"{row['images']:,}", shares[0], interval, *shares[1:], row["most_taken_for"]])
    columns = ["class", "test images", "recall", "95 % interval", "precision", "F1", "most often taken for"]
    caption = f"Budget {_listed(budgets)}: class by class, the hardest first"
    folded = len(rows) > _MOST_CLASSES_OPEN
    return Table(caption, columns, rows, _sources(study, "classes"), budget=budgets, folded=folded)


def _confusion(study: Study, answers: Mapping[str, Answers], names: list[str]) -> Iterator[Block]:
    """Which class is taken for which, drawn where the classes are few."""
    tables = {budgets: confusion_table(own, names) for budgets, own in answers.items()}
    columns = ["budgets", "class", "answered with", "test images"]
    rows, sources = [], _sources(study, "confusion")
    for budgets, table in tables.items():
        wrong = table[table.label != table.predicted].sort_values("images", ascending=False, kind="stable")
        own = [[_listed(budgets), row.label, row.predicted, f"{row.images:,}"] for row in rows_of(wrong)]
        rows += own
        if len(names) > _MOST_CLASSES_DRAWN:
            caption = f"Budget {_listed(budgets)}: which class is taken for which, the most frequent first"
            yield Table(caption, columns[1:], [row[1:] for row in own], sources, budget=budgets)
    if not tables or len(names) > _MOST_CLASSES_DRAWN:
        return
    shown = [html.escape(name) for name in names]  # Plotly reads tags in its texts
    longest = max(map(len, names))
    plot = figure("answered", "labelled", max(340, 130 + 30 * len(names)))
    plot.update_xaxes(
        type="category", categoryarray=shown, showgrid=False, tickangle=-40 if longest * len(names) > 40 else 0
    )
    plot.update_yaxes(type="category", categoryarray=shown, showgrid=False, autorange="reversed")
    for budgets, table in tables.items():
        pivoted = table.pivot(index="label", columns="predicted", values="images").reindex(index=names, columns=names)
        counts = pivoted.fillna(0).astype(int).to_numpy()
        wrong_counts = np.where(np.eye(len(names), dtype=bool), 0, counts)
        plot.add_heatmap(
            z=wrong_counts,
            x=shown,
            y=shown,
            text=np.where(wrong_counts > 0, wrong_counts.astype(str), ""),
            texttemplate="%{text}",
            zmin=0,
            zmax=max(_LEAST_FULL_COLOUR, int(wrong_counts.max())),
            colorscale=[[0, SURFACE], [1, RED]],
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate="labelled %{y}, answered %{x}: %{z}<extra></extra>",
            meta={"budget": budgets},
        )
        plot.add_scatter(
            x=shown,
            y=shown,
            mode="text",
            text=[f"{count:,}" for count in np.diag(counts)],
            textfont={"color": QUIET},
            hoverinfo="skip",
            showlegend=False,
            meta={"budget": budgets},
        )
    description = (
        "Test images by their label (rows) and the ensemble's answer (columns): right answers in grey on the diagonal, "
        "wrong ones the redder the more there are."
    )
    data = Table("Wrong answers by class", columns, rows, sources, folded=True)
    wide = 70 + 7 * min(longest, 30) + 40 * len(names)
    yield Drawing("confusion", "Confusions", description, [("", plot)], data, min_width=wide, by_budget=True)


def _gallery(
    study: Study, budgets: str, answers: Answers, votes: pd.DataFrame, images: npt.NDArray[Any] | None
) -> Gallery:
    """The images with the members' votes, the surest first."""
    shown = []
    for _, own in votes.groupby("rank", sort=True):
        first = own.iloc[0]
        shown.append(
            Mistake(
                picture=None if images is None else picture(images[int(first["image"])]),
                image=int(first["image"]),
                label=str(first["label"]),
                predicted=str(first["predicted"]),
                confidence=percent(first["confidence"], 1),
                label_probability=percent(first["label_probability"], 1),
                votes=[
                    (str(row.member), str(row.member_predicted), percent(row.member_probability, 1))
                    for row in rows_of(own)
                ],
            )
        )
    n_wrong, n_images = answers.n_wrong, len(answers.right)
    title = f"Budget {_listed(budgets)}: surest and wrong"
    if n_wrong:
        listed = "all of them" if n_wrong == len(shown) else f"the {len(shown)} that it was surest of"
        intro = f"{n_wrong:,} of {n_images:,} test images are answered wrongly: {listed}, with each member's vote."
    else:
        intro = f"All {n_images:,} test images are answered rightly."
    return Gallery(title, intro, shown, _sources(study, "mistakes"), budget=budgets)


def _test_images(study: Study, checksum: str) -> npt.NDArray[Any]:
    """The test images of the dataset that was predicted, mapped where they lie.

    Raises:
        ArtefactError: that dataset is not there, or a dataset is damaged.
    """
    command = snakemake_command("library", near=study.results)
    folder, checksums = existing(study.results / "datasets", command), {}
    for path in sorted(folder.glob("*.h5")):
        with open_dataset(path) as data:
            if data.checksum == checksum:
                return data.image_array("test")
            checksums[path.name] = data.checksum
    raise ArtefactError(
        "the images shown would be others than those predicted",
        where=folder,
        found=", ".join(f"{name} with checksum {found}" for name, found in checksums.items()) or "no dataset",
        expected=f"checksum {checksum}, as in {_CACHE}",
        hint=command,
    )


def picture(image: npt.NDArray[Any]) -> str | None:
    """An image (height, width, channels) as the address of a PNG of at most 64 pixels a side.

    Of other numbers of channels than one and three the first is shown, in grey. Float values are stretched to their
    range. Samples of other ranks have no picture.
    """
    if image.ndim != _RANK_OF_IMAGES:
        return None
    if image.dtype != np.uint8:
        lowest, highest = image.min(), image.max()
        image = np.rint((image - lowest) * (255 / max(highest - lowest, np.finfo(np.float32).tiny))).astype(np.uint8)
    shown = Image.fromarray(np.ascontiguousarray(image if image.shape[2] == 3 else image[:, :, 0]))
    if max(shown.size) > _LARGEST_PIXELS:
        shown.thumbnail((_LARGEST_PIXELS, _LARGEST_PIXELS), Image.Resampling.BOX)
    written = io.BytesIO()
    shown.save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def _sources(study: Study, name: str) -> list[str]:
    """The table that a block's numbers stand in, where it is made: the page does without."""
    source = f"../tables/{name}.csv"
    return [source] if (study.results / study.name / source).exists() else []


def _listed(budgets: str) -> str:
    return budgets.replace(" ", ", ")
