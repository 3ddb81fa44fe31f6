"""The published checkpoints, and what the parameter `weights` of estimators means."""

from ._ast_record import read_ast_record, size_ast
from ._fetch import HUB_WEIGHTS, locate_checkpoints
from ._records import Checkpoint
from ._registry import (
    find_again,
    list_checkpoints,
    recognise_file,
    resolve_weights,
)
from ._resolved import ResolvedCheckpoint

__all__ = [
    "HUB_WEIGHTS",
    "Checkpoint",
    "ResolvedCheckpoint",
    "find_again",
    "list_checkpoints",
    "locate_checkpoints",
    "read_ast_record",
    "recognise_file",
    "resolve_weights",
    "size_ast",
]
