"""Training: recipes, the one loop, and what is asked of a trained network."""

from miue.training.loop import BatchContext, Defense, Epoch, accuracy, epochs, features
from miue.training.recipes import RECIPES, Recipe, recipe

__all__ = [
    "RECIPES",
    "BatchContext",
    "Defense",
    "Epoch",
    "Recipe",
    "accuracy",
    "epochs",
    "features",
    "recipe",
]
