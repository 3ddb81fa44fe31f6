"""Embedders against the plainest torch loop over the same network.

The plain loop is what people write: read a file, `torch.stft`, the mel product, the
logarithm, the network, one clip at a time, with all of torch's threads. The embedder
gives the same vectors to float32's noise (their greatest relative difference is in the
table). Then the same from arrays. Beside clips a second stands the peak of memory of a
process that does nothing but embed the clips from files, torch itself included. YAMNet
also against the int8 model in its own runtime, ai-edge-litert, which takes one window
at a time and steps as we do; it is given waveforms, for its front end is inside the
model.

On a GPU (``--device cuda``) the plain loop, the embedder, the embedder with AMP and the
bare network under ``torch.compile`` at the embedder's batch size, whose arithmetic is
also told as a share of what the card reaches in a large matrix product.

Only YAMNet, EfficientAT and SP4SC have real weights here; the others' are random.
"""

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
from common import machine, median_ratio, peak_memory, print_table, time_in_turn

import sklabelaudio
from sklabelaudio import YAMNetEmbedder, load_audio, load_esc50
from sklabelaudio.feature_extraction._front_ends import (
    _htk_mel_bank,
    _slaney_mel_bank,
    get_front_end,
    get_settings,
)

SHARED = Path(os.environ.get("SKLABELAUDIO_SHARED", "../shared"))
YAMNET = "yamnet/yamnet.tflite"
# The embedder, its file beside the checkpoints, and other parameters.
ENCODERS = {
    "YAMNet": ("YAMNetEmbedder", YAMNET, {}),
    "EfficientAT mn04": (
        "EfficientATEmbedder",
        "efficientat/mn04_as_mAP_432.pt",
        {},
    ),
    "SP4SC": ("SP4SCEmbedder", "sp4asc/ce.pth", {}),
    "VGGish": ("VGGishEmbedder", None, {}),
    "Cnn6": ("PANNsEmbedder", None, {"architecture": "cnn6"}),
    "Cnn10": ("PANNsEmbedder", None, {"architecture": "cnn10"}),
    "Cnn14": ("PANNsEmbedder", None, {"architecture": "cnn14"}),
    "Cnn14, 16 kHz": ("PANNsEmbedder", None, {"architecture": "cnn14_16k"}),
    "ResNet38": ("PANNsEmbedder", None, {"architecture": "resnet38"}),
    "Wavegram-Logmel-Cnn14": (
        "PANNsEmbedder",
        None,
        {"architecture": "wavegram_logmel_cnn14"},
    ),
    "PSLA": ("PSLAEmbedder", None, {}),
    "HTS-AT": ("HTSATEmbedder", None, {}),
    "CLAP": ("CLAPEmbedder", None, {}),
    "AST": ("ASTEmbedder", None, {}),
    "PaSST": ("PaSSTEmbedder", None, {}),
    "AudioCLIP": ("AudioCLIPEmbedder", None, {}),
}


def make_embedder(name, checkpoints, **params):
    """Return an embedder, with real weights where they are there."""
    kind, file, more = ENCODERS[name]
    path = None if file is None else checkpoints / file
    weights = path if path is not None and path.exists() else None
    return getattr(sklabelaudio, kind)(weights, **more, **params)


class PlainFrontEnd:
    """The front end in a few lines of torch, as it is usually written."""

    def __init__(self, name):
        import torch

        front_end = get_front_end(name)
        self.sampling_rate = front_end.sampling_rate
        self.hop = front_end.hop_length
        self.settings = settings = get_settings(name)
        self.is_log_mel = front_end.n_mels is not None
        if not self.is_log_mel:
            return
        make_bank = _htk_mel_bank if settings["mel"] == "htk" else _slaney_mel_bank
        names = ("sampling_rate", "n_fft", "n_mels", "fmin", "fmax")
        bank = make_bank(*(settings[name] for name in names))
        self.mel_bank = torch.from_numpy(bank.T.astype(np.float32))
        periodic = not settings.get("symmetric", False)
        self.window = torch.hann_window(settings["win_length"], periodic=periodic)

    def __call__(self, waveform):
        import torch

        wave, settings = torch.from_numpy(waveform), self.settings
        if not self.is_log_mel:
            return wave * settings.get("scale", 1.0)
        n_fft, length = settings["n_fft"], settings["win_length"]
        emphasis = settings.get("pre_emphasis")
        if settings.get("remove_mean"):  # each frame's own
            frames = wave.unfold(0, length, self.hop)
            frames = frames - frames.mean(dim=1, keepdim=True)
            before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
            frames = (frames - emphasis * before) * self.window
            spectrum = torch.fft.rfft(frames, n=n_fft).abs()
        else:
            window = self.window
            if emphasis is not None:
                wave = wave[1:] - emphasis * wave[:-1]
            if settings["pad_mode"] is None:  # the window stands at the frame's start
                wave = torch.nn.functional.pad(wave, (0, n_fft - length))
                window = torch.nn.functional.pad(window, (0, n_fft - length))
            spectrum = torch.stft(
                wave,
                n_fft,
                self.hop,
                win_length=len(window),
                window=window,
                center=settings["pad_mode"] is not None,
                pad_mode="reflect",
                return_complex=True,
            )
            spectrum = spectrum.abs().T
        mel = spectrum.pow(settings["power"]) @ self.mel_bank
        log = settings["log"]
        amin = log["amin"]
        mel = mel + amin if log["amin_mode"] == "add" else mel.clamp(min=amin)
        mel = mel.log() if log["log"] == "ln" else 10 * mel.log10()
        return (mel + settings.get("shift", 0.0)) / settings.get("scale", 1.0)


