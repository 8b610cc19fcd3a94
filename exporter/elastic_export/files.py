"""What the files of a budget are called, in its folder of a bundle."""

MODEL = "model.onnx"
RECIPE = "weights.json"
GOLDEN = "golden.safetensors"
REPORT = "report.json"
