"""scikit-learn's support vector machine on the pixels, with probabilities by Platt's scaling.

python peers/svm_pixels.py DATASET.h5 RESULT.json '{}'

The error is that of the machine itself, fitted once to all training images, as in the workflow's row `baseline`. Its
cross-entropy is that of probabilities fitted to its answers over five folds of the training images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
from judging import judge
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC


def main(dataset_h5: str, result_json: str) -> None:
    with h5py.File(dataset_h5, "r", locking=False) as file:
        (images, labels), (test_images, test_labels) = (
            (file[split]["images"][...].reshape(len(file[split]["labels"]), -1) / 255.0, file[split]["labels"][...])
            for split in ("train", "test")
        )
    calibrated = CalibratedClassifierCV(SVC(C=10, gamma="scale"), ensemble=False).fit(images, labels)
    probabilities = judge(calibrated.predict_proba(test_images), test_labels.astype("int64"))
    answered = calibrated.calibrated_classifiers_[0].estimator.predict(test_images)
    error = float((answered != test_labels).mean())
    answer = {"networks": 0, "error": error, "cross_entropy": probabilities["cross_entropy"]}
    Path(result_json).write_text(json.dumps({"SVM on pixels": answer}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
