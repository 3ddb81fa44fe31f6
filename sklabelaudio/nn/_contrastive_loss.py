"""SymmetricContrastiveLoss: clips and texts, each to be told from the others."""

import math
from contextlib import nullcontext

import torch
from torch import nn

# Vectors shorter than this count as being so long: a zero vector has no direction.
_EPSILON = 1e-8
_LARGEST_SCALE = 100.0
_LARGEST_LOG = math.log(_LARGEST_SCALE)
# From where on log(1 + exp(x)) is x, in double precision too.
_LINEAR = 50
_POSITIVES = ("diagonal", "class")


class SymmetricContrastiveLoss(nn.Module):
    """Cross-entropy of the cosines between clips and texts, over both of them.

    Every clip of a batch comes with the text of its label. Among all texts of the batch
    the clip's own is to be found by its vector, and among all clips the text's own.

    Parameters
    ----------
    positives : {"diagonal", "class"}, default="diagonal"
        What belongs together: each clip and its own text alone, as in the paper, where
        clips of one class are each other's negatives; or all clips and texts of one
        class.
    logit_scale : float, default=1.0
        What cosines are multiplied by; 1 is the equation as printed, and ``1 / 0.07``
        what CLIP begins with.
    learn_scale : bool, default=False
        Whether the factor is learned, from `logit_scale` on and up to 100, as in CLIP.

    Attributes
    ----------
    log_scale : torch.nn.Parameter
        Logarithm of the factor, if that is learned. It must reach the optimiser, best
        without weight decay.

    Raises
    ------
    ValueError
        If there are no such positives, or `logit_scale` is not positive, or above 100
        where it is learned.

    See Also
    --------
    CSCM : A head that makes the vectors of clips.
    SemanticProximityLoss : A loss without negatives.

    Notes
    -----
    With the cosines ``s[i, j]`` of clip ``i`` and text ``j``, multiplied by the scale,
    the loss is the mean over the batch of ::

        (L(s[i, :]) + L(s[:, i])) / 2
        L(row) = mean over p in P[i] of
                 -log(exp(row[p]) / (exp(row[p]) + sum over k in N[i] of exp(row[k])))

    where ``P[i]`` is what belongs to ``i``, of which ``i`` itself is one, and ``N[i]``
    is all else in the batch. ``"diagonal"`` has ``P[i] = {i}`` and is equation 3. With
    ``"class"``, ``P[i]`` is all of the batch that has the class of ``i``, from which no
    clip is told: others of a class are not in the sum. A batch of a single class has a
    loss of 0.

    Cross-entropy with targets that are even over the class, whose sum is over all of
    the batch, is no such thing: where all texts of a class are the same it is
    ``"diagonal"``, in its gradients too, for there each clip's own text is one with
    those of the others.

    **A batch of one** clip has no negatives: its loss is 0, and so are the gradients. A
    loop over batches does well to leave out a last one of a single clip.

    With a scale of 1 the loss stays near its beginning, ``log n_clips``, for cosines
    differ by 2 at most: of 16 clips of as many classes it falls from 2.77 to 1.82 when
    all is learned.

    **Weights** make a clip and its text count as often, among the negatives too. Only
    their ratios matter. With whole numbers the gradients of ``"diagonal"`` are those of
    the batch in which each is repeated as often. Those of ``"class"`` are not, for
    there repetition adds negatives to each pair, and weights of mean 1 add none.

    **Mixed clips** count as both of their parts, by the parts' shares: for the texts of
    a part's class it is among what belongs to them by its share, and among the
    negatives by the rest.

    Half precision is converted to single, within autocast too.

    References
    ----------
    .. [1] Y. Xiao, Y. Ma, S. Li, H. Zhou, R. Liao and X. Li, "SemanticAC:
       Semantics-Assisted Framework for Audio Classification", ICASSP 2023: equations 2
       and 3.
    .. [2] P. Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020.
    .. [3] A. Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import SymmetricContrastiveLoss
    >>> clips = torch.tensor([[3.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    >>> texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> SymmetricContrastiveLoss(logit_scale=10)(clips, texts)
    tensor(0.0863)
    >>> classes = torch.tensor([0, 1, 1])  # with another text each
    >>> SymmetricContrastiveLoss("class", logit_scale=10)(clips, texts, classes)
    tensor(0.0866)
    """

    def __init__(self, positives="diagonal", logit_scale=1.0, learn_scale=False):
        if positives not in _POSITIVES:
            raise ValueError(f"positives={positives!r} is none of {_POSITIVES}")
        most = _LARGEST_SCALE if learn_scale else math.inf
        if not 0 < logit_scale <= most or math.isinf(logit_scale):
            limit = f", and at most {most:g} with learn_scale=True" * learn_scale
            raise ValueError(f"logit_scale={logit_scale} must be positive{limit}")
        super().__init__()
        self.positives = positives
        self.logit_scale = logit_scale
        self.log_scale = None
        if learn_scale:
            self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))

    @property
    def scale(self):
        """What cosines are multiplied by: a number, or a tensor if it is learned."""
        if self.log_scale is None:
            return self.logit_scale
        # Not clamped itself, for at the limit no gradient would lead back.
        with torch.no_grad():
            excess = (self.log_scale - _LARGEST_LOG).clamp(min=0)
        return (self.log_scale - excess).exp()

    def forward(
        self,
        embeddings,
        text_embeddings,
        classes=None,
        sample_weight=None,
        *,
        partners=None,
        shares=None,
    ):
        """Compute the loss of a batch.

        Parameters
        ----------
        embeddings : Tensor of shape (n_clips, n_components)
            Vectors of the clips, of any length.
        text_embeddings : Tensor of shape (n_clips, n_components)
            Vectors of the texts of their labels, one for each clip.
        classes : Tensor of shape (n_clips,), default=None
            Index of each clip's class; needed for ``positives="class"`` alone.
        sample_weight : Tensor of shape (n_clips,), default=None
            How often each clip counts; ``None`` is once.
        partners : Tensor of shape (n_clips,), default=None
            Where clips were mixed, the index of the clip that each was mixed with.
        shares : Tensor of shape (n_clips,), default=None
            Each clip's own share of the mixture, from 0 to 1.

        Returns
        -------
        Tensor
            The loss, a scalar.

        Raises
        ------
        ValueError
            If there is no clip, shapes don't fit together, classes lack, or weights
            are negative.
        """
        self._check(embeddings, text_embeddings, classes, sample_weight)
        if (partners is None) != (shares is None):
            raise ValueError("partners and shares go together: pass both, or neither")
        scores = self._score(embeddings, text_embeddings)
        n_clips = len(scores)
        weights = None
        if sample_weight is not None:
            weights = sample_weight.to(scores.dtype)
            if not weights.any():
                return 0 * scores.sum()
            weights = weights / weights.mean()

        # Rows are clips, columns texts.
        if self.positives == "class":
            belongs, compare = (classes.unsqueeze(1) == classes), _leave_out_others
        else:
            belongs, compare = torch.eye(n_clips, device=scores.device), _cross_entropy
        belongs = belongs.to(scores.dtype)
        losses = compare(scores, belongs, weights)
        if partners is not None:
            share = shares.to(scores.dtype)
            losses = torch.lerp(
                compare(scores, belongs[partners], weights), losses, share
            )
            belongs = torch.lerp(belongs[partners], belongs, share.unsqueeze(1))
        losses = losses + compare(scores.T, belongs.T, weights)
        if weights is not None:
            losses = weights * losses
        return losses.mean() / 2

    def _score(self, embeddings, text_embeddings):
        """Return the cosines of all clips and texts, scaled."""
        if self.log_scale is not None and self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=_LARGEST_LOG)
        device = embeddings.device.type
        dtype = torch.promote_types(
            torch.result_type(embeddings, text_embeddings), torch.float32
        )
        with (
            torch.autocast(device, enabled=False)
            if torch.amp.is_autocast_available(device)
            else nullcontext()
        ):
            clips, texts = (
                nn.functional.normalize(vectors.to(dtype), dim=1, eps=_EPSILON)
                for vectors in (embeddings, text_embeddings)
            )
            return self.scale * (clips @ texts.T)

    def _check(self, embeddings, text_embeddings, classes, sample_weight):
        shape = tuple(embeddings.shape)
        if shape != tuple(text_embeddings.shape) or len(shape) != 2 or not shape[0]:
            raise ValueError(
                f"embeddings has shape {shape} and text_embeddings "
                f"{tuple(text_embeddings.shape)}: both must be (n_clips, "
                "n_components), with a text for each clip, and a clip or more"
            )
        if classes is None and self.positives == "class":
            raise ValueError(
                "classes is None, but positives='class' needs the class of each clip: "
                "pass them, or choose positives='diagonal'"
            )
        for name, values in (("classes", classes), ("sample_weight", sample_weight)):
            if values is not None and tuple(values.shape) != shape[:1]:
                raise ValueError(
                    f"{name} has shape {tuple(values.shape)}, but there are {shape[0]} "
                    f"clips: it must be ({shape[0]},)"
                )
        if sample_weight is not None and (sample_weight < 0).any():
            raise ValueError("sample_weight has negative values")


def _share_out(belongs, weights):
    """Divide every row by its sum, in which columns count by their weights."""
    if weights is not None:
        belongs = belongs * weights
    sums = belongs.sum(dim=1, keepdim=True)
    # A row without weight of its own does not count in the end.
    return belongs / torch.where(sums > 0, sums, 1)


def _cross_entropy(scores, belongs, weights):
    """Return that of every row, in whose softmax columns count by their weights."""
    weighted = scores if weights is None else scores + weights.log()
    losses = weighted.logsumexp(dim=1, keepdim=True) - scores
    return (_share_out(belongs, weights) * losses).sum(dim=1)


def _leave_out_others(scores, belongs, weights):
    """Return the cross-entropy of every row in which each positive is the only one."""
    counts = 1 - belongs
    if weights is not None:
        counts = counts * weights
    # Finite where nothing counts, for the gradient of infinities is not.
    logs = counts.log().clamp(min=torch.finfo(scores.dtype).min / 2)
    negatives = (scores + logs).logsumexp(dim=1, keepdim=True)
    losses = nn.functional.softplus(negatives - scores, threshold=_LINEAR)
    return (_share_out(belongs, weights) * losses).sum(dim=1)
