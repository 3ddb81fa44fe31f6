import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from sklabelaudio.datasets import make_sound_events

RATE = 16000


@pytest.fixture(scope="module")
def events():
    """All classes with their default background."""
    return make_sound_events(10, random_state=0)


@pytest.fixture(scope="module")
def clean():
    """All classes without background, by label."""
    made = make_sound_events(30, snr_db=np.inf, random_state=0)
    return {label: made.data[made.target == label] for label in made.target_names}


def power_spectrum(clips):
    power = np.abs(np.fft.rfft(clips)) ** 2
    return power / power.sum(axis=-1, keepdims=True)


def centroid(clips):
    frequency = np.fft.rfftfreq(clips.shape[-1], 1 / RATE)
    return np.median(power_spectrum(clips) @ frequency)


def flatness(clips):
    power = power_spectrum(clips) + 1e-15
    return np.median(np.exp(np.log(power).mean(-1)) / power.mean(-1))


def amplitude(clips):
    """Root mean square of frames of 20 ms."""
    return np.sqrt(np.mean(clips.reshape(len(clips), -1, 320) ** 2, axis=-1))


def column(bunch, name):
    position = bunch.attribute_names.index(name)
    return {label: row[position] for label, row in bunch.attributes.items()}


def test_shapes_and_types(events):
    assert events.data.shape == (160, 32000)
    assert events.data.dtype == np.float32
    assert events.sampling_rate == RATE
    assert events.target.shape == events.fold.shape == events.groups.shape == (160,)
    assert len(events.target_names) == 16
    assert events.target_names.tolist() == sorted(set(events.target))
    assert set(events.attributes) == set(events.target)
    assert len(events.attribute_names) == 12
    assert "Synthetic" in events.DESCR


@pytest.mark.parametrize("sampling_rate", [16000, 22050, 48000])
@pytest.mark.parametrize("duration", [0.5, 1.2345, 7])
def test_any_length_and_rate_is_finite_and_within_range(duration, sampling_rate):
    X, _ = make_sound_events(
        2,
        duration=duration,
        sampling_rate=sampling_rate,
        random_state=1,
        return_X_y=True,
    )
    assert X.shape == (32, round(duration * sampling_rate))
    assert np.isfinite(X).all()
    peak = np.abs(X).max(axis=1)
    assert peak.min() > 0.2
    assert peak.max() <= 1


