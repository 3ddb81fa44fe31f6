"""What is done to the log-mel of clips in training, so that no two epochs are alike."""

import torch


def mix_clips(inputs, target, alpha, generator):
    """Mix every clip of a batch with another: mixup.

    Parameters
    ----------
    inputs : Tensor of shape (n_clips, ...)
        Log-mel or vectors of the clips.
    target : Tensor of shape (n_clips, n_classes)
        Their labels.
    alpha : float
        Both parameters of the beta distribution that the shares are drawn from. The
        greater share is always the clip's own.
    generator : torch.Generator
        What is drawn from, on the CPU.

    Returns
    -------
    inputs : Tensor of shape (n_clips, ...)
        The mixtures.
    target : Tensor of shape (n_clips, n_classes)
        Their labels, by the shares of the clips that have them.
    partners : Tensor of shape (n_clips,)
        The other clip of each mixture.
    shares : Tensor of shape (n_clips,)
        Each clip's own share, from 0.5 to 1.

    References
    ----------
    H. Zhang, M. Cisse, Y. N. Dauphin and D. Lopez-Paz, "mixup: Beyond Empirical Risk
    Minimization", ICLR 2018.
    """
    n_clips = len(inputs)
    shares = _draw_beta(n_clips, alpha, generator)
    shares = torch.maximum(shares, 1 - shares).to(inputs.dtype).to(inputs.device)
    partners = torch.randperm(n_clips, generator=generator).to(inputs.device)
    return (
        _mix(inputs, partners, shares),
        _mix(target, partners, shares),
        partners,
        shares,
    )


def mask_stripes(log_mel, n_bands, n_frames, generator, *, n_stripes=2):
    """Blank stripes of bands and of frames in every clip: SpecAugment without warping.

    Parameters
    ----------
    log_mel : Tensor of shape (n_clips, n_frames, n_mels)
        The clips.
    n_bands, n_frames : int
        The widest that a stripe is of bands, and of frames; widths are drawn evenly
        from 0 up to it. More than there are is all of them.
    generator : torch.Generator
        What is drawn from, on the CPU.
    n_stripes : int, default=2
        Number of stripes over each axis.

    Returns
    -------
    Tensor of shape (n_clips, n_frames, n_mels)
        The clips, in whose stripes is the mean of the clip.

    References
    ----------
    D. S. Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic
    Speech Recognition", Interspeech 2019.
    """
    n_clips, n_rows, n_columns = log_mel.shape
    rows = _draw_stripes(n_clips, n_rows, n_frames, n_stripes, generator)
    columns = _draw_stripes(n_clips, n_columns, n_bands, n_stripes, generator)
    blank = rows.unsqueeze(2) | columns.unsqueeze(1)
    means = log_mel.mean(dim=(1, 2), keepdim=True)
    return torch.where(blank.to(log_mel.device), means, log_mel)


def roll_time(log_mel, generator):
    """Roll every clip over time: what leaves at its end comes in at its start.

    Parameters
    ----------
    log_mel : Tensor of shape (n_clips, n_frames, n_mels)
        The clips.
    generator : torch.Generator
        What is drawn from, on the CPU: by how many frames, any number alike.

    Returns
    -------
    Tensor of shape (n_clips, n_frames, n_mels)
        The clips, rolled.
    """
    n_clips, n_frames, _ = log_mel.shape
    shifts = torch.randint(n_frames, (n_clips, 1), generator=generator)
    frames = (torch.arange(n_frames) - shifts) % n_frames
    frames = frames.to(log_mel.device)
    return log_mel[torch.arange(n_clips, device=log_mel.device).unsqueeze(1), frames]


def _mix(values, partners, shares):
    shares = shares.reshape(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[partners], values, shares)


def _draw_beta(n, alpha, generator):
    """Draw from the beta distribution with both parameters alpha."""
    concentration = torch.full((2, n), float(alpha), dtype=torch.float64)
    # The logarithms, for small alphas make gammas that are 0.
    gammas = torch._standard_gamma(concentration + 1, generator=generator).log()
    uniform = torch.rand(2, n, generator=generator, dtype=torch.float64)
    logs = gammas + uniform.log() / alpha
    return torch.sigmoid(logs[0] - logs[1])


def _draw_stripes(n_clips, length, widest, n_stripes, generator):
    """Tell what of an axis is in a stripe, ``(n_clips, length)``."""
    widest = min(widest, length)
    shape = (n_clips, n_stripes, 1)
    widths = torch.randint(widest + 1, shape, generator=generator)
    places = torch.rand(shape, generator=generator)
    starts = (places * (length - widths + 1)).long()
    at = torch.arange(length)
    return ((at >= starts) & (at < starts + widths)).any(dim=1)
