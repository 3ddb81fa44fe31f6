"""What can be known of a published checkpoint."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web.

    Parameters
    ----------
    name : str
        What it is called here.
    url : str
        Where it is; for a file that can't be fetched, the page to get it from.
    sha256 : str or None, default=None
        Its SHA-256, or the beginning that its authors put in its name; ``None`` where
        nobody published one.
    fetchable : bool, default=True
        Whether the address gives the file itself.
    decides : bool, default=True
        Whether clips' rows depend on it, which those of texts don't.
    """

    name: str
    url: str
    sha256: str | None = None
    fetchable: bool = True
    decides: bool = True


@dataclass(frozen=True)
class PublishedScore:
    """A result that somebody published of a checkpoint.

    Parameters
    ----------
    task : str
        Data set, and how it was used.
    metric : str
        The measure, such as ``"mAP"``.
    value : float
        The result.
    source : str
        Where it stands.
    """

    task: str
    metric: str
    value: float
    source: str

    def __str__(self):
        return f"{self.task} {self.metric} {self.value}"


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint.

    Parameters
    ----------
    name : str
        Its name here, for the parameter `weights`.
    encoder : str
        The encoder that it is for, such as ``"yamnet"``.
    sources : tuple of RemoteFile
        Its files on the web, the encoder's weights first.
    licence : str
        Licence of the weights.
    n_components : int
        Length of the embedding.
    reference : str
        The paper, or the place of publication.
    front_end : str
        Name of the front end that belongs to the weights.
    n_classes : int or None, default=None
        Number of class scores.
    labels : RemoteFile or None, default=None
        The list of the classes.
    class_names : tuple of str or None, default=None
        The classes themselves, of a model that has a few.
    n_parameters : int or None, default=None
        Number of weights of the encoder, without the constants of its front end.
    multiply_adds : int or None, default=None
        Multiplications and additions that the network takes for 10 s of audio.
    training_data : str or None, default=None
        What it was trained on.
    scores : tuple of PublishedScore, default=()
        What its authors, or others, report of it.
    hub_id : str or None, default=None
        The Hugging Face repository that holds the files, if one does.
    revision : str or None, default=None
        Commit of that repository.
    """

    name: str
    encoder: str
    sources: tuple
    licence: str
    n_components: int
    reference: str
    front_end: str
    n_classes: int | None = None
    labels: RemoteFile | None = None
    class_names: tuple | None = None
    n_parameters: int | None = None
    multiply_adds: int | None = None
    training_data: str | None = None
    scores: tuple = ()
    hub_id: str | None = None
    revision: str | None = None

    @property
    def files(self):
        """Names of its files, the encoder's weights first."""
        return tuple(source.name for source in self.sources)

    @property
    def score(self):
        """The published scores in words, or None."""
        return ", ".join(map(str, self.scores)) or None


# The digest is that of the list which several releases of AudioSet taggers carry.
AUDIOSET_LABELS = RemoteFile(
    "class_labels_indices.csv",
    "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"
    "class_labels_indices.csv",
    "cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
)
AUDIOSET_EVALUATION = "AudioSet evaluation"