def make_plain_loop(embedder, device):
    """Return a function of clips: what people write around a network."""
    import torch

    from sklabelaudio.nn._random import fixed_random_weights

    with fixed_random_weights():
        module = embedder._load_module(embedder.checkpoint_).eval().to(device)
    front_end = PlainFrontEnd(embedder._front_end_name)
    plan = embedder._plan(get_front_end(embedder._front_end_name))
    step = plan.hop // front_end.hop
    forward_params = embedder._forward_params()

    def embed(clip):
        wave = clip
        if isinstance(clip, str):
            wave, _ = load_audio(clip, sampling_rate=front_end.sampling_rate)
        if embedder._encoder == "clap":  # repeats short clips
            whole = np.tile(wave, max(plan.length // len(wave), 1))
            wave = np.pad(whole, (0, max(plan.length - len(whole), 0)))
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
        vectors = module(windows.to(device), **forward_params).embedding
        return vectors.mean(0).cpu().numpy()

    def loop(clips):
        with torch.inference_mode():
            return np.stack([embed(clip) for clip in clips])

    return loop


def compare(arguments, files):
    rows = []
    for name in arguments.encoders:
        embedder = make_embedder(
            name, arguments.checkpoints, device=arguments.device
        ).fit(files)
        loop = make_plain_loop(embedder, embedder._engine.device)
        ours, plain = embedder.transform(files), loop(files)
        difference = np.abs(ours - plain).max() / np.abs(plain).max()
        rate = embedder.sampling_rate_
        arrays = [load_audio(file, sampling_rate=rate)[0] for file in files]
        for kind, X in [("files", files), ("arrays", arrays)]:
            params = {**embedder.get_params(), "sampling_rate": rate}
            fitted = type(embedder)(**params).fit(X)
            contenders = {
                "plain": partial(loop, X),
                "ours": partial(fitted.transform, X),
            }
            if arguments.device != "cpu":
                amp = type(embedder)(**{**params, "amp": True}).fit(X)
                contenders["ours, AMP"] = partial(amp.transform, X)
            seconds = time_in_turn(contenders, arguments.rounds)
            for contender, times in seconds.items():
                peak = ""
                if kind == "files" and arguments.device == "cpu":
                    peak = f"{measure_peak(arguments, name, contender) / 1e6:.0f}"
                rows.append(
                    (
                        f"{name}, {kind}",
                        contender,
                        f"{len(X) / np.median(times):.1f}",
                        f"{median_ratio(seconds['plain'], times):.2f}",
                        f"{difference:.0e}" if contender == "ours" else "",
                        peak,
                    )
                )
                print(*rows[-1], file=sys.stderr, flush=True)
    print_table(
        ["encoder", "contender", "clips/s", "times as fast", "difference", "peak, MB"],
        rows,
    )


def measure_peak(arguments, name, contender):
    """Return the peak of memory of a process that embeds the clips, in bytes."""
    command = [sys.executable, __file__, "--data", str(arguments.data)]
    command += ["--checkpoints", str(arguments.checkpoints)]
    command += ["--clips", str(arguments.clips), "--peak", name, contender]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(run.stdout)


def print_peak(arguments, files):
    """Embed the clips once, and print the peak of this process's memory."""
    name, contender = arguments.peak
    embedder = make_embedder(name, arguments.checkpoints).fit(files)
    if contender == "ours":
        embedder.transform(files)
    else:
        del embedder._engine  # the plain loop has a network of its own
        make_plain_loop(embedder, "cpu")(files)
    print(peak_memory())


def compare_with_litert(arrays, path, rounds):
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
    plan = YAMNetEmbedder()._plan(get_front_end("yamnet"))

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


def compare_with_peak(arguments, files):
    """Print the bare networks' arithmetic as a share of what the card reaches."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    side, rounds, device = 8192, arguments.rounds, arguments.device
    rows = []
    embedders = {
        name: make_embedder(name, arguments.checkpoints, device=device).fit(files)
        for name in arguments.encoders
    }
    for dtype in (torch.float32, torch.float16):
        a = torch.randn(side, side, device=device, dtype=dtype)

        def multiply(a=a):
            a @ a
            torch.cuda.synchronize()

        seconds = time_in_turn({"peak": multiply}, rounds)["peak"]
        peak = 2 * side**3 / np.median(seconds)
        for name, embedder in embedders.items():
            engine = embedder._engine
            front_end = get_front_end(embedder._front_end_name)
            plan = embedder._plan(front_end)
            wave = np.zeros(10 * front_end.sampling_rate, np.float32)
            (piece, *_) = plan.cut([wave])
            window = embedder._to_windows(front_end, plan, *piece)[0]
            batch = torch.randn(engine.batch_size, *window.shape, device=device)
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
    parser.add_argument(
        "--encoders", nargs="*", choices=list(ENCODERS), default=list(ENCODERS)
    )
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    files = load_esc50(arguments.data).data[:: 400 // arguments.clips]
    files = list(files)[: arguments.clips]
    if arguments.peak:
        print_peak(arguments, files)
        return
    print(machine() + "\n")
    compare(arguments, files)
    if arguments.device != "cpu":
        compare_with_peak(arguments, files)
    elif "YAMNet" in arguments.encoders:
        path = arguments.checkpoints / YAMNET
        arrays = [load_audio(file, sampling_rate=16000)[0] for file in files]
        compare_with_litert(arrays, path, arguments.rounds)


if __name__ == "__main__":
    main()
