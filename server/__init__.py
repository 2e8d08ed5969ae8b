import os

# Before onnxruntime is imported: it would keep a database of its use in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
