"""Weights that are at hand, and their model card."""

from dataclasses import dataclass, replace

from ._published import CHECKPOINTS
from ._records import Checkpoint


@dataclass(frozen=True, repr=False)
class ResolvedCheckpoint:
    """Weights that are at hand: where from, and which exactly.

    Printed, it is the model's card: its size, licence, training data and published
    scores.

    Parameters
    ----------
    encoder : str
        The encoder that they are for.
    record : Checkpoint or None, default=None
        What is known of them, if they are a published checkpoint.
    paths : tuple of str, default=()
        Their files, the encoder's weights first; none for random weights.
    sha256 : str or None, default=None
        SHA-256 of the file or, of several, of their SHA-256s one behind the other.
    labels : tuple of str or None, default=None
        The classes, in the order of the scores, if a list of them was found.
    n_parameters : int or None, default=None
        Number of weights of the encoder that was made of them.
    """

    encoder: str
    record: Checkpoint | None = None
    paths: tuple = ()
    sha256: str | None = None
    labels: tuple | None = None
    n_parameters: int | None = None

    def complete(self, n_parameters, n_classes):
        """Return it with what the encoder that was made of the weights tells.

        Parameters
        ----------
        n_parameters : int
            Number of the encoder's weights.
        n_classes : int or None
            Number of its class scores.

        Returns
        -------
        ResolvedCheckpoint
            The same weights.
        """
        # A list that lies beside a file of one's own need not be its.
        fits = len(self.labels or ()) == n_classes
        labels = self.labels if fits else None
        return replace(self, n_parameters=n_parameters, labels=labels)

    @property
    def path(self):
        """The file of the encoder's weights; None for random weights."""
        return self.paths[0] if self.paths else None

    @property
    def name(self):
        """Name of the published checkpoint, or None."""
        return self.record and self.record.name

    @property
    def multiply_adds(self):
        """Multiplications and additions for 10 s of audio, or None.

        It is known for published models, and for others of as many weights, if all
        published ones of so many agree.
        """
        if self.record is not None:
            return self.record.multiply_adds
        # Networks with as many weights may differ in what they do with them.
        found = {
            record.multiply_adds
            for record in CHECKPOINTS
            if (record.encoder, record.n_parameters)
            == (self.encoder, self.n_parameters)
        }
        return found.pop() if len(found) == 1 else None

    @property
    def licence(self):
        """Licence of the published checkpoint, or None."""
        return self.record and self.record.licence

    @property
    def training_data(self):
        """What the published checkpoint was trained on, or None."""
        return self.record and self.record.training_data

    @property
    def scores(self):
        """What was reported of the published checkpoint."""
        return self.record.scores if self.record else ()

    @property
    def score(self):
        """The same in words, or None."""
        return self.record and self.record.score

    @property
    def reference(self):
        """Paper of the published checkpoint, or None."""
        return self.record and self.record.reference

    def __repr__(self):
        names = ("encoder", "name", "path", "sha256", "licence", "score")
        facts = {name: getattr(self, name) for name in names}
        shown = [f"{name}={fact!r}" for name, fact in facts.items() if fact]
        if self.path is None:
            shown.append("random weights")
        if self.labels:
            shown.append(f"{len(self.labels)} labels")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __str__(self):
        facts = {
            "encoder": self.encoder,
            "checkpoint": self.name or "none of the published",
            "weights": self.path or "random",
            "SHA-256": self.sha256,
            "parameters": self.n_parameters and f"{self.n_parameters:,}",
            "multiply-adds": self.multiply_adds
            and f"{self.multiply_adds / 1e9:.3g} G for 10 s",
            "classes": self.labels and f"{len(self.labels)}, such as {self.labels[0]}",
            "licence": self.licence,
            "trained on": self.training_data,
            "reference": self.reference,
        }
        lines = [f"{name:14}{fact}" for name, fact in facts.items() if fact]
        lines += [f"{'published':14}{score} ({score.source})" for score in self.scores]
        return "\n".join(lines)
