"""What every module of this room says to do."""

#: Where onnxruntime, whose kinds of refusal nobody lists, does not take a model or a call.
UPDATE = "update onnxruntime, and let elastic-run BUNDLE --verify say whether the bundle is whole"
