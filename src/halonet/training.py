"""Training, evaluation and prediction."""

from halonet.classification.checkpoint import load_checkpoint as load_checkpoint
from halonet.classification.data import ClassificationData as ClassificationData
from halonet.classification.evaluation import evaluate as evaluate
from halonet.classification.from_data import fill_in as fill_in
from halonet.classification.module import Classifier as Classifier
from halonet.classification.prediction import predict as predict
from halonet.classification.recipe import (
    DataSection as DataSection,
    Recipe as Recipe,
    RegularizationSection as RegularizationSection,
    ScheduleSection as ScheduleSection,
)
from halonet.engine.run import read_result as read_result, resume as resume, train as train
from halonet.recipes.load import list_recipes as list_recipes, resolve as resolve, to_yaml as to_yaml
from halonet.recipes.schema import OptimizerSection as OptimizerSection
