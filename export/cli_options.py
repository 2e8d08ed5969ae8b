"""The options of the commands: each one's flag, type, bounds and help text.

`Repository` is shared by every command that works on a model repository, `Json` by those that print
figures, the next three by those that ask a running gateway. The others are those of `convoy build`;
`options.Options` has a field of the same type for each that a build depends on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from export.catalog import CATALOG

Repository = Annotated[
    Path | None,
    typer.Option(
        "--repository",
        envvar="CONVOY_REPOSITORY",
        file_okay=False,
        help="The model repository.",
        show_default="the checkout's model_repository, else ./model_repository",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

ServedModel = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model's name on the gateway.")
]
ServedVersion = Annotated[
    str,
    typer.Option(
        "--version", metavar="N", help="The model's version.", show_default="the default version"
    ),
]
Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="CONVOY_SERVER",
        metavar="HOST:PORT|URL",
        help="The gateway: HOST:PORT for gRPC, http://HOST:PORT for HTTP.",
    ),
]

# ------------------------------------------------------------------------------ what is built

Networks = Annotated[
    list[str] | None,
    typer.Argument(metavar="NETWORK…", help=f"One or more: {', '.join(CATALOG)}."),
]
All = Annotated[bool, typer.Option("--all", help="Build every network of the catalog.")]
Fp16 = Annotated[
    bool,
    typer.Option("--fp16", help="Half precision: half the size, faster on a GPU. Default: fp32."),
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8", help="8-bit integers, with the recipe of the target; needs --calibration."
    ),
]


def calibration_option(default: str | bool = False) -> Any:
    return typer.Option(
        "--calibration",
        metavar="DIR",
        help="For --int8: a folder with a few hundred pictures like those that will be served.",
        show_default=default,
    )


Calibration = Annotated[Path | None, calibration_option()]
Evaluate = Annotated[
    Path | None,
    typer.Option(
        "--evaluate",
        metavar="DIR|TRUTH.csv",
        help="Labelled pictures, a folder per label or a CSV file with the columns path and label: "
        "accuracy and calibration go into the manifest, in fp16 and int8 compared with fp32 "
        "(docs/evaluating.md).",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        min=0.01,
        max=50,
        help="Publish nothing unless --evaluate shows that less top-1 accuracy than this is lost "
        "against fp32, in percentage points, with a confidence of 95 %.",
    ),
]
FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="onnx|plan|rtx",
        help="An ONNX file, which runs everywhere; a TensorRT plan, for this kind of GPU; or a "
        "TensorRT-RTX engine, which is written to --output and never published.",
        show_default="plan where there are a GPU and TensorRT, else onnx",
    ),
]
MaxBatch = Annotated[
    int | None,
    typer.Option(
        "--max-batch",
        min=1,
        max=1024,
        help="Maximum batch size.",
        show_default="8, or 64 for a plan",
    ),
]
OptBatch = Annotated[
    int | None,
    typer.Option(
        "--opt-batch",
        min=1,
        help="The batch size for which an engine is optimised.",
        show_default="32, or --max-batch if that is less",
    ),
]
OptimizationLevel = Annotated[
    int | None,
    typer.Option(
        "--optimization-level",
        min=0,
        max=5,
        help="Of an engine: 0 builds fast, 5 runs fast.",
        show_default="TensorRT's own choice",
    ),
]

# ------------------------------------------------------------------------------ from which weights

WeightsSource = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="imagenet|imagenet1k_v1|digits|random|FILE",
        help="Published weights, the best or the first version; the digit weights that "
        "export/train.py trained; seeded random ones (the answers are meaningless); or a .pth or "
        ".safetensors file with a state dict. Published weights are downloaded once, into "
        "~/.cache/convoy/weights (XDG_CACHE_HOME).",
        show_default="imagenet for the ImageNet networks, digits for those trained here",
    ),
]
WeightsKey = Annotated[
    str | None,
    typer.Option(
        "--weights-key",
        metavar="KEY",
        help="Where in FILE the weights are, if it has several sets of them: the key, such as "
        "state_dict_ema, or the key and the prefix of the names, such as state_dict.ema_model.",
        show_default="the only set",
    ),
]
TransformInput = Annotated[
    bool | None,
    typer.Option(
        "--transform-input/--no-transform-input",
        help="For googlenet and inception_v3 from a FILE: whether it was trained with pixels that "
        "are normalised again. Weights that were fine-tuned from torchvision's published ones "
        "were; of others, the training's code says it.",
        show_default="an error that explains it",
    ),
]
ActivationName = Annotated[
    str,
    typer.Option(
        "--activation",
        metavar="softmax|sigmoid",
        help="What makes scores of a FILE's outputs: softmax, of one class per picture; or "
        "sigmoid, of each class for itself, for one output or several labels per picture.",
    ),
]
WeightsUrl = Annotated[
    str | None,
    typer.Option(
        "--weights-url",
        envvar="CONVOY_WEIGHTS_URL",
        metavar="URL",
        help="Where to download published weights: a folder that has the files under their "
        "published names.",
        show_default="PyTorch's server",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random weights.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Your own classes, for a fine-tuned FILE of weights: one label per line, in the order "
        "of the network's outputs; CSV or TSV with index or id; or JSON, as ImageFolder, "
        "TorchServe and Keras have it (docs/moving-in.md).",
        show_default="the network's",
    ),
]

# ------------------------------------------------------------------------------ where it goes


def name_option(default: str) -> Any:
    return typer.Option(
        "--name",
        metavar="NAME",
        help="The model's name: lower-case letters, digits, '-' and '_'.",
        show_default=default,
    )


ModelName = Annotated[str | None, name_option("the network's name")]
Keep = Annotated[
    int | None,
    typer.Option(
        "--keep",
        min=2,
        help="Once the new version is published, delete all but this many of the newest.",
        show_default="keep all",
    ),
]
Triton = Annotated[
    str | None,
    typer.Option(
        "--triton",
        metavar="HOST:PORT",
        help="A Triton (gRPC) that serves this repository: the served answer is proven with it "
        "before the version is published. Without it, ONNX Runtime proves it, and a plan is proven "
        "by each gateway that loads it.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", file_okay=False, help="The folder in which --format rtx writes NAME/."
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Rebuild everything, even if the same build is published."),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Rebuild the highest version in its place instead of adding one. For the networks "
        "that ship, until the first release; a server that has it loaded must be restarted.",
    ),
]
