"""Everything that ends a build, each in one sentence: what happened, the value, the remedy.

ExportError
├── UnknownNetwork        no such row in the catalog
├── BadName               a model cannot be called so
├── LabelsError           the file of labels cannot be used
├── CheckpointError       the weights cannot be had, or do not fit the network
│   └── DownloadError     a published file cannot be fetched, or is not what its name says
├── CalibrationError      int8 has no images to be calibrated on, or they cannot be used
├── OnnxError             the graph that came out is not the one that serving needs
├── EngineError           TensorRT is not here, or cannot build the engine
├── ParityError           two runtimes disagree: nothing is published
├── ServedError           no gateway answered the images of the ladder
└── RepositoryError       the model repository cannot be read or written, or has no such version
"""


class ExportError(Exception):
    """A build that cannot go on. The message is for people."""


class UnknownNetwork(ExportError):
    """The catalog has no network of that name."""


class BadName(ExportError):
    """A model cannot be called so."""


class LabelsError(ExportError):
    """The file of a user's own labels cannot be used."""


class CheckpointError(ExportError):
    """The weights cannot be had, or do not fit the network."""


class DownloadError(CheckpointError):
    """A published file cannot be fetched, or is not what its name says."""


class CalibrationError(ExportError):
    """There are no images to calibrate int8 on, or they cannot be used."""


class OnnxError(ExportError):
    """The exported graph is not the one that serving needs."""


class EngineError(ExportError):
    """TensorRT is not here, or cannot build the engine; the message has its reason."""


class ParityError(ExportError):
    """Two runtimes give different answers for the same image."""


class ServedError(ExportError):
    """No gateway answered the images of the ladder."""


class RepositoryError(ExportError):
    """The model repository cannot be read or written, or has no such version."""
