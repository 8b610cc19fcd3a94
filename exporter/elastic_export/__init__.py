"""Compiles elastic Nemotron-H checkpoints into verified TensorRT engines, one per nested sub-model and GPU class."""

from elastic_runtime import __version__

__all__ = ["__version__"]
