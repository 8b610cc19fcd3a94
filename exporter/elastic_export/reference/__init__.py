"""The elastic parent in plain PyTorch, budgets as masks: the oracle of every check and the source of the trace."""

from elastic_export.reference.masks import Masks, budget_masks
from elastic_export.reference.model import ElasticModel
from elastic_export.reference.state import State, empty_state, state_ports_of

__all__ = ["ElasticModel", "Masks", "State", "budget_masks", "empty_state", "state_ports_of"]
