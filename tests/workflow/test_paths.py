"""Folders and classes of any name, as people write them, in a real run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.clone import Clone


@pytest.mark.parametrize(
    ("results_dir", "path", "made"),
    [("~/out", "img", "home/out"), ("$SCRATCH/a b", "{img}/", "scratch/a b"), ("plain//", "$SCRATCH/img", "plain")],
)
def test_results_lie_where_the_config_says(
    untouched: Clone, tmp_path: Path, results_dir: str, path: str, made: str
) -> None:
    for variable in ("img", "{img}", "scratch/img"):
        for number, name in enumerate(("ant", "{bee}", "{0}")):
            (tmp_path / variable / name).mkdir(parents=True)
            for i in range(10):
                image = Image.fromarray(np.full((8, 8, 3), 50 * number + i, np.uint8))
                image.save(tmp_path / variable / name / f"{i}.png")
    (tmp_path / "m.yaml").write_text(
        f"results_dir: '{results_dir}'\ndataset: {{name: a, source: image_folder, path: '{path}', image_size: 8}}\n"
    )
    options = ["--cores", "1", "--configfile", "m.yaml", "--until", "prepare_dataset"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", untouched.folder / "Snakefile", *options],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path / "home"), "SCRATCH": str(tmp_path / "scratch")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / made / "datasets/a.h5").exists()
    assert "double '/'" not in done.stdout
    for written in (results_dir, path):
        assert (f": {written} is {tmp_path}" in done.stdout) == (written[0] in "~$"), done.stdout
