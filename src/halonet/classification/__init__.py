"""The task of classification: its recipe, data, module, evaluation and prediction."""
