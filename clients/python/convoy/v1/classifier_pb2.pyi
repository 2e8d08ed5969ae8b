from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Evidence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVIDENCE_UNSPECIFIED: _ClassVar[Evidence]
    INPUT: _ClassVar[Evidence]
    HEATMAP: _ClassVar[Evidence]
    FEATURES: _ClassVar[Evidence]
    LAYERS: _ClassVar[Evidence]

class HeatmapMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEATMAP_METHOD_UNSPECIFIED: _ClassVar[HeatmapMethod]
    CLASS_ACTIVATION_MAP: _ClassVar[HeatmapMethod]
    OCCLUSION: _ClassVar[HeatmapMethod]

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_AVAILABLE: _ClassVar[State]
    STATE_LOADING: _ClassVar[State]
    STATE_READY: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]

class Interpolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BILINEAR: _ClassVar[Interpolation]
    BICUBIC: _ClassVar[Interpolation]
    NEAREST: _ClassVar[Interpolation]
    AREA: _ClassVar[Interpolation]
    BOX: _ClassVar[Interpolation]
    LANCZOS: _ClassVar[Interpolation]

class ResizeMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHORTER: _ClassVar[ResizeMode]
    SQUASH: _ClassVar[ResizeMode]
    PAD: _ClassVar[ResizeMode]

class ChannelOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RGB: _ClassVar[ChannelOrder]
    BGR: _ClassVar[ChannelOrder]
