"""What was found, for people: how sure it is with so many pictures, and what is left open."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import numpy as np
from rich.console import RenderableType

from convoy.tables import PlainTable, plain_console
from convoy.terminal import printable
from export.adoption.detective.findings import ASPECTS, MANY, Aspect, Findings
from export.adoption.detective.reference import Reference
from export.adoption.detective.search import CLOSE
from export.console import table
from export.preparation.given import Given
from export.preparation.options import PreparationOptions

MAX_VALUES = 4  # of an aspect that is open
MAX_LISTED = 8  # settings that cannot be told apart


def to_options(setting: Given) -> PreparationOptions:
    """The options that say it."""
    is_sampled = setting.interpolation not in ("nearest", "area", "box", "lanczos")
    says_filter = is_sampled or setting.antialias is False
    return PreparationOptions(
        resize=setting.resize,
        crop=str(setting.crop),
        interpolation=setting.interpolation,
        antialias=setting.antialias if says_filter else None,
        resize_mode=setting.resize_mode,
        mean=_numbers(setting.mean),
        std=_numbers(setting.std),
        channels=setting.channels,
        fill=_numbers(setting.fill),
    )


def _numbers(numbers: tuple[float, ...] | None) -> str | None:
    return ",".join(f"{number:.7g}" for number in numbers) if numbers else None


def print_findings(findings: Findings, reference: Reference, seconds: float) -> None:
    """Of what fits nothing, how much was tried."""
    if findings.fits:
        for line in render_summary(findings, reference, seconds):
            print(printable(line))
        plain_console().print(render_aspects(findings))
        for line in render_alike(findings):
            print(printable(line))
    else:
        print(render_effort(findings, reference, seconds))
    if untried := render_untried(findings):
        print(untried)


def render_effort(findings: Findings, reference: Reference, seconds: float) -> str:
    count = len(reference)
    of_all = "" if count == reference.found else f" of {reference.found}"
    what = "labels alone" if reference.scores is None else "scores"
    return (
        f"reference: {count}{of_all} pictures with {what}; {findings.tried} settings in "
        f"{seconds:.0f} s"
    )


def render_untried(findings: Findings) -> str:
    """What there was no time for; empty if there was enough."""
    unfinished = findings.unfinished
    parts = []
    if unfinished.recipes:
        parts.append(f"{unfinished.recipes} published recipes")
    if unfinished.starts:
        parts.append(f"what else is near {unfinished.starts} of the nearest recipes")
    parts += [
        f"{it.untried} of {it.values} other values of {it.name}"
        for it in findings.aspects
        if it.untried
    ]
    more = " (--search-minutes gives it more time)"
    return f"its time was over, so it has not tried: {', '.join(parts)}{more}" if parts else ""


def render_summary(findings: Findings, reference: Reference, seconds: float) -> Iterator[str]:
    count = len(reference)
    yield render_effort(findings, reference, seconds)
    yield f"pictures are prepared so: {shlex.join(to_options(findings.best).words)}"
    if reference.scores is None:
        yield f"its label comes back for {findings.agreeing} of {count} pictures"
    else:
        mean, largest = findings.differences.mean(), findings.differences.max()
        yield (
            f"its scores come back within {mean:.1e} on average, {largest:.1e} at most; its label "
            f"for {findings.agreeing} of {count} pictures"
        )
    if findings.differences.mean() > CLOSE:
        yield "that is near, and not exact: the reference may do what no option says"


def render_aspects(findings: Findings) -> PlainTable:
    shown = table(
        "aspect", "found", "how sure", "nearest that differs", numbers=("off by", "worse")
    )
    for aspect in findings.aspects:
        shown.add_row(*_cells(aspect, findings))
    return shown


def _cells(aspect: Aspect, findings: Findings) -> Iterator[RenderableType]:
    yield aspect.name
    yield words(findings.best, aspect.name)
    yield _certainty(aspect)
    if aspect.rival is None:
        yield from ("", "", "")
        return
    rival = aspect.rival
    yield words(rival.setting, aspect.name)
    yield f"{rival.difference:.1e}"
    yield f"{rival.worse} of {len(findings.differences)}"


def _certainty(aspect: Aspect) -> str:
    """With the values that fit as well, if it is open."""
    if aspect.certainty != "open":
        return aspect.certainty
    values = list(dict.fromkeys(words(it, aspect.name) for it in aspect.alike))
    more = ", …" if len(values) > MAX_VALUES else ""
    return f"open: {', '.join(values[:MAX_VALUES])}{more}"


def render_alike(findings: Findings) -> Iterator[str]:
    """The settings that fit as well, as the options in which they differ from the one found."""
    if likely := [it.name for it in findings.aspects if it.certainty == "likely"]:
        why = f"fewer than {MANY} pictures say so, or one says the contrary"
        yield f"likely: {', '.join(likely)}; {why}"
    if not findings.alike:
        return
    yield (
        f"these pictures cannot tell apart {len(findings.alike) + 1} settings, whose scores differ "
        f"by {findings.spread:.1e} on average; the commonest is taken. The others have:"
    )
    for setting in findings.alike[:MAX_LISTED]:
        yield f"  {difference(setting, findings.best)}"
    if len(findings.alike) > MAX_LISTED:
        yield f"  and {len(findings.alike) - MAX_LISTED} more"


def difference(setting: Given, best: Given) -> str:
    """The options of a setting that are others than those of the best."""
    names = (name for name in ASPECTS if words(setting, name) != words(best, name))
    return ", ".join(words(setting, name) for name in names)


def words(setting: Given, aspect: str) -> str:
    """Such as "bilinear, not antialiased"."""
    match aspect:
        case "resize mode":
            fill = ", ".join(map(str, setting.fill or (0, 0, 0)))
            is_padded = setting.resize_mode == "pad"
            return f"pad with {fill}" if is_padded else str(setting.resize_mode)
        case "resize":
            return f"to {setting.resize}"
        case "interpolation":
            suffix = "" if setting.antialias else ", not antialiased"
            return f"{setting.interpolation}{suffix}"
        case "channels":
            return str(setting.channels)
        case _:
            mean, std = (
                "/".join(f"{number:.4g}" for number in numbers or ())
                for numbers in (setting.mean, setting.std)
            )
            return f"{mean or 'pixels'} and {std or 'as they are'}"


def explain_misfit(findings: Findings, reference: Reference) -> str:
    """Why nothing is published."""
    worst = int(np.argmax(findings.differences))
    unit = "points that its label is behind" if reference.scores is None else "in a score"
    return (
        f"none of the {findings.tried} settings that were tried brings the reference's answers "
        f"back. The nearest is off by {findings.differences.mean():.2g} on average and by "
        f"{findings.differences[worst]:.2g} for {reference.names[worst]} ({unit}), and gets its "
        f"label for {findings.agreeing} of {len(reference)} pictures: "
        f"{shlex.join(to_options(findings.best).words)}. Check that the reference had the same "
        "weights, the same pictures and the order of --labels, and that it answered with one view "
        "of a picture and no temperature; or say what you know by the options of preparation."
    )
