"""Which of the PANNs a file of weights is of."""

# A weight that tells an architecture from those below it.
_BY_WEIGHT = {
    "pre_conv0.weight": "wavegram_logmel_cnn14",
    "conv_block_after1.conv1.weight": "resnet38",
    "conv_block6.conv2.weight": "cnn14",
    "conv_block4.conv2.weight": "cnn10",
    "conv_block4.conv1.weight": "cnn6",
}
# Constants of the front end in the authors' files, with a row for each frequency.
_CONSTANTS = ("spectrogram_extractor.stft.conv_real.weight", "logmel_extractor.melW")
_CNN14_BY_FREQUENCIES = {513: "cnn14", 257: "cnn14_16k"}


def tell_architecture(state):
    """Tell an architecture from its weights.

    Parameters
    ----------
    state : dict of str to Tensor
        The weights, by the authors' names.

    Returns
    -------
    str or None
        The name of the architecture, such as ``"cnn10"``. ``None`` for a Cnn14 of
        unknown sampling rate, for want of the front end's constants. Cnn14 with
        decision-level max has the names of Cnn14, which is told.

    Raises
    ------
    ValueError
        If they are weights of none of the PANNs.
    """
    found = [name for weight, name in _BY_WEIGHT.items() if weight in state]
    if not found:
        raise ValueError("it has the weights of none of the PANNs")
    if found[0] != "cnn14":
        return found[0]
    return _CNN14_BY_FREQUENCIES.get(count_frequencies(state))


def count_frequencies(state):
    """Return the number of frequencies of the front end in a file, or None."""
    return next((len(state[name]) for name in _CONSTANTS if name in state), None)
