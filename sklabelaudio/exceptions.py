"""Errors and warnings a caller may want to catch."""


class AudioReadError(ValueError):
    """A sound file can't be read.

    Parameters
    ----------
    path : str
        The file.
    cause : str
        What is wrong with it, in words.

    Attributes
    ----------
    path : str
        The file.
    cause : str
        What is wrong with it, in words.
    """

    def __init__(self, path, cause):
        # Both go to Exception.args, so that the error survives pickling when it
        # is raised in a worker process.
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self):
        return f"can't read {self.path!r}: {self.cause}"


class AudioReadWarning(UserWarning):
    """Some clips could not be read and their rows are NaN (``on_error="skip"``)."""


class EmbeddingCacheWarning(UserWarning):
    """A cache of embeddings can't be used, and the work goes on without it."""


class CheckpointError(ValueError):
    """A file of weights can't be read, or is not one of the model it was given for.

    Parameters
    ----------
    path : str
        The file.
    message : str
        What is wrong with it and the mend, in words.

    Attributes
    ----------
    path : str
        The file.
    message : str
        What is wrong with it and the mend, in words.
    """

    def __init__(self, path, message):
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self):
        return f"can't load {self.path!r}: {self.message}"


class UnknownLabelError(ValueError):
    """Labels that a text model has no vector for, or that are not in a graph.

    Parameters
    ----------
    labels : list of str
        Every label that is unknown.
    message : str
        The whole message, with the mend.

    Attributes
    ----------
    labels : list of str
        Every label that is unknown.
    """

    def __init__(self, labels, message):
        super().__init__(labels, message)
        self.labels = labels
        self.message = message

    def __str__(self):
        return self.message
