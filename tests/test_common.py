"""What every estimator must do: scikit-learn's checks, and the house's own."""

import ast
import functools
import hashlib
import inspect
import re
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils import estimator_checks, estimator_html_repr, get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import sklabelaudio
from sklabelaudio import (
    ASTEmbedder,
    AudioCLIPEmbedder,
    AudioLoader,
    BilinearZeroShotClassifier,
    CLAPEmbedder,
    EfficientATEmbedder,
    HTSATEmbedder,
    LabelTextEmbedder,
    LogMelExtractor,
    PANNsEmbedder,
    PaSSTEmbedder,
    PromptZeroShotClassifier,
    PSLAEmbedder,
    SemanticContrastiveClassifier,
    SP4SCEmbedder,
    SPATagger,
    SpectrogramCNNClassifier,
    TaggerZeroShotClassifier,
    TemporalPooling,
    VGGishEmbedder,
    YAMNetEmbedder,
)
from sklabelaudio.embedding._base import AudioEmbedder
from sklabelaudio.nn import AST, HTSAT, PaSST
from sklabelaudio.nn._clap import ClapAudioTower

LABELS = ["dog", "rain", "sea waves"]
VECTORS = {
    "dog": [1.0, 0.0],
    "rain": [0.0, 1.0],
    "sea": [1.0, 2.0],
    "waves": [2.0, 1.0],
}

ESTIMATORS = [
    AudioLoader(16000),
    AudioLoader(8000, array_sampling_rate=16000, duration=0.1),
    LogMelExtractor(16000, duration=0.1, n_mels=20),
    # Clips as short as the rows of scikit-learn's checks still have frames.
    LogMelExtractor(16000, n_fft=4, win_length=2, hop_length=1, n_mels=1),
    YAMNetEmbedder(None, sampling_rate=16000, n_jobs=1),
    EfficientATEmbedder(None, sampling_rate=32000, n_jobs=1, output="probabilities"),
    VGGishEmbedder(None, sampling_rate=16000, n_jobs=1),
    HTSATEmbedder("htsat.pt", sampling_rate=32000, n_jobs=1),
    CLAPEmbedder("clap.pt", sampling_rate=48000, n_jobs=1),
    PANNsEmbedder(None, sampling_rate=32000, n_jobs=1),
    PSLAEmbedder(None, sampling_rate=16000, n_jobs=1),
    ASTEmbedder("ast.pt", sampling_rate=16000, n_jobs=1),
    PaSSTEmbedder("passt.pt", sampling_rate=32000, n_jobs=1),
    SP4SCEmbedder(None, sampling_rate=44100, n_jobs=1),
    AudioCLIPEmbedder(None, sampling_rate=44100, n_jobs=1),
    TemporalPooling(),
    TemporalPooling(["min", "max", "median", "delta_std"]),
    LabelTextEmbedder(VECTORS, normalize=True),
    BilinearZeroShotClassifier(random_state=0),
    BilinearZeroShotClassifier(center="both", scale="both", random_state=0),
    BilinearZeroShotClassifier(solver="minibatch", batch_size=8, random_state=0),
    PromptZeroShotClassifier(VECTORS),
    PromptZeroShotClassifier(VECTORS, multi_label=True, candidate_labels=LABELS),
    TaggerZeroShotClassifier(VECTORS, tagger_labels=list(VECTORS)),
    TaggerZeroShotClassifier(VECTORS, tagger_labels=list(VECTORS), method="conse"),
    SPATagger(label_embedder=VECTORS, obce=False, random_state=0, device="cpu"),
    SemanticContrastiveClassifier(
        None, similarity="linear", text_encoder=VECTORS, random_state=0, device="cpu"
    ),
    SpectrogramCNNClassifier(
        architecture_params={"width": 0.1},
        sampling_rate=32000,
        max_epochs=2,
        random_state=0,
        device="cpu",
    ),
]