EVIDENCE_UNSPECIFIED: Evidence
INPUT: Evidence
HEATMAP: Evidence
FEATURES: Evidence
LAYERS: Evidence
HEATMAP_METHOD_UNSPECIFIED: HeatmapMethod
CLASS_ACTIVATION_MAP: HeatmapMethod
OCCLUSION: HeatmapMethod
STATE_UNSPECIFIED: State
STATE_AVAILABLE: State
STATE_LOADING: State
STATE_READY: State
STATE_FAILED: State
BILINEAR: Interpolation
BICUBIC: Interpolation
NEAREST: Interpolation
AREA: Interpolation
BOX: Interpolation
LANCZOS: Interpolation
SHORTER: ResizeMode
SQUASH: ResizeMode
PAD: ResizeMode
RGB: ChannelOrder
BGR: ChannelOrder

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "version", "image", "top_k", "min_score", "request_id", "include")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    image: Image
    top_k: int
    min_score: float
    request_id: str
    include: _containers.RepeatedScalarFieldContainer[Evidence]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., top_k: _Optional[int] = ..., min_score: _Optional[float] = ..., request_id: _Optional[str] = ..., include: _Optional[_Iterable[_Union[Evidence, str]]] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classes", "model", "version", "served", "timing", "image", "request_id", "input", "heatmap", "features", "layers", "unfamiliar")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    UNFAMILIAR_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    model: str
    version: str
    served: Served
    timing: Timing
    image: ImageFacts
    request_id: str
    input: SeenImage
    heatmap: Heatmap
    features: Features
    layers: Layers
    unfamiliar: Unfamiliar
    def __init__(self, classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., served: _Optional[_Union[Served, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., image: _Optional[_Union[ImageFacts, _Mapping]] = ..., request_id: _Optional[str] = ..., input: _Optional[_Union[SeenImage, _Mapping]] = ..., heatmap: _Optional[_Union[Heatmap, _Mapping]] = ..., features: _Optional[_Union[Features, _Mapping]] = ..., layers: _Optional[_Union[Layers, _Mapping]] = ..., unfamiliar: _Optional[_Union[Unfamiliar, _Mapping]] = ...) -> None: ...

class SeenImage(_message.Message):
    __slots__ = ("png", "box")
    PNG_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    png: bytes
    box: Box
    def __init__(self, png: _Optional[bytes] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class Heatmap(_message.Message):
    __slots__ = ("method", "passes", "height", "width", "maps", "box")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    method: HeatmapMethod
    passes: int
    height: int
    width: int
    maps: _containers.RepeatedCompositeFieldContainer[ClassMap]
    box: Box
    def __init__(self, method: _Optional[_Union[HeatmapMethod, str]] = ..., passes: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., maps: _Optional[_Iterable[_Union[ClassMap, _Mapping]]] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class ClassMap(_message.Message):
    __slots__ = ("label", "index", "values")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Features(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Layers(_message.Message):
    __slots__ = ("layers",)
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    def __init__(self, layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("shape", "pixels", "minimum", "maximum")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    shape: LayerShape
    pixels: bytes
    minimum: float
    maximum: float
    def __init__(self, shape: _Optional[_Union[LayerShape, _Mapping]] = ..., pixels: _Optional[bytes] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class Unfamiliar(_message.Message):
    __slots__ = ("score", "threshold")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    score: float
    threshold: float
    def __init__(self, score: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class BatchClassifyRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ClassifyRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ClassifyRequest, _Mapping]]] = ...) -> None: ...

class BatchClassifyResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("request_id", "response", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    response: ClassifyResponse
    error: _status_pb2.Status
    def __init__(self, request_id: _Optional[str] = ..., response: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Class(_message.Message):
    __slots__ = ("label", "score", "index", "id")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    index: int
    id: str
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ..., index: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class Served(_message.Message):
    __slots__ = ("runtime", "precision", "device", "weights", "manifest_digest", "batch_size")
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    runtime: str
    precision: str
    device: str
    weights: str
    manifest_digest: str
    batch_size: int
    def __init__(self, runtime: _Optional[str] = ..., precision: _Optional[str] = ..., device: _Optional[str] = ..., weights: _Optional[str] = ..., manifest_digest: _Optional[str] = ..., batch_size: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("decode_us", "preprocess_us", "infer_us", "total_us", "queue_us", "compute_us")
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_US_FIELD_NUMBER: _ClassVar[int]
    INFER_US_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    decode_us: int
    preprocess_us: int
    infer_us: int
    total_us: int
    queue_us: int
    compute_us: int
    def __init__(self, decode_us: _Optional[int] = ..., preprocess_us: _Optional[int] = ..., infer_us: _Optional[int] = ..., total_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., compute_us: _Optional[int] = ...) -> None: ...

class ImageFacts(_message.Message):
    __slots__ = ("width", "height", "format", "exif_applied")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    EXIF_APPLIED_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    format: str
    exif_applied: bool
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., format: _Optional[str] = ..., exif_applied: _Optional[bool] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "state", "state_reason", "is_default", "input", "preprocessing", "labels", "manifest", "manifest_digest", "parity", "golden_images", "evidence", "preparation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_IMAGES_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PREPARATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    state: State
    state_reason: str
    is_default: bool
    input: Input
    preprocessing: Preprocessing
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    manifest: Manifest
    manifest_digest: str
    parity: _containers.RepeatedCompositeFieldContainer[ParityRung]
    golden_images: _containers.RepeatedCompositeFieldContainer[GoldenImage]
    evidence: ModelEvidence
    preparation: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., state_reason: _Optional[str] = ..., is_default: _Optional[bool] = ..., input: _Optional[_Union[Input, _Mapping]] = ..., preprocessing: _Optional[_Union[Preprocessing, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., manifest: _Optional[_Union[Manifest, _Mapping]] = ..., manifest_digest: _Optional[str] = ..., parity: _Optional[_Iterable[_Union[ParityRung, _Mapping]]] = ..., golden_images: _Optional[_Iterable[_Union[GoldenImage, _Mapping]]] = ..., evidence: _Optional[_Union[ModelEvidence, _Mapping]] = ..., preparation: _Optional[str] = ...) -> None: ...

class ModelEvidence(_message.Message):
    __slots__ = ("include", "heatmap_method", "heatmap_passes", "heatmap_height", "heatmap_width", "features", "layers", "unfamiliar")
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_METHOD_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_PASSES_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_WIDTH_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    UNFAMILIAR_FIELD_NUMBER: _ClassVar[int]
    include: _containers.RepeatedScalarFieldContainer[Evidence]
    heatmap_method: HeatmapMethod
    heatmap_passes: int
    heatmap_height: int
    heatmap_width: int
    features: int
    layers: _containers.RepeatedCompositeFieldContainer[LayerShape]
    unfamiliar: bool
    def __init__(self, include: _Optional[_Iterable[_Union[Evidence, str]]] = ..., heatmap_method: _Optional[_Union[HeatmapMethod, str]] = ..., heatmap_passes: _Optional[int] = ..., heatmap_height: _Optional[int] = ..., heatmap_width: _Optional[int] = ..., features: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[LayerShape, _Mapping]]] = ..., unfamiliar: _Optional[bool] = ...) -> None: ...

class LayerShape(_message.Message):
    __slots__ = ("name", "maps", "height", "width")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    name: str
    maps: int
    height: int
    width: int
    def __init__(self, name: _Optional[str] = ..., maps: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("height", "width", "channels", "mean", "std")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    channels: int
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., channels: _Optional[int] = ..., mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ...) -> None: ...

class Preprocessing(_message.Message):
    __slots__ = ("photo", "digit")
    PHOTO_FIELD_NUMBER: _ClassVar[int]
    DIGIT_FIELD_NUMBER: _ClassVar[int]
    photo: Photo
    digit: Digit
    def __init__(self, photo: _Optional[_Union[Photo, _Mapping]] = ..., digit: _Optional[_Union[Digit, _Mapping]] = ...) -> None: ...

class Photo(_message.Message):
    __slots__ = ("resize", "crop", "interpolation", "antialias", "resize_mode", "channel_order", "fill", "mean", "std")
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    ANTIALIAS_FIELD_NUMBER: _ClassVar[int]
    RESIZE_MODE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_ORDER_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    resize: int
    crop: int
    interpolation: Interpolation
    antialias: bool
    resize_mode: ResizeMode
    channel_order: ChannelOrder
    fill: _containers.RepeatedScalarFieldContainer[int]
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, resize: _Optional[int] = ..., crop: _Optional[int] = ..., interpolation: _Optional[_Union[Interpolation, str]] = ..., antialias: _Optional[bool] = ..., resize_mode: _Optional[_Union[ResizeMode, str]] = ..., channel_order: _Optional[_Union[ChannelOrder, str]] = ..., fill: _Optional[_Iterable[int]] = ..., mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ...) -> None: ...

class Digit(_message.Message):
    __slots__ = ("size", "box")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    size: int
    box: int
    def __init__(self, size: _Optional[int] = ..., box: _Optional[int] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("name", "id", "threshold")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    threshold: float
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ..., threshold: _Optional[float] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("network", "paper", "weights", "precision", "onnx_sha256", "onnx_opset", "parameters", "macs", "labels_sha256", "versions", "build_command", "accuracy", "precision_recipe", "format", "engine", "calibration", "build_sha256", "unfamiliar_threshold", "temperature", "activation", "preparation", "evaluation", "adopted")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    PAPER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    ONNX_SHA256_FIELD_NUMBER: _ClassVar[int]
    ONNX_OPSET_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MACS_FIELD_NUMBER: _ClassVar[int]
    LABELS_SHA256_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    BUILD_COMMAND_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    PRECISION_RECIPE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    BUILD_SHA256_FIELD_NUMBER: _ClassVar[int]
    UNFAMILIAR_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    PREPARATION_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    ADOPTED_FIELD_NUMBER: _ClassVar[int]
    network: str
    paper: str
    weights: Weights
    precision: str
    onnx_sha256: str
    onnx_opset: int
    parameters: float
    macs: float
    labels_sha256: str
    versions: _containers.ScalarMap[str, str]
    build_command: str
    accuracy: _containers.RepeatedCompositeFieldContainer[Accuracy]
    precision_recipe: str
    format: str
    engine: Engine
    calibration: Calibration
    build_sha256: str
    unfamiliar_threshold: float
    temperature: float
    activation: str
    preparation: PreparationOrigin
    evaluation: Evaluation
    adopted: Adopted
    def __init__(self, network: _Optional[str] = ..., paper: _Optional[str] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ..., precision: _Optional[str] = ..., onnx_sha256: _Optional[str] = ..., onnx_opset: _Optional[int] = ..., parameters: _Optional[float] = ..., macs: _Optional[float] = ..., labels_sha256: _Optional[str] = ..., versions: _Optional[_Mapping[str, str]] = ..., build_command: _Optional[str] = ..., accuracy: _Optional[_Iterable[_Union[Accuracy, _Mapping]]] = ..., precision_recipe: _Optional[str] = ..., format: _Optional[str] = ..., engine: _Optional[_Union[Engine, _Mapping]] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ..., build_sha256: _Optional[str] = ..., unfamiliar_threshold: _Optional[float] = ..., temperature: _Optional[float] = ..., activation: _Optional[str] = ..., preparation: _Optional[_Union[PreparationOrigin, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., adopted: _Optional[_Union[Adopted, _Mapping]] = ...) -> None: ...

class Adopted(_message.Message):
    __slots__ = ("file", "sha256", "external_data", "input", "layout", "type", "batch", "output", "scores", "opset", "producer")
    class ExternalDataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FILE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_DATA_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    OPSET_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    file: str
    sha256: str
    external_data: _containers.ScalarMap[str, str]
    input: str
    layout: str
    type: str
    batch: int
    output: str
    scores: str
    opset: int
    producer: str
    def __init__(self, file: _Optional[str] = ..., sha256: _Optional[str] = ..., external_data: _Optional[_Mapping[str, str]] = ..., input: _Optional[str] = ..., layout: _Optional[str] = ..., type: _Optional[str] = ..., batch: _Optional[int] = ..., output: _Optional[str] = ..., scores: _Optional[str] = ..., opset: _Optional[int] = ..., producer: _Optional[str] = ...) -> None: ...

class PreparationOrigin(_message.Message):
    __slots__ = ("source", "assumed", "file", "images")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ASSUMED_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    source: str
    assumed: _containers.RepeatedScalarFieldContainer[str]
    file: str
    images: int
    def __init__(self, source: _Optional[str] = ..., assumed: _Optional[_Iterable[str]] = ..., file: _Optional[str] = ..., images: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("data", "data_sha256", "images", "excluded", "top1_correct", "top5_correct", "calibration_error", "fp32")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DATA_SHA256_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    TOP1_CORRECT_FIELD_NUMBER: _ClassVar[int]
    TOP5_CORRECT_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ERROR_FIELD_NUMBER: _ClassVar[int]
    FP32_FIELD_NUMBER: _ClassVar[int]
    data: str
    data_sha256: str
    images: int
    excluded: int
    top1_correct: int
    top5_correct: int
    calibration_error: float
    fp32: PairedComparison
    def __init__(self, data: _Optional[str] = ..., data_sha256: _Optional[str] = ..., images: _Optional[int] = ..., excluded: _Optional[int] = ..., top1_correct: _Optional[int] = ..., top5_correct: _Optional[int] = ..., calibration_error: _Optional[float] = ..., fp32: _Optional[_Union[PairedComparison, _Mapping]] = ...) -> None: ...

class PairedComparison(_message.Message):
    __slots__ = ("top1_correct", "lost", "gained", "drop_upper_bound", "max_drop")
    TOP1_CORRECT_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    GAINED_FIELD_NUMBER: _ClassVar[int]
    DROP_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    MAX_DROP_FIELD_NUMBER: _ClassVar[int]
    top1_correct: int
    lost: int
    gained: int
    drop_upper_bound: float
    max_drop: float
    def __init__(self, top1_correct: _Optional[int] = ..., lost: _Optional[int] = ..., gained: _Optional[int] = ..., drop_upper_bound: _Optional[float] = ..., max_drop: _Optional[float] = ...) -> None: ...

class Engine(_message.Message):
    __slots__ = ("sha256", "library", "version", "cuda", "gpu", "compute_capability", "min_batch", "opt_batch", "max_batch")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CUDA_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    MIN_BATCH_FIELD_NUMBER: _ClassVar[int]
    OPT_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    library: str
    version: str
    cuda: str
    gpu: str
    compute_capability: str
    min_batch: int
    opt_batch: int
    max_batch: int
    def __init__(self, sha256: _Optional[str] = ..., library: _Optional[str] = ..., version: _Optional[str] = ..., cuda: _Optional[str] = ..., gpu: _Optional[str] = ..., compute_capability: _Optional[str] = ..., min_batch: _Optional[int] = ..., opt_batch: _Optional[int] = ..., max_batch: _Optional[int] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("images", "sha256", "refused")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    images: int
    sha256: str
    refused: int
    def __init__(self, images: _Optional[int] = ..., sha256: _Optional[str] = ..., refused: _Optional[int] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ("source", "sha256", "file")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    source: str
    sha256: str
    file: str
    def __init__(self, source: _Optional[str] = ..., sha256: _Optional[str] = ..., file: _Optional[str] = ...) -> None: ...

class Accuracy(_message.Message):
    __slots__ = ("measured", "correct", "total")
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    measured: str
    correct: int
    total: int
    def __init__(self, measured: _Optional[str] = ..., correct: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class ParityRung(_message.Message):
    __slots__ = ("name", "images", "batch_sizes", "top1_agreement", "top5_agreement", "largest_difference", "tolerance", "worst_image", "reported_only", "batch_sizes_seen", "largest_map_difference", "map_tolerance", "smallest_features_cosine", "required_features_cosine")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    TOP1_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    TOP5_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    WORST_IMAGE_FIELD_NUMBER: _ClassVar[int]
    REPORTED_ONLY_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZES_SEEN_FIELD_NUMBER: _ClassVar[int]
    LARGEST_MAP_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    MAP_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_FEATURES_COSINE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FEATURES_COSINE_FIELD_NUMBER: _ClassVar[int]
    name: str
    images: int
    batch_sizes: _containers.RepeatedScalarFieldContainer[int]
    top1_agreement: float
    top5_agreement: float
    largest_difference: float
    tolerance: float
    worst_image: str
    reported_only: bool
    batch_sizes_seen: _containers.RepeatedScalarFieldContainer[int]
    largest_map_difference: float
    map_tolerance: float
    smallest_features_cosine: float
    required_features_cosine: float
    def __init__(self, name: _Optional[str] = ..., images: _Optional[int] = ..., batch_sizes: _Optional[_Iterable[int]] = ..., top1_agreement: _Optional[float] = ..., top5_agreement: _Optional[float] = ..., largest_difference: _Optional[float] = ..., tolerance: _Optional[float] = ..., worst_image: _Optional[str] = ..., reported_only: _Optional[bool] = ..., batch_sizes_seen: _Optional[_Iterable[int]] = ..., largest_map_difference: _Optional[float] = ..., map_tolerance: _Optional[float] = ..., smallest_features_cosine: _Optional[float] = ..., required_features_cosine: _Optional[float] = ...) -> None: ...

class GoldenImage(_message.Message):
    __slots__ = ("content", "name", "expected", "tolerance", "expected_map", "expected_features", "evidence_tolerance")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MAP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FEATURES_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    name: str
    expected: _containers.RepeatedCompositeFieldContainer[Class]
    tolerance: float
    expected_map: ClassMap
    expected_features: _containers.RepeatedScalarFieldContainer[float]
    evidence_tolerance: float
    def __init__(self, content: _Optional[bytes] = ..., name: _Optional[str] = ..., expected: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., tolerance: _Optional[float] = ..., expected_map: _Optional[_Union[ClassMap, _Mapping]] = ..., expected_features: _Optional[_Iterable[float]] = ..., evidence_tolerance: _Optional[float] = ...) -> None: ...
