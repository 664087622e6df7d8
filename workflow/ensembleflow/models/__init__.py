"""The networks, their training, and the one exported function of each."""

from ensembleflow.models.augmentation import augment, augmentation_of
from ensembleflow.models.batch_statistics import BatchStatistics
from ensembleflow.models.checkpoint import restore_checkpoint, save_checkpoint
from ensembleflow.models.class_weights import class_weights
from ensembleflow.models.energy import open_energy_counter
from ensembleflow.models.export import ExportedModel, export_model, load_exported, model_function, prediction_batch_size
from ensembleflow.models.family import Family, load_family
from ensembleflow.models.gpu import gpu_energy_joules, gpu_memory_bytes
from ensembleflow.models.hyperparameters import FamilyHyperparameters, Hyperparameters, TrainingHyperparameters
from ensembleflow.models.metrics import classification_metrics
from ensembleflow.models.model_file import load_model, save_model, uncompiled, weights_sha256
from ensembleflow.models.resnet import build_resnet
from ensembleflow.models.runtime import configure_tensorflow, device_id, device_name, import_tensorflow
from ensembleflow.models.training import EpochResult, Trainer, steps_per_epoch, training_batches

__all__ = [
    "BatchStatistics",
    "EpochResult",
    "ExportedModel",
    "Family",
    "FamilyHyperparameters",
    "Hyperparameters",
    "Trainer",
    "TrainingHyperparameters",
    "augment",
    "augmentation_of",
    "build_resnet",
    "class_weights",
    "classification_metrics",
    "configure_tensorflow",
    "device_id",
    "device_name",
    "export_model",
    "gpu_energy_joules",
    "gpu_memory_bytes",
    "import_tensorflow",
    "load_exported",
    "load_family",
    "load_model",
    "model_function",
    "open_energy_counter",
    "prediction_batch_size",
    "restore_checkpoint",
    "save_checkpoint",
    "save_model",
    "steps_per_epoch",
    "training_batches",
    "uncompiled",
    "weights_sha256",
]
