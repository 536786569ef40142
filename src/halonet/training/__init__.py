"""Training, evaluation and prediction."""

from halonet.training.classifier import Classifier as Classifier
from halonet.training.datamodule import ClassificationData as ClassificationData
from halonet.training.evaluation import evaluate as evaluate
from halonet.training.from_data import fill_in as fill_in
from halonet.training.prediction import predict as predict
from halonet.training.recipe import (
    DataSection as DataSection,
    OptimizerSection as OptimizerSection,
    Recipe as Recipe,
    RegularizationSection as RegularizationSection,
    ScheduleSection as ScheduleSection,
)
from halonet.training.recipes import list_recipes as list_recipes, resolve as resolve, to_yaml as to_yaml
from halonet.training.run import read_result as read_result, resume as resume, train as train
from halonet.training.weights import load_checkpoint as load_checkpoint
