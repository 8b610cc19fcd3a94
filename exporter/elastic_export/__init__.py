"""Compiles elastic Nemotron-H checkpoints into verified TensorRT engines, one per nested sub-model and GPU class."""

__version__ = "0.1.0"
