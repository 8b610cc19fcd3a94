"""Budgets that hit a size, found by measuring on a text what every cut costs."""