def test_same_seed_same_clips_and_other_seed_other_clips():
    first, again, other = (
        make_sound_events(3, random_state=seed).data for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()


def test_clips_of_a_class_all_differ(events):
    assert len(np.unique(events.data, axis=0)) == len(events.data)


def test_a_class_depends_neither_on_its_company_nor_on_the_number(events):
    few = make_sound_events(4, classes=["wind", "bell"], random_state=0)
    assert few.target.tolist() == ["wind"] * 4 + ["bell"] * 4
    assert few.target_names.tolist() == ["bell", "wind"]
    for label in ("wind", "bell"):
        mine, theirs = few.target == label, np.flatnonzero(events.target == label)[:4]
        np.testing.assert_array_equal(few.data[mine], events.data[theirs])
        np.testing.assert_array_equal(few.fold[mine], events.fold[theirs])
    assert set(few.attributes) == set(events.attributes)


@pytest.mark.parametrize("random_state", [None, 3])
def test_global_random_state_is_left_alone(random_state):
    before = np.random.get_state()  # noqa: NPY002
    make_sound_events(1, random_state=random_state)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_random_state_none_and_instance():
    def first(random_state):
        return make_sound_events(1, classes=["rain"], random_state=random_state).data

    assert (first(None) != first(None)).any()
    own = np.random.RandomState(0)
    drawn = first(own)
    np.testing.assert_array_equal(drawn, first(np.random.RandomState(0)))
    assert (drawn != first(own)).any()


def test_folds_are_balanced():
    for n_clips, per_fold in ((5, [16] * 5), (10, [32] * 5)):
        fold = make_sound_events(n_clips, duration=0.5, random_state=0).fold
        assert np.bincount(fold)[1:].tolist() == per_fold
    few = make_sound_events(2, duration=0.5, random_state=0)
    counts = np.bincount(few.fold)[1:]
    assert counts.max() - counts.min() <= 1
    for label in few.target_names:
        assert len(set(few.fold[few.target == label])) == 2


def test_groups(events):
    families = dict(zip(events.target, events.groups, strict=True))
    assert families["dog_bark"] == "animals"
    assert families["thunder"] == "nature"
    assert families["applause"] == "human"
    assert families["engine"] == "machines"
    assert families["siren"] == "signals"
    assert len(set(families.values())) == 5


def test_return_X_y(events):
    X, y = make_sound_events(10, random_state=0, return_X_y=True)
    np.testing.assert_array_equal(X, events.data)
    np.testing.assert_array_equal(y, events.target)


def test_attributes_are_graded_and_distinct(events):
    vectors = np.array(list(events.attributes.values()))
    assert vectors.dtype == float
    assert vectors.min() == 0
    assert vectors.max() == 1
    distance = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    assert distance[~np.eye(16, dtype=bool)].min() > 0.5
    assert (vectors.std(axis=0) > 0.2).all()


def test_attributes_of_two_calls_share_no_memory(events):
    attributes = make_sound_events(1, classes=["rain"], duration=0.5).attributes
    attributes["rain"][:] = 7
    assert events.attributes["rain"].max() <= 1


def test_band_attributes_are_the_levels_of_the_bands(events, clean):
    edges = [0, 200, 500, 1200, 2800, RATE]
    frequency = np.fft.rfftfreq(32000, 1 / RATE)
    for label, clips in clean.items():
        power = power_spectrum(clips)
        for band, low, high in zip(
            events.attribute_names[:5], edges, edges[1:], strict=False
        ):
            share = power[:, (frequency >= low) & (frequency < high)].sum(axis=1)
            level = np.clip(1 + 10 * np.log10(share + 1e-9) / 30, 0, 1).mean()
            assert level == pytest.approx(column(events, band)[label], abs=0.12)


def test_sustained_and_modulated_are_those_of_the_envelope(events, clean):
    for label, clips in clean.items():
        envelope = amplitude(clips)
        loud = envelope > 0.1 * envelope.max(axis=1, keepdims=True)
        depth = (envelope.std(axis=1) / envelope.mean(axis=1)).mean()
        assert loud.mean() == pytest.approx(column(events, "sustained")[label], abs=0.1)
        assert min(depth, 1) == pytest.approx(
            column(events, "modulated")[label], abs=0.15
        )


def test_wideband_is_the_share_of_strong_mel_bands(events, clean):
    import librosa

    for label, clips in clean.items():
        mel = librosa.feature.melspectrogram(y=clips, sr=RATE, n_fft=1024, n_mels=64)
        mel = mel.mean(axis=-1)
        share = (mel > 0.01 * mel.max(axis=-1, keepdims=True)).mean()
        assert share == pytest.approx(column(events, "wideband")[label], abs=0.12)


def test_spectral_centroids_are_in_the_expected_order(clean):
    order = ["thunder", "wind", "bell", "sea_waves", "alarm_beep", "rain", "crickets"]
    centroids = [centroid(clean[label]) for label in order]
    assert centroids == sorted(centroids)


def test_noise_is_flatter_than_tones(events, clean):
    pitched = column(events, "pitched")
    tones = [flatness(clean[label]) for label in ("whistle", "bell", "alarm_beep")]
    noises = [flatness(clean[label]) for label in ("rain", "applause", "clock_tick")]
    assert max(tones) < 0.05 < min(noises)
    assert pitched["whistle"] > 0.7 > pitched["rain"]


def rhythm(clips, slowest, fastest):
    """Highest autocorrelation of each clip's loudness between two rates in Hz."""
    envelope = np.sqrt(np.mean(clips.reshape(len(clips), -1, 80) ** 2, axis=-1))
    envelope -= envelope.mean(axis=1, keepdims=True)
    first, last = int(200 / fastest * 0.95), int(200 / slowest * 1.05)
    found = []
    for row in envelope:
        correlation = np.correlate(row, row, "full")[row.size - 1 :]
        found.append(correlation[first : last + 1].max() / correlation[0])
    return np.array(found)


@pytest.mark.parametrize(
    ("label", "slowest", "fastest"),
    [("clock_tick", 2, 4), ("alarm_beep", 2.5, 5), ("helicopter", 9, 15)],
)
def test_rhythmic_classes_are_periodic_at_their_rate(clean, label, slowest, fastest):
    assert rhythm(clean[label], slowest, fastest).min() > 0.35
    for without in ("rain", "applause"):
        assert np.median(rhythm(clean[without], slowest, fastest)) < 0.25


def test_impulsive_classes_have_high_crests(events, clean):
    def crest(label):
        envelope = amplitude(clean[label])
        return (envelope.max(axis=1) / envelope.mean(axis=1)).mean()

    order = ["siren", "dog_bark", "footsteps", "clock_tick"]
    assert [crest(label) for label in order] == sorted(crest(label) for label in order)
    impulsive = column(events, "impulsive")
    assert [impulsive[label] for label in order] == sorted(
        impulsive[label] for label in order
    )


def test_sweeping_classes_glide(clean):
    def travel(label):
        """Ratio of the highest to the lowest pitch among the loud frames."""
        ratios = []
        for clip in clean[label]:
            frames = clip[:31744].reshape(-1, 512) * np.hanning(512)
            power = np.abs(np.fft.rfft(frames, 4096)) ** 2
            loud = power.sum(axis=1) > 0.1 * power.sum(axis=1).max()
            peak = power[loud].argmax(axis=1)
            ratios.append(np.percentile(peak, 95) / np.percentile(peak, 5))
        return np.median(ratios)

    assert travel("siren") > 1.5
    assert travel("bird_chirp") > 1.25
    assert travel("whistle") > 1.1
    assert travel("alarm_beep") < 1.02


def test_snr_sets_the_level_of_the_background():
    def floor(snr_db):
        """Amplitude between the ticks against that of the whole."""
        clips = make_sound_events(
            20, classes=["clock_tick"], snr_db=snr_db, random_state=0
        ).data
        envelope = amplitude(clips)
        quiet = np.percentile(envelope, 30, axis=1)
        return np.median(quiet / np.sqrt(np.mean(clips**2, axis=1)))

    assert 20 * np.log10(floor(30)) == pytest.approx(-30, abs=3)
    assert 20 * np.log10(floor(20) / floor(30)) == pytest.approx(10, abs=1)
    assert floor(np.inf) == pytest.approx(0, abs=1e-6)


def test_attributes_name_classes_never_heard(events):
    import librosa

    mel = librosa.feature.melspectrogram(
        y=events.data, sr=RATE, n_fft=1024, hop_length=256, n_mels=64
    )
    decibels = librosa.power_to_db(mel, top_db=None)
    features = np.hstack(
        [
            decibels.mean(axis=-1),
            decibels.std(axis=-1),
            np.diff(decibels, axis=-1).std(axis=-1),
        ]
    )
    known = np.array([events.attributes[label] for label in events.target])
    rng = np.random.default_rng(0)
    correct = []
    for _ in range(10):
        for unseen in rng.permutation(events.target_names).reshape(4, 4):
            test = np.isin(events.target, unseen)
            scaler = StandardScaler().fit(features[~test])
            ridge = Ridge(300).fit(scaler.transform(features[~test]), known[~test])
            heard = ridge.predict(scaler.transform(features[test]))
            candidates = np.array([events.attributes[label] for label in unseen])
            distance = np.linalg.norm(heard[:, None] - candidates, axis=-1)
            correct.append(unseen[distance.argmin(axis=1)] == events.target[test])
    assert np.mean(correct) > 0.6  # chance is 0.25


def test_a_misspelt_class_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown class 'dogbark'; did you mean 'dog"):
        make_sound_events(1, classes=["rain", "dogbark"])


def test_an_unknown_class_is_answered_with_all():
    with pytest.raises(ValueError, match=r"unknown class 'xyz'; known are alarm_beep,"):
        make_sound_events(1, classes=["xyz"])


def test_no_class_and_a_class_twice_are_refused():
    with pytest.raises(ValueError, match="classes names no class; give at least one"):
        make_sound_events(1, classes=[])
    with pytest.raises(ValueError, match="classes names rain more than once"):
        make_sound_events(1, classes=["rain", "wind", "rain"])


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_clips_per_class", 0),
        ("n_clips_per_class", 2.0),
        ("classes", "siren"),
        ("duration", 0.4),
        ("sampling_rate", 8000),
        ("sampling_rate", 16000.0),
        ("snr_db", np.nan),
        ("snr_db", -np.inf),
        ("random_state", "seed"),
        ("return_X_y", 1),
    ],
)
def test_bad_parameters_are_named(parameter, value):
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of make_sound"):
        make_sound_events(**{parameter: value})
