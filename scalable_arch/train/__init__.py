"""Training: losses, the run of epochs with its checkpoints, and features for matching."""

from scalable_arch.train.checkpoint import load_checkpoint, load_model, save_checkpoint, save_model
from scalable_arch.train.classify import accuracy, fit_classifier
from scalable_arch.train.loop import extract_features, fit
from scalable_arch.train.losses import LOSSES, cross_entropy, triplet
from scalable_arch.train.segmentation import fit_segmentation, predict_segmentation, score_segmentation

__all__ = [
    "LOSSES",
    "accuracy",
    "cross_entropy",
    "extract_features",
    "fit",
    "fit_classifier",
    "fit_segmentation",
    "load_checkpoint",
    "load_model",
    "predict_segmentation",
    "save_checkpoint",
    "save_model",
    "score_segmentation",
    "triplet",
]
