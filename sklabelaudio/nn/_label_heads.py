"""Other heads between an encoder and the space shared with texts, to compare with."""

from torch import nn

from ._cscm import CSCM
from ._feature_maps import FeatureHead

_N_LAYERS = 4
_HEAD_SIZE = 64


class LinearHead(FeatureHead):
    """Mean of the tokens, and a linear layer.

    Parameters
    ----------
    n_channels, height, width : int, default=768, 8 and 8
        Size of the map whose places are the tokens.
    n_components : int, default=1024
        Length of the vector.
    """

    def __init__(self, n_channels=768, height=8, width=8, n_components=1024):
        super().__init__(n_channels, height, width, n_components)
        self.projection = nn.Linear(n_channels, n_components)

    def forward(self, features):
        """Make a vector of each clip's tokens.

        Parameters
        ----------
        features : Tensor of shape (n_clips, n_channels, height, width) or \
                (n_clips, height * width, n_channels)
            Maps, or tokens row by row.

        Returns
        -------
        Tensor of shape (n_clips, n_components)
            The vectors.

        Raises
        ------
        ValueError
            If `features` have another shape.
        """
        tokens = self.relate(self.read_tokens(features))
        return self.projection(tokens.mean(dim=1))

    def relate(self, tokens):
        """Return the tokens, ``(n_clips, n_tokens, n_channels)``, as they are."""
        return tokens


class LSTMHead(LinearHead):
    """An LSTM over the tokens, added to them, before the mean and a linear layer.

    Parameters
    ----------
    n_channels, height, width, n_components : int, default=768, 8, 8 and 1024
        As of `LinearHead`.
    """

    def __init__(self, n_channels=768, height=8, width=8, n_components=1024):
        super().__init__(n_channels, height, width, n_components)
        self.lstm = nn.LSTM(n_channels, n_channels, batch_first=True)

    def relate(self, tokens):
        """Add to each token what those up to it say."""
        return tokens + self.lstm(tokens)[0]


class TransformerHead(LinearHead):
    """A transformer over the tokens, added to them, before the mean and a linear layer.

    Parameters
    ----------
    n_channels, height, width, n_components : int, default=768, 8, 8 and 1024
        As of `LinearHead`.
    depth : int, default=4
        Number of layers.
    num_heads : int, default=None
        Number of attention heads in every layer; ``None`` is the number that leaves 64
        values to each, or the next lower one that divides `n_channels`.

    Raises
    ------
    ValueError
        If a size is not positive, or `num_heads` does not divide `n_channels`.
    """

    def __init__(
        self,
        n_channels=768,
        height=8,
        width=8,
        n_components=1024,
        *,
        depth=_N_LAYERS,
        num_heads=None,
    ):
        super().__init__(n_channels, height, width, n_components)
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if num_heads is None:
            most = max(n_channels // _HEAD_SIZE, 1)
            num_heads = next(n for n in range(most, 0, -1) if n_channels % n == 0)
        if num_heads < 1 or n_channels % num_heads:
            raise ValueError(
                f"num_heads={num_heads} must divide n_channels={n_channels} evenly"
            )
        self.positions = nn.Embedding(height * width, n_channels)
        nn.init.normal_(self.positions.weight, std=0.02)
        # Each built apart: nn.TransformerEncoder would begin with equal ones.
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    n_channels,
                    num_heads,
                    4 * n_channels,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(depth)
            )
        )

    def relate(self, tokens):
        """Add to each token what all say."""
        return tokens + self.layers(tokens + self.positions.weight)


_HEADS = {
    "cscm": CSCM,
    "linear": LinearHead,
    "lstm": LSTMHead,
    "transformer": TransformerHead,
}
HEAD_NAMES = tuple(_HEADS)


def make_head(similarity, n_channels, height, width, n_components):
    """Make the head between an encoder and the space shared with texts.

    Parameters
    ----------
    similarity : {"cscm", "linear", "lstm", "transformer"}
        Which one.
    n_channels, height, width : int
        Size of the encoder's map.
    n_components : int
        Length of the vectors.

    Returns
    -------
    FeatureHead
        The head.

    Raises
    ------
    ValueError
        If there is no such head, or a size is not positive.

    Notes
    -----
    The paper names them and gives no sizes. ``"linear"`` is what is left without such a
    module: the mean of the tokens, as encoders pool them, and a linear layer. The other
    two are those of CLIP4Clip: one LSTM as wide as the tokens, or learned positions and
    4 layers with a head for every 64 values; what they give is added to the tokens,
    before the mean. There the tokens were in the joint space already; here the linear
    layer follows, so that all heads read what the encoder gives. From 64 tokens of 768,
    which `HTSAT` gives, to 1024 they have 787,456, 5,512,192 and 29,188,096 parameters.

    Tokens are read row by row. In the maps of convolutional encoders time runs along
    the rows, so that the LSTM hears the clip anew for each row of bands.

    References
    ----------
    H. Luo et al., "CLIP4Clip: An empirical study of CLIP for end to end video clip
    retrieval and captioning", Neurocomputing 508, 2022.
    """
    if similarity not in _HEADS:
        raise ValueError(f"similarity={similarity!r} is none of {HEAD_NAMES}")
    return _HEADS[similarity](n_channels, height, width, n_components)
