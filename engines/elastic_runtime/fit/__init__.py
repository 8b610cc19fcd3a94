"""What fits which card: memory of a budget, GPU classes, the choice between budgets."""
