"""onnxruntime: the model on the CPU or a card, and the float32 twin of a 16-bit model."""
