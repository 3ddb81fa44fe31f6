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
        "--weights",
        metavar="CHECKPOINT",
        help=(
            "pretrained encoder for the clips of --data: name of a checkpoint or path "
            "of its file (default: statistics of their spectrograms)"
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
    _add_tag(commands)
    return parser


def _add_tag(commands):
    tag = commands.add_parser(
        "tag",
        help="name the sounds in files by labels of your own",
        description=(
            "Name the sounds in files by labels of your own, without training: a "
            "pretrained audio encoder says what it hears, a text encoder what that "
            "means for your labels. Writes a table (CSV): each file, its best label, "
            "and the share of every label. Files that can't be read have an empty row "
            "and are listed at the end; the exit code is then 1."
        ),
        epilog=(
            'example: sklabelaudio tag recordings --labels "dog, rain, chain saw" '
            "--out table.csv"
        ),
    )
    tag.add_argument(
        "inputs",
        nargs="+",
        metavar="FILES_OR_FOLDER",
        help="sound files; folders are searched with all that is below them",
    )
    tag.add_argument(
        "--labels", required=True, help="the labels, with commas between them"
    )
    tag.add_argument(
        "--weights",
        default="mn04_as",
        metavar="CHECKPOINT",
        help="name of a checkpoint or path of its file (default: %(default)s, 4 MB)",
    )
    tag.add_argument(
        "--encoder",
        help="which encoder the checkpoint is of, if its name does not tell",
    )
    tag.add_argument(
        "--tagger-labels",
        metavar="FILE",
        help="list of the classes of the checkpoint, if it is not beside it",
    )
    tag.add_argument(
        "--text-model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        metavar="MODEL",
        help=(
            "text encoder: a Hugging Face id or folder, or a word2vec file "
            "(default: %(default)s)"
        ),
    )
    tag.add_argument(
        "--prompt", help='template of the label texts, such as "the sound of {label}"'
    )
    tag.add_argument(
        "--out", metavar="FILE", help="where to write the table (default: the screen)"
    )
    tag.add_argument(
        "--cache",
        metavar="DIR",
        help="folder that keeps what was computed, to go on or ask again later",
    )
    tag.add_argument("--quiet", action="store_true", help="show no progress bar")
    tag.set_defaults(run=_run_tag)


def _run_demo(arguments):
    from ._demo import run_demo

    run_demo(
        data_dir=arguments.data,
        text_model=arguments.text_model,
        weights=arguments.weights,
        sampling_rate=arguments.sampling_rate,
        out_dir=arguments.out,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    return 0


def _run_tag(arguments):
    from ._tag import run_tag

    n_unreadable = run_tag(
        arguments.inputs,
        labels=arguments.labels,
        weights=arguments.weights,
        encoder=arguments.encoder,
        tagger_labels=arguments.tagger_labels,
        text_model=arguments.text_model,
        prompt=arguments.prompt,
        out=arguments.out,
        cache=arguments.cache,
        progress=not arguments.quiet,
    )
    return 1 if n_unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