# Transformers are small here, or they would take minutes in all.
_STAGES = {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
_SIZES = {"embed_dim": 64, "depth": 2, "num_heads": 1}
SMALL_WEIGHTS = {
    "ast.pt": lambda: AST(**_SIZES),
    "clap.pt": lambda: ClapAudioTower(8, 16, **_STAGES),
    "htsat.pt": lambda: HTSAT(8, **_STAGES),
    "passt.pt": lambda: PaSST(**_SIZES),
}


@pytest.fixture(scope="module", autouse=True)
def small_weights(tmp_path_factory):
    """Run the tests in a folder that has the files of `SMALL_WEIGHTS`."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, make in SMALL_WEIGHTS.items():
            torch.save(make().state_dict(), folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


class LabelHash(BaseEstimator):
    """A vector drawn by the hash of each label, whatever the label is."""

    def __init__(self, n_components=8):
        self.n_components = n_components

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        hashes = [hashlib.sha256(repr(label).encode()).digest() for label in X]
        rngs = [np.random.default_rng(list(number)) for number in hashes]
        return np.stack([rng.normal(size=self.n_components) for rng in rngs])


class Perceptron(torch.nn.Sequential):
    """A network of vectors."""

    def __init__(self, n_classes, n_mels):
        super().__init__(
            torch.nn.Linear(n_mels, 32),
            torch.nn.ReLU(),
            torch.nn.Linear(32, n_classes),
        )


# scikit-learn's checks have tables of any width, and numbers for labels. Classifiers
# whose label vectors set the width are checked with vectors and classes to suit.
class PromptOfAnyWidth(PromptZeroShotClassifier):
    def _fit_label_embedder(self, labels):
        self.label_embedder = LabelHash(self.n_features_in_)
        try:
            super()._fit_label_embedder(labels)
        finally:
            self.label_embedder = None


class TaggerOfAnyWidth(TaggerZeroShotClassifier):
    def _find_tagger_labels(self, X):
        return np.array([f"class {k}" for k in range(self.n_features_in_)])


OF_ANY_WIDTH = [
    PromptOfAnyWidth(),
    PromptOfAnyWidth(reject_threshold=-1, reject_label=-9),
    PromptOfAnyWidth(multi_label=True, candidate_labels=list("abcde")),
    TaggerOfAnyWidth(LabelHash()),
    TaggerOfAnyWidth(LabelHash(), method="conse"),
    SPATagger(
        label_embedder=LabelHash(),
        obce=False,
        max_epochs=20,
        lr=0.01,
        batch_size=50,
        random_state=0,
    ),
    SPATagger(
        obce=False, alpha=0, max_epochs=20, lr=0.01, batch_size=50, random_state=0
    ),
    SemanticContrastiveClassifier(
        None,
        similarity="linear",
        text_encoder=LabelHash(),
        n_components=32,
        batch_size=100,
        random_state=0,
    ),
    SemanticContrastiveClassifier(
        None,
        similarity="linear",
        text_encoder=None,
        n_components=32,
        batch_size=100,
        random_state=0,
    ),
    SpectrogramCNNClassifier(Perceptron, lr=0.02, batch_size=500, random_state=0),
]


def each(estimators):
    """Run a test with each of the estimators."""
    names = [re.sub(r"\s+", "", str(estimator)) for estimator in estimators]
    return pytest.mark.parametrize("estimator", estimators, ids=names)


EVERY_ESTIMATOR = each(ESTIMATORS)
EVERY_CLASS = pytest.mark.parametrize(
    "cls", dict.fromkeys(map(type, ESTIMATORS)), ids=lambda cls: cls.__name__
)

# The checks that give no X, for estimators that don't take numbers.
CHECKS_WITHOUT_X = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_mixin_order,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
]

# The checks whose y has one label for each clip and that compare predictions with it.
CHECKS_OF_ONE_LABEL = [
    "check_array_api_input",
    "check_classifiers_classes",
    "check_classifiers_one_label",
    "check_classifiers_train",
    "check_decision_proba_consistency",
    "check_fit_score_takes_y",
    "check_pipeline_consistency",
    "check_supervised_y_2d",
]


def takes_numbers(estimator):
    """Whether it takes scikit-learn's tables, of numbers and of any width."""
    named = (
        PromptZeroShotClassifier,
        SemanticContrastiveClassifier,
        SPATagger,
        SpectrogramCNNClassifier,
        TaggerZeroShotClassifier,
    )
    # Their labels' vectors set names or the width, or they hear rows as clips.
    if isinstance(estimator, named):
        return False
    # The others differ from these by networks that take minutes.
    small = (EfficientATEmbedder, SP4SCEmbedder, YAMNetEmbedder)
    if isinstance(estimator, AudioEmbedder) and not isinstance(estimator, small):
        return False
    return get_tags(estimator).input_tags.two_d_array


def expected_failures(estimator):
    any_length = "clips may be of any length, also of another than those of fit"
    if isinstance(estimator, AudioEmbedder):
        return {
            "check_n_features_in_after_fitting": any_length,
            "check_transformer_general": any_length,
        }
    if isinstance(estimator, (AudioLoader, LogMelExtractor)):
        return {"check_n_features_in_after_fitting": any_length}
    if isinstance(estimator, PromptZeroShotClassifier) and estimator.multi_label:
        return dict.fromkeys(
            CHECKS_OF_ONE_LABEL,
            "predicts an indicator matrix, also where y has one label for each clip",
        )
    if isinstance(estimator, TaggerZeroShotClassifier):
        return {
            "check_decision_proba_consistency": "gives negative numbers to a "
            "classifier that takes positive ones only; and of two labels the bridge's "
            "decision is the difference of scores, its probability their ratio"
        }
    return {}


@parametrize_with_checks(
    [*filter(takes_numbers, ESTIMATORS), *OF_ANY_WIDTH],
    expected_failed_checks=expected_failures,
)
def test_passes_the_checks_of_scikit_learn(estimator, check, monkeypatch):
    # Without it the array API checks skip themselves.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    check(estimator)


@pytest.mark.parametrize("check", CHECKS_WITHOUT_X, ids=lambda check: check.__name__)
@each([estimator for estimator in ESTIMATORS if not takes_numbers(estimator)])
def test_passes_the_checks_without_numbers(estimator, check):
    check(type(estimator).__name__, estimator)


@EVERY_ESTIMATOR
def test_bad_parameters_are_named(estimator):
    estimator_checks.check_param_validation(type(estimator).__name__, estimator)


def test_every_public_estimator_is_here():
    public = [getattr(sklabelaudio, name) for name in sklabelaudio.__all__]
    assert {cls for cls in public if hasattr(cls, "fit")} == set(map(type, ESTIMATORS))


def make_data(estimator):
    """Return X and y such as the estimator takes."""
    rng = np.random.default_rng(0)
    if isinstance(estimator, (AudioLoader, LogMelExtractor)):
        return rng.uniform(-1, 1, (4, 1600)), None
    if isinstance(estimator, AudioEmbedder):
        return rng.uniform(-1, 1, (2, 1600)), None
    if isinstance(estimator, TemporalPooling):
        return rng.normal(size=(4, 9, 5)), None
    if isinstance(estimator, LabelTextEmbedder):
        return LABELS, None
    if isinstance(estimator, PromptZeroShotClassifier):
        return rng.normal(size=(30, 2)), np.repeat(LABELS, 10)
    if isinstance(estimator, TaggerZeroShotClassifier):
        return rng.uniform(size=(30, 4)), np.repeat(LABELS, 10)
    return rng.normal(size=(30, 5)), np.repeat(LABELS, 10)


def output_method(estimator):
    name = "predict_proba" if is_classifier(estimator) else "transform"
    return getattr(estimator, name)


@pytest.fixture(scope="module")
def fit_once():
    """Callable: a clone of an estimator fitted, the same one at every call."""

    @functools.cache  # each estimator is equal to itself alone
    def fit(estimator):
        return clone(estimator).fit(*make_data(estimator))

    return fit


@EVERY_ESTIMATOR
def test_parameters_make_an_equal_estimator(estimator, fit_once):
    X, y = make_data(estimator)
    params = estimator.get_params()
    copies = [
        fit_once(estimator),
        type(estimator)(**params).fit(X, y),
        type(estimator)().set_params(**params).fit(X, y),
    ]
    outputs = [output_method(copy)(X) for copy in copies]
    for copy, output in zip(copies, outputs, strict=True):
        assert copy.get_params() == params
        np.testing.assert_array_equal(output, outputs[0])


@EVERY_ESTIMATOR
def test_has_an_html_representation(estimator, fit_once):
    for shown in (estimator, fit_once(estimator)):
        assert type(estimator).__name__ in estimator_html_repr(shown)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, fit_once):
    """The outputs of all fitted estimators, here and loaded in another process."""
    folder = tmp_path_factory.mktemp("estimators")
    calls = [
        (output_method(fit_once(estimator)), make_data(estimator)[0])
        for estimator in ESTIMATORS
    ]
    joblib.dump(calls, folder / "calls")
    code = (
        "import sys, joblib\n"
        "outputs = [method(X) for method, X in joblib.load(sys.argv[1])]\n"
        "joblib.dump(outputs, sys.argv[2])"
    )
    files = [folder / "calls", folder / "outputs"]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    there = joblib.load(folder / "outputs")
    return [(method(X), got) for (method, X), got in zip(calls, there, strict=True)]


