"""Embedders against the plainest torch loop over the same network.

The plain loop is what people write: read a file, `torch.stft`, the mel product, the
logarithm, the network, one clip at a time, with all of torch's threads. The embedder
gives the same vectors to float32's noise (their greatest relative difference is in the
table). Then the same from arrays. YAMNet also against the int8 model in its own
runtime, ai-edge-litert, which takes one window at a time and steps as we do; it is
given waveforms, for its front end is inside the model.

On a GPU (``--device cuda``) the plain loop, the embedder, the embedder with AMP and the
bare network under ``torch.compile`` at the embedder's batch size, whose arithmetic is
also told as a share of what the card reaches in a large matrix product.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import numpy as np
from common import machine, median_ratio, print_table, time_in_turn

from sklabelaudio import (
    EfficientATEmbedder,
    HTSATEmbedder,
    VGGishEmbedder,
    YAMNetEmbedder,
    load_audio,
    load_esc50,
)
from sklabelaudio.feature_extraction._front_ends import get_front_end

SHARED = Path(os.environ.get("SKLABELAUDIO_SHARED", "../shared"))


def make_embedders(checkpoints, **params):
    """Return embedders and the plain front end's settings, by name."""
    yamnet = checkpoints / "yamnet" / "yamnet.tflite"
    mn04 = checkpoints / "efficientat" / "mn04_as_mAP_432.pt"
    return {
        "YAMNet": YAMNetEmbedder(yamnet if yamnet.exists() else None, **params),
        "EfficientAT mn04": EfficientATEmbedder(
            mn04 if mn04.exists() else None, **params
        ),
        "VGGish (random weights)": VGGishEmbedder(None, **params),
        "HTS-AT (random weights)": HTSATEmbedder(None, **params),
    }


