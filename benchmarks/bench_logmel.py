"""LogMelExtractor against librosa and ClapFeatureExtractor, doing the same work.

64 clips of 5 s at 32 kHz, FFT 1024, hop 320, 64 bands, as arrays, in one process with
one thread each; then all cores; then from Ogg files. The FFT alone is the lower bound
of any implementation: `torch.fft.rfft` over one cached block of frames, of the size
that the extractor uses, again and again.
"""

import argparse
import os
from pathlib import Path

from common import machine, median_ratio, one_thread_each, print_table, time_in_turn

one_thread_each()

import numpy as np

from sklabelaudio import LogMelExtractor, load_esc50

RATE, N_FFT, HOP, N_MELS, FMIN, FMAX = 32000, 1024, 320, 64, 50, 14000
SHARED = Path(os.environ.get("SKLABELAUDIO_SHARED", "../shared"))


def make_contenders(X):
    import librosa
    import torch
    from transformers import ClapFeatureExtractor

    torch.set_num_threads(1)
    extractor = LogMelExtractor.from_preset("panns_32k").fit(X)
    clap = ClapFeatureExtractor(
        feature_size=N_MELS,
        sampling_rate=RATE,
        hop_length=HOP,
        fft_window_size=N_FFT,
        frequency_min=FMIN,
        frequency_max=FMAX,
        max_length_s=5,
        truncation="rand_trunc",
    )
    n_frames = extractor.transform(X[:1]).shape[1]
    block = torch.randn(-(-n_frames // 3), N_FFT)

    def by_librosa():
        return [
            librosa.power_to_db(
                librosa.feature.melspectrogram(
                    y=x, sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS,
                    fmin=FMIN, fmax=FMAX, pad_mode="reflect",
                ),
                top_db=None,
            ).T
            for x in X
        ]  # fmt: skip

    def by_clap():
        return clap(list(X), sampling_rate=RATE, return_tensors="np")["input_features"]

    def fft_alone():
        for _ in X:
            for _ in range(3):
                torch.fft.rfft(block)

    return {
        "librosa": by_librosa,
        "ClapFeatureExtractor": by_clap,
        "LogMelExtractor": lambda: extractor.transform(X),
        "the FFT alone": fft_alone,
    }


def compare_arrays(rounds):
    rng = np.random.default_rng(0)
    X = (0.1 * rng.standard_normal((64, 5 * RATE))).astype(np.float32)
    contenders = make_contenders(X)
    ours = contenders["LogMelExtractor"]()
    difference = max(
        abs(a - b).max() for a, b in zip(ours, contenders["librosa"](), strict=True)
    )
    print(f"greatest difference from librosa: {difference:.1e} dB")
    difference = abs(ours - contenders["ClapFeatureExtractor"]()[:, 0]).max()
    print(f"greatest difference from ClapFeatureExtractor: {difference:.1e} dB\n")
    seconds = time_in_turn(contenders, rounds)
    ours = seconds["LogMelExtractor"]
    print_table(
        ["one thread, 64 clips of 5 s", "ms", "of LogMelExtractor's time"],
        [
            (name, f"{1e3 * np.median(times):.1f}", f"{median_ratio(times, ours):.2f}")
            for name, times in seconds.items()
        ],
    )
    fft = median_ratio(ours, seconds["the FFT alone"])
    print(f"LogMelExtractor takes {fft:.2f} times the FFT alone\n")

    X = np.concatenate([X] * 8)
    compare_threads("arrays, 512 clips of 5 s", X, rounds)


def compare_threads(name, X, rounds):
    extractors = {
        n_jobs: LogMelExtractor.from_preset("panns_32k", n_jobs=n_jobs).fit(X)
        for n_jobs in (1, 2, -1)
    }
    seconds = time_in_turn(
        {f"n_jobs={n}": lambda e=e: e.transform(X) for n, e in extractors.items()},
        rounds,
    )
    one = seconds["n_jobs=1"]
    print_table(
        [name, "ms", "times as fast"],
        [
            (key, f"{1e3 * np.median(times):.0f}", f"{median_ratio(one, times):.2f}")
            for key, times in seconds.items()
        ],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "ESC-10")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(machine() + "\n")
    compare_arrays(arguments.rounds)
    if arguments.data.is_dir():
        files = load_esc50(arguments.data).data
        compare_threads(f"Ogg files, {len(files)} clips", files, 3)
    else:
        print(f"no files: {arguments.data} is not there, give --data")


if __name__ == "__main__":
    main()