@EVERY_ESTIMATOR
def test_gives_the_same_in_another_process(estimator, outputs):
    here, there = outputs[ESTIMATORS.index(estimator)]
    assert here.dtype == there.dtype
    np.testing.assert_allclose(there, here, rtol=1e-6)


@each([e for e in ESTIMATORS if hasattr(e, "get_feature_names_out")])
def test_gives_data_frames(estimator, fit_once):
    pytest.importorskip("pandas")
    X, y = make_data(estimator)
    expected = fit_once(estimator).transform(X)
    fitted = clone(estimator).set_output(transform="pandas").fit(X, y)
    frame = fitted.transform(X)
    assert frame.columns.tolist() == fitted.get_feature_names_out().tolist()
    np.testing.assert_array_equal(frame.to_numpy(), expected)


@EVERY_CLASS
def test_constructor_assigns_only(cls):
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__))).body
    statements = [ast.unparse(statement) for statement in function.body]
    names = list(inspect.signature(cls).parameters)
    assert statements == [f"self.{name} = {name}" for name in names]


def read_sections(cls):
    """Return the names that each section of a docstring describes, in order."""
    parts = re.split(r"^(.+)\n-{3,}$", inspect.getdoc(cls), flags=re.MULTILINE)[1:]
    return {
        title: re.findall(r"^(\w+) : .", text, flags=re.MULTILINE)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }


@EVERY_CLASS
def test_docstring_is_complete(cls):
    sections = read_sections(cls)
    order = ["Parameters", "Attributes", "See Also", "Notes", "References", "Examples"]
    assert [title for title in order if title in sections] == list(sections)
    assert {"Parameters", "Attributes", "Examples"} <= set(sections)
    assert sections["Parameters"] == list(inspect.signature(cls).parameters)


@EVERY_ESTIMATOR
def test_attributes_are_those_described(estimator, fit_once):
    described = read_sections(type(estimator))["Attributes"]
    fitted = fit_once(estimator)
    learned = [name for name in vars(fitted) if re.fullmatch(r"[a-z]\w*_", name)]
    assert set(learned) <= set(described)
    assert all(hasattr(fitted, name) for name in described)
