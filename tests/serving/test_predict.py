"""`ensembleflow predict`: files, folders and arrays, and what it makes of those that it cannot read."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembleflow.cli import main
from ensembleflow.commands.predict_command import print_table
from ensembleflow.errors import DatasetError
from ensembleflow.serving import images as reading
from ensembleflow.serving import read_images
from ensembleflow.serving.image_files import find_image_files, shown_name
from support.system_user import SystemUser

SHAPE = (8, 8, 1)


def write_image(path: Path, size: int = 8, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels[:, :, None]


def write_bad_files(folder: Path) -> list[str]:
    (folder / "text.png").write_text("no image")
    np.save(folder / "floats.npy", np.zeros(SHAPE))
    np.save(folder / "large.npy", np.zeros((2, 9, 9, 1), np.uint8))
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    return ["text.png", "floats.npy", "large.npy", "objects.npy", "absent.jpg"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_predictions_are_printed_as_a_table(capsys):
    answers = [
        {"file": "a.png", "index": None, "predictions": [{"class": "seven", "probability": 0.75}]},
        {"file": "b.npy", "index": 1, "predictions": [{"class": "1", "probability": 1.0}]},
    ]
    print_table(answers)
    assert capsys.readouterr().out.splitlines() == [
        "file      class  probability",
        "a.png     seven  0.7500",
        "b.npy[1]  1      1.0000",
    ]


def test_a_folder_is_searched_and_what_is_no_image_is_told(served_bundle, exported, here, capsys):
    names = ["a.png", "b/c.PNG", "b/d.bmp"]
    pixels = [write_image(here / "shapes" / name, seed=seed) for seed, name in enumerate(names)]
    (here / "shapes" / "notes.txt").write_text("")
    (here / "shapes" / ".hidden.png").write_text("")
    (here / "shapes" / "b" / "back").symlink_to(here / "shapes")

    assert main(["predict", str(served_bundle), "shapes", "--json"]) == 0
    printed = capsys.readouterr()
    answers = json.loads(printed.out)
    assert [answer["file"] for answer in answers] == [f"shapes/{name}" for name in names]
    for answer, row in zip(answers, exported.average(np.stack(pixels)), strict=True):
        (best,) = answer["predictions"]
        assert best["class"] == str(row.argmax())
        assert best["probability"] == pytest.approx(row.max(), abs=1e-5)
    assert printed.err == "note: left out, not named like an image: shapes/notes.txt\n"


def test_the_good_images_are_answered_and_the_bad_ones_named(served_bundle, here, capsys):
    names = write_bad_files(here)
    write_image(here / "good.png")
    write_image(here / "large.png", 40)
    write_image(here / "larger.png", 41)
    assert main(["predict", str(served_bundle), *names, "good.png", "large.png", "larger.png"]) == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["file", "good.png", "large.png", "larger.png"]
    notes, *lines = printed.err.splitlines()
    assert notes == "note: 2 images were resized to 8x8 pixels (the first from 40x40: large.png)"
    assert lines[0] == "5 of 8 files cannot be predicted"
    assert all(any(f"{name}: " in line for line in lines) for name in names)
    assert "good.png" not in printed.err
    assert "(8, 8, 1) or (n, 8, 8, 1)" in printed.err


def test_where_no_image_is_good_nothing_is_started_or_written(served_bundle, here, capsys, monkeypatch):
    monkeypatch.setattr("ensembleflow.serving.bundle.Bundle.pipeline", None)
    names = write_bad_files(here)
    (here / "empty").mkdir()
    assert main(["predict", str(served_bundle), *names, "empty", "--output", "x.csv"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("6 of 6 files cannot be predicted\n")
    assert "empty: no file in it is named like an image" in printed.err
    assert not (here / "x.csv").exists()


@pytest.mark.parametrize("name", ["x.csv", "deeper/x.CSV", "x.json"])
def test_answers_are_written_to_a_file(served_bundle, here, capsys, name):
    for seed in range(3):
        write_image(here / f"in/{seed}, one.png", seed=seed)
    (here / "in" / "bad.png").write_text("")
    np.save(here / "two.npy", np.zeros((2, *SHAPE), np.uint8))
    assert main(["predict", str(served_bundle), "in", "two.npy", "--top", "2", "--json"]) == 1
    expected = json.loads(capsys.readouterr().out)
    assert main(["predict", str(served_bundle), "in", "two.npy", "--top", "2", "--output", name]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"5 images predicted: {name}\n"
    assert "1 of 5 files cannot be predicted" in printed.err and "in/bad.png: " in printed.err
    if name.endswith(".json"):
        assert json.loads((here / name).read_text()) == expected
        return
    with open(here / name, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {
            "file": answer["file"],
            "index": "" if answer["index"] is None else str(answer["index"]),
            "rank": str(rank),
            "class": each["class"],
            "probability": str(each["probability"]),
        }
        for answer in expected
        for rank, each in enumerate(answer["predictions"], start=1)
    ]


def test_another_kind_of_file_is_refused_at_once(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["predict", "bundle", "a.png", "--output", "x.txt"])
    assert caught.value.code == 2
    assert "x.txt does not end with .csv or .json" in capsys.readouterr().err


@pytest.mark.parametrize("n_files", [1, 2, 3, 7])
def test_batches_hold_what_all_at_once_do(here, monkeypatch, n_files):
    monkeypatch.setattr(reading, "_MAX_BATCH_FILES", n_files)
    paths = [f"{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        write_image(here / path, 8 + seed % 2, seed)
    np.save("several.npy", np.zeros((2, *SHAPE), np.uint8))
    paths.append("several.npy")
    whole, parts = read_images(paths, SHAPE), list(reading.read_batches(paths, SHAPE))
    assert len(parts) == -(-7 // n_files)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    for each in ("files", "indices", "resized"):
        assert [value for part in parts for value in getattr(part, each)] == getattr(whole, each)


def test_images_read_from_python_are_all_good_or_refused(here):
    names = write_bad_files(here)
    write_image(here / "good.png")
    with pytest.raises(DatasetError, match="5 of 6 files cannot be predicted"):
        read_images([*names, "good.png"], SHAPE)
    assert read_images([], SHAPE).images.shape == (0, *SHAPE)


def test_names_that_are_no_text_pipes_and_dead_links_do_no_harm(here):
    name = os.fsdecode(b"in/\xff.png")
    write_image(here / name)
    os.mkfifo("in/pipe.png")
    Path("in/dead.png").symlink_to("nowhere")
    found = find_image_files(["in"])
    assert sorted(found.files) == sorted(["in/dead.png", name])
    (batch,) = reading.read_batches(found.files, SHAPE)
    assert batch.files == [shown_name(name)] == ["in/\ufffd.png"]
    (fault,) = batch.faults
    assert fault.startswith("in/dead.png: ")


@pytest.mark.parametrize("named", [True, False], ids=["home does not exist", "no home, no name"])
def test_a_user_without_a_home_predicts_and_is_told_of_nothing_else(served_bundle, named):
    with SystemUser(named=named) as user:
        shutil.copytree(served_bundle, user.readable / "bundle")
        write_image(user.readable / "a.png")
        done = user.run(sys.executable, "-m", "ensembleflow.cli", "predict", "../bundle", "../a.png")
        assert done.returncode == 0, done.stdout
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["file", "../a.png"]
        assert not [*user.folder.iterdir()]
