"""Recipes: what an experiment is, read from YAML files."""
