"""The command ``sklabelaudio``."""

import argparse
import sys
from pathlib import Path


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; ``None`` takes those of the process.

    Returns
    -------
    int
        Exit code: 0, or 1 after an error, which is told in one line.
    """
    arguments = _make_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"sklabelaudio: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sklabelaudio: interrupted", file=sys.stderr)
        return 130


def _make_parser():
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="sklabelaudio",
        description="Sound classifiers that know what their labels mean.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train on some classes of sounds, name clips of classes never heard",
        description=(
            "Train on some classes of sounds and name clips of classes never heard; "
            "show a table and write pictures. Works offline, on sounds it makes, or "
            "on a folder in ESC-50's layout."
        ),
        epilog=(
            "examples: sklabelaudio demo;  sklabelaudio demo --data ESC-50 "
            "--text-model sentence-transformers/all-MiniLM-L6-v2"
        ),
    )
    demo.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder with audio/ and meta/esc50.csv (default: synthetic sounds)",
    )
    demo.add_argument(
        "--text-model",
        metavar="MODEL",
        help=(
            "text encoder for the labels of --data: a Hugging Face id or folder, or a "
            "word2vec file; without it nothing is named unheard there"
        ),
    )
    demo.add_argument(
        "--sampling-rate",
        type=float,
        metavar="HZ",
        help="rate to resample the files of --data to (default: their own)",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("sklabelaudio_demo"),
        metavar="DIR",
        help="folder for the pictures (default: %(default)s)",
    )
    demo.add_argument(
        "--seed", type=int, default=0, help="seed of all that is random (default: 0)"
    )
    demo.add_argument("--quiet", action="store_true", help="show no progress bars")
    demo.set_defaults(run=_run_demo)
    return parser


def _run_demo(arguments):
    from ._demo import run_demo

    run_demo(
        data_dir=arguments.data,
        text_model=arguments.text_model,
        sampling_rate=arguments.sampling_rate,
        out_dir=arguments.out,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
