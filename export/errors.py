"""What can end a build. Each message is one sentence: what happened, the value, the remedy.

ExportError
├── UnknownNetwork        the catalog has no network of that name
├── BadName               not a valid name for the model
├── LabelsError           the file of labels cannot be used
├── PreparationError      pictures cannot be prepared as the options or their file say
├── CheckpointError       the weights are not available, or do not fit the network
│   └── DownloadError     a published file cannot be downloaded, or is not the right one
├── CalibrationError      there are no usable images to calibrate int8 on
├── EvaluationError       labelled pictures cannot be used, or too many are classified wrongly
├── AdoptionError         the ONNX file is no image classifier, or its answers cannot be proven
├── OnnxError             the exported graph is not the one that serving needs
├── EngineError           TensorRT is not installed, or cannot build the engine
├── ParityError           two runtimes disagree; nothing is published
├── ServedError           no gateway answered the ladder's images
└── RepositoryError       the model repository cannot be read or written, or lacks the version
"""


class ExportError(Exception):
    """A build that cannot go on. The message is for people."""


class UnknownNetwork(ExportError):
    """The catalog has no network of that name."""


class BadName(ExportError):
    """Not a valid name for the model."""


class LabelsError(ExportError):
    """The file of a user's own labels cannot be used."""


class PreparationError(ExportError):
    """Pictures cannot be prepared as the options or their file say."""


class CheckpointError(ExportError):
    """The weights are not available, or do not fit the network."""


class DownloadError(CheckpointError):
    """A published file cannot be downloaded, or is not the right one."""


class CalibrationError(ExportError):
    """There are no usable images to calibrate int8 on."""


class EvaluationError(ExportError):
    """Labelled pictures cannot be used, or too many of them are classified wrongly."""


class AdoptionError(ExportError):
    """A user's ONNX file is no image classifier, or its answers cannot be proven."""


class OnnxError(ExportError):
    """The exported graph is not the one that serving needs."""


class EngineError(ExportError):
    """TensorRT is not installed, or cannot build the engine; the message has its reason."""


class ParityError(ExportError):
    """Two runtimes give different answers for the same image."""


class ServedError(ExportError):
    """No gateway answered the ladder's images."""


class RepositoryError(ExportError):
    """The model repository cannot be read or written, or lacks the version."""
