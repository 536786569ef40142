"""`halonet.load`: a trained classifier with all that is needed to use it."""

from pathlib import Path
from typing import TYPE_CHECKING

from halonet.errors import UserError
from halonet.installation import command_for_extra

if TYPE_CHECKING:
    from halonet.classification.prediction import TrainedClassifier


def load(source: str | Path) -> "TrainedClassifier":
    """Load a trained classifier with its labels and its transform.

    Args:
        source: A run folder, a folder for the Hugging Face Hub, a `model.safetensors`, a `.ckpt`, or the name of
            weights that come with the package, such as "mini32.cifar10".

    Returns:
        Its `model` (in evaluation mode, on the CPU), `labels`, `transform` (from a PIL image to the model's input) and
        `information` (what else the checkpoint says).

    Raises:
        UserError: There is no such checkpoint, it is damaged or of another kind of network, it does not say how images
            were prepared, or the extra `train` is not installed.
    """
    try:
        from halonet.classification.prediction import load_classifier
    except ModuleNotFoundError as error:
        if (error.name or "halonet").startswith("halonet"):
            raise
        raise UserError(f"halonet.load needs {error.name}: {command_for_extra('train')}") from error
    return load_classifier(source)
