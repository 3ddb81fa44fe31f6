"""Descriptions of the parameters that all embedders share."""

import inspect

_PARAMETERS = """
sampling_rate : float, default=None
    Rate of clips given as arrays, in Hz, which carry none. Files know theirs.
    Either is resampled to the encoder's.
{output}
pooling : {{"mean", "max"}}, default="mean"
    How the windows of a clip become one row. Ignored with ``output="frames"``.
{hop}
batch_size : int, default=32
    Windows run together on a GPU. A CPU runs each clip by itself.
device : str or torch.device, default="auto"
    Where the encoder runs; ``"auto"`` is a GPU if there is one.
amp : bool, default=False
    Whether a GPU computes in half precision where torch thinks it harmless. It is
    faster, and rounds to three digits.
cache : str, path-like or EmbeddingCache, default=None
    Folder in which rows are kept for the next time, by the clips' content.
channel : "mean" or int, default="mean"
    What to take of files with several channels: their mean, or the channel of
    this index.
n_jobs : int, default=-1
    Threads that work on clips at the same time; ``None`` is 1, -1 all cores.
on_error : {{"raise", "skip"}}, default="raise"
    What to do with a clip that can't be used. With ``"skip"`` its row is NaN and
    one warning names all such clips.
verbose : bool, default=False
    Whether to show a progress bar.
"""

_ATTRIBUTES = """
checkpoint_ : ResolvedCheckpoint
    Where the weights are from: name, files, digest and classes. Printed, it is the
    model's card: also size, licence, training data and published scores.
n_components_ : int
    Length of a row.
sampling_rate_ : float
    The encoder's rate, in Hz.
n_features_in_ : int
    Number of samples of a clip, if X was a 2-D array.
"""

_OUTPUT = """
output : {"embedding", "logits", "probabilities", "frames"}, default="embedding"
    What to give of each clip: the vector that the encoder's classifier reads, its
    scores of the classes, their probabilities, or the vectors of all windows in
    turn.
"""

_OUTPUT_FRAMEWISE = """
output : {"embedding", "logits", "probabilities", "frames", %s}, \
        default="embedding"
    What to give of each clip: the vector that the encoder's classifier reads, its
    scores of the classes, their probabilities, or the vectors of all windows in
    turn; or, over time, %s. :meth:`frame_times` tells when.
"""

_FRAMEWISE = {
    "framewise_embedding": "the vectors before the encoder pools them",
    "framewise_probabilities": "the probabilities of the classes",
}

_OUTPUT_WITHOUT_CLASSES = """
output : {"embedding", "frames"}, default="embedding"
    What to give of each clip: one vector, or the vectors of all windows in turn.
"""

_HOP = """
hop : float, default=None
    Seconds from one window to the next; ``None`` is %s.
"""


def describe_shared(*, hop, classes=True, framewise=()):
    """Fill in what embedders share in the docstring of one.

    Parameters
    ----------
    hop : str
        The default step of windows, in words.
    classes : bool, default=True
        Whether the encoder has class scores.
    framewise : sequence of str, default=()
        Its outputs over time.

    Returns
    -------
    callable
        A class decorator. It replaces ``{parameters}`` and ``{attributes}``.
    """
    output = _OUTPUT if classes else _OUTPUT_WITHOUT_CLASSES
    if framewise:
        output = _OUTPUT_FRAMEWISE % (
            ", ".join(f'"{name}"' for name in framewise),
            " or ".join(_FRAMEWISE[name] for name in framewise),
        )
    parameters = _PARAMETERS.format(
        output=output.strip(),
        hop=(_HOP % hop).strip(),
    )

    def fill_in(cls):
        text = inspect.cleandoc(cls.__doc__ or "")  # python -OO has none
        text = text.replace("{parameters}", parameters.strip())
        cls.__doc__ = text.replace("{attributes}", _ATTRIBUTES.strip())
        return cls

    return fill_in
