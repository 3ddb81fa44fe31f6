"""Graphs of labels: how far apart labels are, and what is above them."""

from ._audioset import AudioSetOntology
from ._label_graph import LabelGraph

__all__ = ["AudioSetOntology", "LabelGraph"]
