"""Setting up TensorFlow in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ensembleflow.models.gpu import gpu_uuid

__all__ = ["configure_tensorflow", "device_id", "device_name", "import_tensorflow"]

# absl's log before it is set up, which TensorFlow never does: its notice, and what is mere information.
_GREETINGS = r"^WARNING: All log messages before absl::InitializeLog\(\)|^I[0-9]{4} [0-9:.]+ "


def configure_tensorflow(threads: int, *, use_gpu: bool = False, training: bool = False) -> None:
    """Import TensorFlow for one job: so many threads, quiet, deterministic, GPU memory as needed.

    Must come before anything else in the process uses TensorFlow.

    Args:
        threads: CPU threads that one operation may use.
        use_gpu: compute on a GPU if there is one; otherwise GPUs are hidden, so that a job that asked for none
            takes none from another.
        training: the process trains many small graphs once each. On a CPU the graph optimiser's time is
            then never earned back (it halves the time to the first step), so it is turned off; exported
            functions, which run many times, keep it.
    """
    import_tensorflow(use_gpu=use_gpu)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1 if threads == 1 else 2)
    tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not training:
        # Ten bits of mantissa would make a GPU's predictions differ from a CPU's in the third digit.
        tf.config.experimental.enable_tensor_float_32_execution(False)
    if training and not gpus:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def import_tensorflow(*, use_gpu: bool = False) -> None:
    """Import TensorFlow, quiet, and do no more: no thread of it is started, no GPU opened.

    Args:
        use_gpu: it may compute on a GPU later; otherwise GPUs are hidden.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not use_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order of nvidia-smi, NVML and Slurm
    with _without_optional_imports(), _without_greetings():
        import tensorflow  # noqa: F401


@contextmanager
def _without_optional_imports() -> Iterator[None]:
    """Keep Keras from importing what it uses only if it is there, and we never use through it: a third of its time."""
    absent = [name for name in ("matplotlib", "sklearn") if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(absent))  # which makes their import fail
    try:
        yield
    finally:
        for name in absent:
            del modules[name]


@contextmanager
def _without_greetings() -> Iterator[None]:
    """Drop what TensorFlow's libraries say when loaded, whatever its own log level is: a job's log begins with it.

    Another process drops it, so that whatever a library says before it aborts this one (an instruction that the
    processor lacks) is still told.
    """
    try:
        drop = subprocess.Popen(["grep", "-v", "-E", _GREETINGS], stdin=subprocess.PIPE, stdout=2)
    except OSError:
        yield
        return
    assert drop.stdin is not None
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(drop.stdin.fileno(), 2)
    drop.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)  # which closes the pipe
        os.close(stderr)
        drop.wait()


def device_name() -> str:
    """The device that this process computes on: a GPU's name, or `cpu`."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "cpu"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu"))


def device_id() -> str:
    """What tells this process's device: a GPU's UUID (its number on its host where NVML is missing), or `cpu`."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return (gpu_uuid() or gpus[0].name) if gpus else "cpu"
