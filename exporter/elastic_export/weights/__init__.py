"""Weights as they ship: the recipe of a sub-model's, a file of its own, and the modes."""
