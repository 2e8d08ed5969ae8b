"""Which of a checkpoint's tensors are the weights of a network.

A set of weights has all names of the network and no others, under one key: that of the mappings
around it, then the prefix of its names.

    key                 where
    ""                  the file is a state dict
    state_dict.model    Lightning: {"state_dict": {"model.conv1.weight": ...}}
    state_dict_ema      timm: averaged weights, beside those of "state_dict"

A file with two different sets is refused, unless `--weights-key` says which one to build. Names of
wrappers that say nothing, such as torch.compile's `_orig_mod`, are left out wherever they are; so
are auxiliary heads, which only training uses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.errors import CheckpointError

StateDict = dict[str, Tensor]

MAX_DEPTH = 5  # of mappings in mappings; a pickle can hold one that contains itself
# What DataParallel, torch.compile, FSDP and activation checkpointing put into names.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")  # of the published GoogLeNet and Inception v3
BATCHES = "num_batches_tracked"  # of a batch norm; old files lack it, only training reads it
AVERAGED = "n_averaged"  # of torch's AveragedModel: how many were averaged


@dataclass(frozen=True)
class WeightSet:
    key: str
    state: StateDict  # under the names that the architectures give them
    beside: tuple[str, ...] = ()  # other names in the same mapping


def choose_weights(content: Any, own: Set[str], path: Path, key: str | None = None) -> WeightSet:
    """The one set with these names, or else the one that has most of them.

    Raises:
        CheckpointError: there are no weights, several sets of them, or others beside them.
    """
    mappings = find_mappings(content)
    if not mappings:
        raise CheckpointError(
            f"{path} holds no state dict{describe_keys(content)}: save network.state_dict() with "
            "torch.save."
        )
    sets = [
        weights for name, state in mappings.items() for weights in weight_sets(name, state, own)
    ]
    if key is not None:
        sets = _under(sets, _plain(key), own, path)
    complete = _distinct([weights for weights in sets if is_complete(weights, own)])
    if len(complete) > 1:
        keys = " and ".join(weights.key or "the file itself" for weights in complete)
        raise CheckpointError(
            f"{path} has {len(complete)} sets of weights, {keys}: choose one with --weights-key "
            f"{complete[-1].key}, for example."
        )
    for weights in complete:
        if weights.beside and key is None:
            raise CheckpointError(
                f"{path} has {render_names(weights.beside)} beside the weights in {weights.key}: "
                f"give --weights-key {weights.key} to leave them out."
            )
        return weights
    return max(sets, key=lambda weights: (len(weights.state.keys() & own), len(weights.state)))


def _under(sets: list[WeightSet], key: str, own: Set[str], path: Path) -> list[WeightSet]:
    """Those at the key; or else those below it."""
    exact = [weights for weights in sets if weights.key == key]
    if chosen := exact or [weights for weights in sets if weights.key.startswith(f"{key}.")]:
        return chosen
    keys = sorted({weights.key for weights in sets if is_complete(weights, own) and weights.key})
    remedy = f"give --weights-key {' or '.join(keys)}" if keys else "leave --weights-key out"
    raise CheckpointError(f"{path} has no weights under {key!r}: {remedy}.")


# -------------------------------------------------------------------------------------- where


def find_mappings(content: Any, key: str = "", depth: int = 0) -> dict[str, StateDict]:
    """The tensors of each mapping in the content, by its key. What has no name is left out."""
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return {}
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if torch.is_tensor(value)}
    found = {key: tensors} if tensors else {}
    for name, value in named.items():
        found |= find_mappings(value, _join(key, name), depth + 1)
    return found


def weight_sets(key: str, tensors: StateDict, own: Set[str]) -> Iterator[WeightSet]:
    """For each prefix under which the mapping has one of the network's names, what is there."""
    names = {_plain(name): name for name in tensors if name != AVERAGED}
    if len(names) < len(tensors) - (AVERAGED in tensors):  # they differ in these words alone
        names = {name: name for name in tensors}
    prefixes = dict.fromkeys(prefix for name in names for prefix in _prefixes(name, own))
    for prefix in prefixes or [""]:
        start = f"{prefix}." if prefix else ""
        under = {name.removeprefix(start): name for name in names if name.startswith(start)}
        state = {
            name: tensors[names[full]]
            for name, full in under.items()
            if not name.startswith(AUXILIARY_HEADS)
        }
        beside = tuple(name for name in names if not name.startswith(start))
        yield WeightSet(_join(_plain(key), prefix), state, beside)


def _prefixes(name: str, own: Set[str]) -> Iterator[str]:
    """What precedes a name of the network in this one, if anything does: usually ""."""
    words = name.split(".")
    for start in range(len(words)):
        if ".".join(words[start:]) in own:
            yield ".".join(words[:start])


def is_complete(weights: WeightSet, own: Set[str]) -> bool:
    return _without_batches(weights.state) == _without_batches(own)


def _without_batches(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.endswith(BATCHES)}


def _distinct(sets: list[WeightSet]) -> list[WeightSet]:
    """Without those whose numbers are another's: a file may have the same twice."""
    distinct: list[WeightSet] = []
    for weights in sets:
        if not any(_equal(weights.state, other.state) for other in distinct):
            distinct.append(weights)
    return distinct


def _equal(state: StateDict, other: StateDict) -> bool:
    return all(
        state[name].dtype == other[name].dtype and torch.equal(state[name], other[name])
        for name in _without_batches(state)
    )


# -------------------------------------------------------------------------------------- words


def _plain(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def _join(*words: str) -> str:
    return ".".join(word for word in words if word)


def render_names(names: Collection[str]) -> str:
    shown = [*names][:3]
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown) + rest


def describe_keys(content: Any) -> str:
    """What a file has in place of tensors, to be put behind a clause."""
    if not isinstance(content, Mapping):
        return f", but a {type(content).__name__}"
    return f"; its keys are {', '.join(map(str, content)) or 'none'}"