class PlainFrontEnd:
    """The front end in a few lines of torch, as it is usually written."""

    def __init__(self, name):
        import torch

        front_end = get_front_end(name)
        kernel = front_end._kernel
        self.name = name
        self.sampling_rate = front_end.sampling_rate
        self.n_fft, self.hop = kernel.n_fft, kernel.hop_length
        self.window = torch.as_tensor(kernel._window, dtype=torch.float32)
        self.center = kernel.pad_mode is not None
        self.power = kernel.power
        self.mel_bank = torch.zeros(1 + self.n_fft // 2, kernel.n_mels)
        repeats = 2 if kernel._interleaved else 1
        for columns, bands, weights in kernel._groups:
            rows = slice(columns.start // repeats, columns.stop // repeats)
            self.mel_bank[rows, bands] = torch.from_numpy(
                weights[::repeats].astype(np.float32)
            )

    def __call__(self, waveform):
        import torch

        wave = torch.from_numpy(waveform)
        if self.name == "efficientat":
            wave = wave[1:] - 0.97 * wave[:-1]
        elif not self.center:  # the window stands at the frame's start
            wave = torch.nn.functional.pad(wave, (0, self.n_fft - 400))
        spectrum = torch.stft(
            wave,
            self.n_fft,
            self.hop,
            window=self.window,
            center=self.center,
            pad_mode="reflect",
            return_complex=True,
        ).abs()
        mel = spectrum.pow(self.power).T @ self.mel_bank
        if self.name == "efficientat":
            return ((mel + 1e-5).log() + 4.5) / 5
        if self.name in ("yamnet", "vggish"):
            return (mel + (1e-3 if self.name == "yamnet" else 1e-2)).log()
        return 10 * mel.clamp(min=1e-10).log10()


def make_plain_loop(embedder, device):
    """Return a function of clips: what people write around a network."""
    import torch

    from sklabelaudio.nn._random import fixed_random_weights

    with fixed_random_weights():
        module = embedder._load_module(embedder.checkpoint_).eval().to(device)
    front_end = PlainFrontEnd(embedder._encoder)
    plan = embedder._plan(get_front_end(embedder._encoder))
    step = plan.hop // front_end.hop

    def embed(clip):
        wave = clip
        if isinstance(clip, str):
            wave, _ = load_audio(clip, sampling_rate=front_end.sampling_rate)
        if plan.n_together > 1:
            n_over = max(len(wave) - plan.length, 0)
            n = 1 + (
                -(-n_over // plan.hop) if plan.tail == "pad" else n_over // plan.hop
            )
            size = plan.length + (n - 1) * plan.hop
            wave = np.pad(wave, (0, max(size - len(wave), 0)))[:size]
            windows = front_end(wave).unfold(0, 96, step).transpose(1, 2).contiguous()
        else:
            windows = front_end(wave)[None]
        return module(windows.to(device)).embedding.mean(0).cpu().numpy()

    def loop(clips):
        with torch.inference_mode():
            return np.stack([embed(clip) for clip in clips])

    return loop


def compare(embedders, files, arrays, device, rounds):
    rows = []
    for name, embedder in embedders.items():
        from_files = embedder.fit(files)
        loop = make_plain_loop(embedder, from_files._engine.device)
        clips = arrays[embedder.sampling_rate_]
        from_arrays = type(embedder)(
            **{**embedder.get_params(), "sampling_rate": embedder.sampling_rate_}
        ).fit(clips)
        ours, plain = from_files.transform(files), loop(files)
        difference = np.abs(ours - plain).max() / np.abs(plain).max()
        for kind, X, fitted in [
            ("files", files, from_files),
            ("arrays", clips, from_arrays),
        ]:
            contenders = {
                "plain": partial(loop, X),
                "ours": partial(fitted.transform, X),
            }
            if device != "cpu":
                amp = type(embedder)(**{**fitted.get_params(), "amp": True}).fit(X)
                contenders["ours, AMP"] = partial(amp.transform, X)
            seconds = time_in_turn(contenders, rounds)
            for contender, times in seconds.items():
                rows.append(
                    (
                        f"{name}, {kind}",
                        contender,
                        f"{len(X) / np.median(times):.1f}",
                        f"{median_ratio(seconds['plain'], times):.2f}",
                        f"{difference:.0e}" if contender == "ours" else "",
                    )
                )
    print_table(
        ["encoder", "contender", "clips/s", "times as fast", "difference"], rows
    )


def compare_with_litert(embedder, arrays, path, rounds):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        print("ai-edge-litert is not installed: no comparison with the int8 runtime\n")
        return
    interpreters = {}
    for n_threads in (1, os.cpu_count()):
        interpreter = Interpreter(str(path), num_threads=n_threads)
        interpreter.allocate_tensors()
        interpreters[n_threads] = interpreter
    (given,) = interpreter.get_input_details()
    (scores,) = interpreter.get_output_details()
    plan = embedder._plan(get_front_end("yamnet"))

    def by_litert(interpreter):
        for wave in arrays:
            for samples, n in plan.cut([wave]):
                for i in range(n):
                    window = samples[i * plan.hop :][: plan.length]
                    interpreter.set_tensor(
                        given["index"], window.reshape(given["shape"])
                    )
                    interpreter.invoke()
                    interpreter.get_tensor(scores["index"])

    one = YAMNetEmbedder(path, sampling_rate=16000, n_jobs=1).fit(arrays)
    both = YAMNetEmbedder(path, sampling_rate=16000).fit(arrays)
    contenders = {
        f"int8 runtime, {n} thread(s)": partial(by_litert, interpreter)
        for n, interpreter in interpreters.items()
    }
    contenders["YAMNetEmbedder, n_jobs=1"] = partial(one.transform, arrays)
    contenders["YAMNetEmbedder"] = partial(both.transform, arrays)
    seconds = time_in_turn(contenders, rounds)
    base = seconds[f"int8 runtime, {os.cpu_count()} thread(s)"]
    print_table(
        ["YAMNet from arrays", "clips/s", "times as fast as the runtime, all threads"],
        [
            (
                name,
                f"{len(arrays) / np.median(times):.1f}",
                f"{median_ratio(base, times):.2f}",
            )
            for name, times in seconds.items()
        ],
    )


def compare_with_peak(embedders, device, rounds):
    """Print the bare networks' arithmetic as a share of what the card reaches."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    side = 8192
    rows = []
    for dtype in (torch.float32, torch.float16):
        a = torch.randn(side, side, device=device, dtype=dtype)

        def multiply(a=a):
            a @ a
            torch.cuda.synchronize()

        seconds = time_in_turn({"peak": multiply}, rounds)["peak"]
        peak = 2 * side**3 / np.median(seconds)
        for name, embedder in embedders.items():
            engine = embedder._engine
            front_end = get_front_end(embedder._encoder)
            frames = len(front_end(np.zeros(10 * front_end.sampling_rate, np.float32)))
            frames = 96 if embedder._encoder in ("yamnet", "vggish") else frames
            batch = torch.randn(
                engine.batch_size, frames, front_end.n_mels, device=device
            )
            compiled = torch.compile(engine.module)
            for kind, module in [("eager", engine.module), ("compiled", compiled)]:

                def run(module=module, batch=batch, half=dtype == torch.float16):
                    with torch.inference_mode(), torch.autocast("cuda", enabled=half):
                        module(batch)
                    torch.cuda.synchronize()

                with FlopCounterMode(display=False) as counter, torch.inference_mode():
                    engine.module(batch)
                times = time_in_turn({"run": run}, rounds)["run"]
                rate = counter.get_total_flops() / np.median(times)
                rows.append(
                    (
                        name,
                        str(dtype).removeprefix("torch."),
                        kind,
                        f"{engine.batch_size / np.median(times):.0f}",
                        f"{100 * rate / peak:.1f} %",
                    )
                )
    print_table(["network", "precision", "", "windows/s", "of the peak"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "ESC-10")
    parser.add_argument(
        "--checkpoints", type=Path, default=SHARED / "reference" / "checkpoints"
    )
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(machine() + "\n")
    files = load_esc50(arguments.data).data[:: 400 // arguments.clips]
    files = list(files)[: arguments.clips]
    arrays = {
        rate: [load_audio(file, sampling_rate=rate)[0] for file in files]
        for rate in (16000, 32000)
    }
    embedders = make_embedders(arguments.checkpoints, device=arguments.device)
    compare(embedders, files, arrays, arguments.device, arguments.rounds)
    if arguments.device == "cpu":
        path = arguments.checkpoints / "yamnet" / "yamnet.tflite"
        compare_with_litert(embedders["YAMNet"], arrays[16000], path, arguments.rounds)
    else:
        compare_with_peak(embedders, arguments.device, arguments.rounds)


if __name__ == "__main__":
    main()
