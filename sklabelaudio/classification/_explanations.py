"""Why a clip came to a label, in a form to read."""

from typing import NamedTuple


class ClassContribution(NamedTuple):
    """What one of a tagger's classes contributes to the score of a label."""

    label: str
    probability: float
    weight: float
    contribution: float


class LabelExplanation(NamedTuple):
    """How a clip came to a label: the score and what the tagger's classes did."""

    label: str
    score: float
    classes: list

    def __repr__(self):
        lines = [
            f"{self.label!r} scores {self.score:.4f}",
            "  contribution = probability x weight",
        ]
        lines += [
            f"  {row.contribution:12.4f} {row.probability:13.4f} {row.weight:8.4f}  "
            f"{row.label}"
            for row in self.classes
        ]
        return "\n".join(lines)
