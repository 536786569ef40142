"""Training, evaluation and prediction. Names are imported when first used: not all of them need Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halonet.training.classifier import Classifier
    from halonet.training.datamodule import ClassificationData
    from halonet.training.evaluation import evaluate
    from halonet.training.from_data import fill_in
    from halonet.training.prediction import predict
    from halonet.training.recipe import Recipe
    from halonet.training.recipes import list_recipes, resolve, to_yaml
    from halonet.training.run import build_classifier, build_data, resume, train
    from halonet.training.weights import load_checkpoint

__all__ = [
    "ClassificationData",
    "Classifier",
    "Recipe",
    "build_classifier",
    "build_data",
    "evaluate",
    "fill_in",
    "list_recipes",
    "load_checkpoint",
    "predict",
    "resolve",
    "resume",
    "to_yaml",
    "train",
]

_HOMES = {
    "Classifier": "classifier",
    "ClassificationData": "datamodule",
    "evaluate": "evaluation",
    "fill_in": "from_data",
    "predict": "prediction",
    "Recipe": "recipe",
    **dict.fromkeys(("list_recipes", "resolve", "to_yaml"), "recipes"),
    **dict.fromkeys(("build_classifier", "build_data", "resume", "train"), "run"),
    "load_checkpoint": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
