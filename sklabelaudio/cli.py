"""The command ``sklabelaudio``."""

import argparse
import os
import sys
import warnings
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
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough, such as head
        # Python flushes it once more on leaving.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        _tell(_describe(error))
        return 1
    except KeyboardInterrupt:
        cache = getattr(arguments, "cache", None)
        _tell("interrupted" + (cache is not None) * ", the same command goes on")
        return 130
    return code


def _tell(message):
    print(f"sklabelaudio: {message}", file=sys.stderr)


def _show_warning(message, *place):
    """Show a warning without the line of code, which is no user's of a command."""
    _tell(message)


def _describe(error):
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error


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
    _add_demo(commands)
    _add_tag(commands)
    return parser


def _add_demo(commands):
    demo = commands.add_parser(
        "demo",
        help="train on some classes of sounds, name clips of classes never heard",
        description="""\
Train on some classes of sounds and name clips of classes never heard; show a
table and write pictures. Works offline, on sounds it makes, or on a folder in
ESC-50's layout. With a pretrained encoder and a text encoder it also names the
clips without any training.""",
        epilog="""examples:
  sklabelaudio demo
  sklabelaudio demo --data ESC-50 --weights mn04_as \\
      --text-model sentence-transformers/all-MiniLM-L6-v2""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
            "pretrained encoder for the clips of --data: name of a checkpoint, path "
            "of its file, or folder of a CLAP model (default: statistics of their "
            "spectrograms)"
        ),
    )
    _add_encoder_options(demo)
    demo.add_argument(
        "--sampling-rate",
        type=float,
        metavar="HZ",
        help=(
            "rate to resample the files of --data to for spectrograms (default: "
            "their own); encoders have their own"
        ),
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


def _add_tag(commands):
    tag = commands.add_parser(
        "tag",
        help="name the sounds in files by labels of your own",
        description="""\
Name the sounds in files by labels of your own, without training: a pretrained
audio encoder says what it hears, a text encoder what that means for your labels.

Writes a table (CSV, UTF-8) with a row for each file:
  file     as given or found
  label    the label that fits best
  score    how well it fits, whatever the other labels are: of a tagger the
           probability of what it hears near the label (0 to 1, low values are
           usual), of a CLAP model the cosine similarity (-1 to 1)
  because  with --explain: the classes behind that and their probabilities
  and the share of each of your labels, which add up to 1

Files that can't be read have an empty row and are listed at the end; the exit code
is then 1.""",
        epilog="""examples:
  sklabelaudio tag recordings --labels "dog, rain, chain saw" --out table.csv
  sklabelaudio tag *.wav --labels @labels.txt --reject 0.03 --explain
  sklabelaudio tag night.flac --labels "owl, fox" --weights laion/clap-htsat-unfused

The first use of a checkpoint by its name downloads it. Without a network, give
paths: --weights mn04_as_mAP_432.pt --text-model all-MiniLM-L6-v2""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tag.add_argument(
        "inputs",
        nargs="+",
        metavar="FILES_OR_FOLDER",
        help="sound files; folders are searched with all that is below them",
    )
    tag.add_argument(
        "--labels",
        required=True,
        metavar="LABELS",
        help=(
            "the labels with commas between them, or @FILE for a text file with one a "
            "line; a label with a comma goes in double quotes"
        ),
    )
    tag.add_argument(
        "--weights",
        default="mn04_as",
        metavar="CHECKPOINT",
        help=(
            "the audio encoder: name of a checkpoint, path of its file, or folder of "
            "a CLAP model (default: %(default)s, 4 MB)"
        ),
    )
    _add_encoder_options(tag)
    tag.add_argument(
        "--text-model",
        metavar="MODEL",
        help=(
            "text encoder: a Hugging Face id or folder, or a word2vec file (default: "
            "sentence-transformers/all-MiniLM-L6-v2); CLAP models have their own"
        ),
    )
    tag.add_argument(
        "--prompt",
        metavar="TEMPLATE",
        help='template of the label texts, such as "the sound of {label}"',
    )
    tag.add_argument(
        "--reject",
        type=float,
        metavar="SCORE",
        help=(
            "name files whose score is below this 'none of these' (try 0.03 for a "
            "tagger and look at the scores); then one label is enough"
        ),
    )
    tag.add_argument(
        "--explain",
        action="store_true",
        help="tell which of the tagger's classes the label comes from",
    )
    tag.add_argument(
        "--out", metavar="FILE", help="where to write the table (default: the screen)"
    )
    tag.add_argument(
        "--cache",
        metavar="DIR",
        help=(
            "folder that keeps what was heard: a stopped run goes on, and other "
            "labels take seconds"
        ),
    )
    tag.add_argument("--quiet", action="store_true", help="show no progress bar")
    tag.set_defaults(run=_run_tag)


def _add_encoder_options(command):
    command.add_argument(
        "--encoder",
        metavar="NAME",
        help=(
            "which encoder --weights is of, if its name does not tell: ast, audioclip, "
            "clap, efficientat, htsat, panns, passt, psla, sp4sc, vggish or yamnet"
        ),
    )
    command.add_argument(
        "--tagger-labels",
        metavar="FILE",
        help=(
            "list of the classes of --weights, such as class_labels_indices.csv, if "
            "it is not beside it"
        ),
    )


def _run_demo(arguments):
    from ._demo import run_demo

    run_demo(
        data_dir=arguments.data,
        text_model=arguments.text_model,
        weights=arguments.weights,
        encoder=arguments.encoder,
        tagger_labels=arguments.tagger_labels,
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
        reject=arguments.reject,
        explain=arguments.explain,
        out=arguments.out,
        cache=arguments.cache,
        progress=not arguments.quiet,
    )
    return 1 if n_unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
