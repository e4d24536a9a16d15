"""Training: recipes, the one loop, and victims."""

from miue.training.loop import BatchContext, Defense, Epoch, accuracy, epochs, features
from miue.training.recipes import RECIPES, Recipe, recipe
from miue.training.victim import Victim, train_victim

__all__ = [
    "RECIPES",
    "BatchContext",
    "Defense",
    "Epoch",
    "Recipe",
    "Victim",
    "accuracy",
    "epochs",
    "features",
    "recipe",
    "train_victim",
]
