"""The package as a whole: what it loads, what may import what, what is described."""

import ast
import inspect
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sklabelaudio

FOLDER = Path(sklabelaudio.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
EVERY_SOURCE = pytest.mark.parametrize(
    "source", SOURCES, ids=lambda path: path.relative_to(FOLDER).as_posix()
)

# For each part, the other parts that it may import.
BASE = {"exceptions", "_optional"}
MAY_IMPORT = {
    "__init__": set(),
    "exceptions": set(),
    "_optional": set(),
    "_distances": set(),
    "_download": BASE,
    "nn": BASE | {"_distances"},
    "audio": BASE,
    "feature_extraction": BASE | {"audio"},
    "text": BASE | {"_download", "nn"},
    "_checkpoints": BASE | {"_download", "nn", "text"},
    "embedding": BASE | {"_checkpoints", "audio", "feature_extraction", "nn", "text"},
    "classification": BASE
    | {"_checkpoints", "_distances", "audio", "feature_extraction", "metrics", "nn"}
    | {"text"},
    "metrics": BASE | {"_distances"},
    "ontology": BASE | {"_download", "text"},
    "model_selection": BASE | {"metrics"},
    "inspection": BASE | {"metrics"},
    "datasets": BASE | {"_download"},
    "cli": {"__init__", "_demo", "_tag"},
    "_demo": BASE
    | {"_encoder_options", "classification", "datasets", "feature_extraction"}
    | {"inspection"}
    | {"metrics", "model_selection", "text"},
    "_encoder_options": BASE | {"_checkpoints", "embedding", "text"},
    "_tag": BASE | {"_encoder_options", "classification", "text"},
}
HEAVY = {"torch", "skorch", "transformers", "gensim", "huggingface_hub", "matplotlib"}
HEAVY |= {"pooch", "pandas", "librosa", "numba", "soundfile", "soxr"}
HEAVY |= {"flatbuffers", "h5py", "safetensors", "tflite"}
MAX_LINES = 500


def part_of(source):
    return source.relative_to(FOLDER).with_suffix("").parts[0]


def find_imports(source, *, inside_functions):
    """Return the modules that a file imports, with a dot before the package's own."""
    package = source.relative_to(FOLDER.parent).parent.parts
    nodes, modules = [ast.parse(source.read_text(encoding="utf-8"))], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            base = package[1 : len(package) - node.level + 1]
            base += tuple(node.module.split(".")) if node.module else ()
            modules |= {".".join(("", *base, alias.name)) for alias in node.names}
        if inside_functions or not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            nodes.extend(ast.iter_child_nodes(node))
    return modules


def run_python(code, folder):
    """Run code with `folder` as the only place it would write to."""
    env = {
        **os.environ,
        "PYTHONPATH": str(FOLDER.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        **dict.fromkeys(["HOME", "XDG_CACHE_HOME", "TMPDIR"], str(folder)),
    }
    env.pop("EAGER_IMPORT", None)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("more", ["", "sklabelaudio.__version__", "dir(sklabelaudio)"])
def test_importing_the_package_loads_nothing(more, tmp_path):
    code = f"""
import sys, sklabelaudio
{more}
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    run = run_python(code, tmp_path)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert "sklabelaudio" in loaded
    assert not loaded & (HEAVY | {"numpy", "scipy", "sklearn", "joblib", "tqdm"})


def list_modules():
    found = pkgutil.walk_packages([str(FOLDER)], "sklabelaudio.")
    return ["sklabelaudio", *(module.name for module in found)]


def is_torch_module(name):
    """Tell the modules that are nothing without torch, which `nn` loads lazily."""
    return name.startswith("sklabelaudio.nn._")


def test_importing_every_module_has_no_side_effects(tmp_path):
    code = f"""
import sys
from importlib import import_module
for name in {[name for name in list_modules() if not is_torch_module(name)]}:
    import_module(name)
heavy = {sorted(HEAVY - {"pandas"})}  # which scikit-learn imports if it is there
sys.exit(", ".join(name for name in heavy if name in sys.modules) or 0)
"""
    run = run_python(code, tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_is_there():
    assert len(set(sklabelaudio.__all__)) == len(sklabelaudio.__all__)
    for name in sklabelaudio.__all__:
        assert getattr(sklabelaudio, name) is not None


def test_stub_names_what_there_is_at_run_time():
    stub = ast.parse((FOLDER / "__init__.pyi").read_text(encoding="utf-8"))
    (names,) = [
        ast.literal_eval(node.value)
        for node in stub.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    assert sorted(names) == sorted(sklabelaudio.__all__)


def test_every_folder_is_public_or_says_that_it_is_not():
    folders = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    private = {name for name in folders if name.startswith("_")}
    assert folders - private <= set(sklabelaudio.__all__)


@EVERY_SOURCE
def test_imports_what_it_may(source):
    part = part_of(source)
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    imports = find_imports(source, inside_functions=True)
    absolute = {name for name in imports if name.split(".")[0] == "sklabelaudio"}
    assert not absolute, "the package imports its own modules relatively"
    own = {name.split(".")[1] for name in imports if name.startswith(".")}
    own = {name if name in MAY_IMPORT else "__init__" for name in own}
    assert own - {part} <= MAY_IMPORT[part]


@EVERY_SOURCE
def test_imports_heavy_modules_inside_functions(source):
    imports = find_imports(source, inside_functions=False)
    allowed = {"torch"} if part_of(source) == "nn" else set()
    assert not {name.split(".")[0] for name in imports} & HEAVY - allowed


@pytest.mark.parametrize(
    "source", sorted((FOLDER / "nn").glob("*.py")), ids=lambda p: p.name
)
def test_encoders_know_nothing_of_scikit_learn(source):
    imports = find_imports(source, inside_functions=True)
    assert not {name.split(".")[0] for name in imports} & {"sklearn", "skorch"}


@EVERY_SOURCE
def test_module_is_of_a_readable_length(source):
    assert len(source.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def list_public_objects():
    """Return the public modules, classes and functions, and the classes' members."""
    objects = {"sklabelaudio": sklabelaudio}
    for module in list_modules():
        if module.rpartition(".")[2].startswith("_") or "._" in module:
            continue
        objects[module] = import_module(module)
        default = [
            name
            for name, value in vars(objects[module]).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module
        ]
        for name in getattr(objects[module], "__all__", default):
            objects[f"{module}.{name}"] = getattr(objects[module], name)
    for path, value in list(objects.items()):
        if isinstance(value, type):
            for name, member in vars(value).items():
                if not name.startswith("_") and (
                    inspect.isroutine(member) or isinstance(member, property)
                ):
                    objects[f"{path}.{name}"] = getattr(value, name)
    return objects


def test_every_public_object_is_described():
    objects = list_public_objects()
    assert "sklabelaudio.audio.AudioLoader.transform" in objects
    assert not [path for path, value in objects.items() if not inspect.getdoc(value)]
