"""TensorRT: an engine on a card, what it needs there, and the weights it is given."""
