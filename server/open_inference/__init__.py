"""The Open Inference Protocol on both wires: what KServe's and Triton's clients speak.

Every model looks alike there: `image` in, `label`, `score` and `index` out.
"""
