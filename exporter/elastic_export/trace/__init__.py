"""`torch.export` of the masked parent, once, into an `onnx_ir.Model` whose weights are names and shapes."""
