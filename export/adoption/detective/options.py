"""The options of `convoy adopt` that say what a reference system answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

PredictionsFile = Annotated[
    Path | None,
    typer.Option(
        "--predictions",
        metavar="FILE",
        help="What the system in which the file was used answered to the pictures in --examples, a "
        "label or scores for each: CSV or JSON lines (docs/moving-in.md). How pictures are "
        "prepared is found out by these answers; options of preparation say what is known of it.",
    ),
]
SearchMinutes = Annotated[
    float,
    typer.Option(
        "--search-minutes",
        metavar="N",
        min=0.1,
        max=1440,
        help="The longest time that --predictions may take: seven tenths for the search, the rest "
        "to make sure of what it has found. What there was no time for is reported.",
    ),
]


@dataclass(frozen=True)
class ReferenceOptions:
    """The options as they were typed."""

    predictions: PredictionsFile = None
    search_minutes: SearchMinutes = 10


NO_REFERENCE = ReferenceOptions()
