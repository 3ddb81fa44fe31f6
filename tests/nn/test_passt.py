import copy

import numpy as np
import pytest
import torch
import transformers

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import EfficientAT, PaSST, load_checkpoint
from sklabelaudio.nn._checkpoint import load_state, read_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm
from sklabelaudio.nn._pointwise import replace_pointwise

# 12 rows and 8 columns of patches.
SMALL = {"n_frames": 90, "embed_dim": 128, "depth": 2, "num_heads": 2}
EMBEDDINGS = "encoder.embeddings."


def make_log_mel(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_small(n_classes=3, **params):
    """Make a small model whose every weight matters to the result."""
    model = PaSST(n_classes, **{**SMALL, **params}).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def small():
    return make_small()


@pytest.fixture
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# Beside the authors' model.


@pytest.fixture(scope="module")
def reference(parity):
    return parity("passt")


@pytest.fixture(scope="module")
def trained(reference, tmp_path_factory):
    """The published model, from a file as the authors saved it."""
    path = tmp_path_factory.mktemp("passt") / "passt-s-f128-p16-s10-ap.476-swa.pt"
    torch.save(reference.state(), path)
    model = PaSST(**PaSST.config_of(read_checkpoint(path)))
    load_checkpoint(model, path)
    path.unlink()
    return model.eval()


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    error = np.abs(actual.numpy() - expected).max() / np.abs(expected).max()
    assert error < 5e-6


@pytest.mark.parametrize(
    ("name", "step"), [("noise0", 2), ("noise1", 7), ("burst", 13), ("chirp", 13)]
)
def test_gives_what_the_authors_give(reference, trained, name, step):
    log_mel = get_front_end("passt")(reference.inputs[name].waveform)
    expected = reference.expected
    np.testing.assert_allclose(
        log_mel.T[np.newaxis, :, ::step], expected[f"{name}.mel"], rtol=0, atol=5e-4
    )
    with torch.inference_mode():
        output = trained(torch.from_numpy(log_mel[np.newaxis]))
    assert_close(output.embedding, expected[f"{name}.embedding"])
    assert_close(output.logits, expected[f"{name}.logits"])
    assert output.framewise is None
    assert output.frames is None


def test_the_parameters_are_the_published_ones(reference, trained):
    published = reference.manifest["parameter_counts"]
    unused = sum(
        int(np.prod(entry["shape"]))
        for key, entry in reference.manifest["keys"].items()
        if key.startswith("head_dist.")
    )
    ours = sum(parameter.numel() for parameter in trained.parameters())
    assert ours + unused == published["parameters"] == 86_153_758
    assert ours == published["without_head_dist"] == 85_748_495
    assert (trained.n_components, trained.n_classes) == (768, 527)


@pytest.mark.parametrize(
    ("stride", "n_rows", "n_columns", "depth", "n_classes", "n_frames"),
    [
        (10, 12, 99, 12, 527, 1000),
        (12, 10, 83, 12, 527, 1000),
        (14, 9, 71, 12, 527, 1000),
        (16, 8, 62, 12, 527, 1000),
        (10, 12, 99, 7, 527, 1000),  # passt-l
        (10, 12, 200, 12, 527, 2010),  # 20 s
        (16, 8, 62, 12, 200, 1000),  # FSD50K
    ],
)
def test_sizes_are_read_off_official_weights(
    reference, stride, n_rows, n_columns, depth, n_classes, n_frames
):
    state = {
        key: torch.empty(entry["shape"], device="meta")
        for key, entry in reference.manifest["keys"].items()
        if not any(key.startswith(f"blocks.{i}.") for i in range(depth, 12))
    }
    with torch.device("meta"):
        state["freq_new_pos_embed"] = torch.empty(1, 768, n_rows, 1)
        state["time_new_pos_embed"] = torch.empty(1, 768, 1, n_columns)
        state["head.1.weight"] = torch.empty(n_classes, 768)
        state["head.1.bias"] = torch.empty(n_classes)
        sizes = PaSST.config_of(state)
        own = PaSST(**sizes).state_dict()
        # A length that a user would give makes the same tables.
        same = PaSST(n_classes, n_frames, stride, stride, depth=depth).state_dict()
    assert sizes == {
        "n_classes": n_classes,
        "n_frames": 16 + (n_columns - 1) * stride + stride - 1,
        "frequency_stride": stride,
        "time_stride": stride,
        "embed_dim": 768,
        "depth": depth,
        "num_heads": 12,
    }
    shapes = [
        {name: value.shape for name, value in weights.items()}
        for weights in (own, same, PaSST.convert_checkpoint(state))
    ]
    assert shapes[0] == shapes[1] == shapes[2]


# Beside transformers.


@pytest.mark.parametrize("n_frames", [16, 45, 90])
def test_is_an_ast_with_positions_that_are_sums(small, n_frames):
    n_columns = (n_frames - 16) // 10 + 1
    config = transformers.ASTConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_length=n_frames,
        num_labels=3,
        layer_norm_eps=1e-6,
    )
    with torch.random.fork_rng(devices=[]):
        ast = transformers.ASTForAudioClassification(config).eval()
    ast.classifier.layernorm.eps = 1e-5
    own = small.state_dict()
    frequency, time, special = (
        own.pop(f"{EMBEDDINGS}{name}new_pos_embed")[0]
        for name in ("freq_", "time_", "")
    )
    # The first columns of the time embedding, and rows one behind the other.
    grid = (frequency + time[:, :, :n_columns]).flatten(1).T
    positions = torch.cat([special, grid])[None]
    state = {
        name.replace("encoder.", "audio_spectrogram_transformer."): value
        for name, value in own.items()
    }
    state["audio_spectrogram_transformer.embeddings.position_embeddings"] = positions
    ast.load_state_dict(state)
    log_mel = make_log_mel(2, n_frames, 128)
    with torch.inference_mode():
        expected, output = ast(log_mel), small(log_mel)
        pooled = ast.audio_spectrogram_transformer(log_mel).pooler_output
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=2e-6)
    torch.testing.assert_close(output.embedding, pooled, rtol=0, atol=2e-6)


# Files.


def authors_names(model):
    """Name a model's weights as the authors do, by an own rule."""
    own, state = model.state_dict(), {}
    parts = {
        "encoder.embeddings.distillation": "dist",
        "encoder.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "encoder.embeddings.": "",
        "encoder.layernorm": "norm",
        "encoder.layers": "blocks",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "classifier.layernorm": "head.0",
        "classifier.dense": "head.1",
    }
    for name, value in own.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        theirs = name
        for ours, part in parts.items():
            theirs = theirs.replace(ours, part)
        if ".q_proj." in name:
            theirs = theirs.replace("attention.q_proj", "attn.qkv")
            value = torch.cat([own[name.replace(".q_", f".{p}_")] for p in "qkv"])
        state[theirs] = value.clone()
    state["head_dist.weight"] = torch.randn(model.n_classes, model.n_components)
    state["head_dist.bias"] = torch.randn(model.n_classes)
    return state


def test_the_names_are_those_of_the_authors(reference):
    with torch.device("meta"):
        names = authors_names(PaSST())
    assert names.keys() == reference.manifest["keys"].keys()


@pytest.mark.parametrize("prefix", ["", "module.module."])
@pytest.mark.parametrize("wrapper", [None, "model"])
def test_files_of_the_authors_load(small, tmp_path, prefix, wrapper):
    path = tmp_path / "passt.pt"
    state = {prefix + n: value for n, value in authors_names(small).items()}
    torch.save(state if wrapper is None else {wrapper: state}, path)
    config = PaSST.config_of(read_checkpoint(path))
    model = load_checkpoint(PaSST(**config), path).eval()
    log_mel = make_log_mel(1, 90, 128)
    torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)


def test_files_in_half_precision_load(small, tmp_path):
    path = tmp_path / "half.pt"
    torch.save({n: v.half() for n, v in authors_names(small).items()}, path)
    model = load_checkpoint(PaSST(3, **SMALL), path)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, small.state_dict()[name].half().float())


def test_its_own_state_dict_loads(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "own.pt")
    config = PaSST.config_of(read_checkpoint(tmp_path / "own.pt"))
    model = load_checkpoint(PaSST(**config), tmp_path / "own.pt").eval()
    log_mel = make_log_mel(1, 90, 128)
    torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("blocks.1.norm2.bias"), r"1\.layernorm_after\.bias"),
        (lambda state: state.pop("freq_new_pos_embed"), r"missing.*\n.*freq_new_pos"),
        (lambda state: state.update(extra=torch.ones(2)), r"unknown.*\n.*extra"),
        (
            lambda state: state.update(time_new_pos_embed=torch.ones(1, 128, 1, 9)),
            r"shape.*\n.*time_new_pos_embed: \(1, 128, 1, 9\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told(small, change, told):
    state = authors_names(small)
    change(state)
    model = PaSST(3, **SMALL)
    with pytest.raises(CheckpointError, match=told):
        load_state(model, model.convert_checkpoint(state), "passt.pt")


def test_a_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "mn01.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    with pytest.raises(CheckpointError, match="Is this the file of another model"):
        load_checkpoint(PaSST(3, **SMALL), path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.clear(), "no weight 'classifier.dense.weight'.*a PaSST"),
        (
            lambda state: state.pop("time_new_pos_embed"),
            "no weight 'encoder.embeddings.time_new_pos_embed'",
        ),
        (
            lambda state: state.update(freq_new_pos_embed=torch.ones(1, 128, 7, 1)),
            "no PaSST with a stride of .* has 7 rows",
        ),
    ],
)
def test_sizes_of_other_weights_are_refused(small, change, told):
    state = authors_names(small)
    change(state)
    with pytest.raises(ValueError, match=told):
        PaSST.config_of(state)


# What it is given.


@pytest.mark.parametrize(
    ("n_frames", "stride", "max_frames"),
    [
        (998, 10, 1005),
        (1000, 10, 1005),
        (1005, 10, 1005),
        (1006, 10, 1015),
        (16, 7, 22),
    ],
)
def test_the_most_frames_are_those_without_a_further_patch(
    n_frames, stride, max_frames
):
    sizes = {**SMALL, "n_frames": n_frames, "time_stride": stride}
    model = make_small(**sizes)
    assert model.max_frames == max_frames
    n_columns = model.encoder.embeddings.time_new_pos_embed.shape[3]
    log_mel = make_log_mel(1, max_frames + 1, 128)
    with torch.inference_mode():
        longest = model(log_mel[:, :max_frames])
        heard = model(log_mel[:, : 16 + (n_columns - 1) * stride])
    assert torch.equal(longest.logits, heard.logits)
    with pytest.raises(ValueError, match=f"{max_frames + 1} frames.* to {max_frames}:"):
        model(log_mel)


@pytest.mark.parametrize("n_frames", [0, 15])
def test_too_few_frames_are_refused(small, n_frames):
    told = f"log_mel has {n_frames} frames; this PaSST takes 16 to"
    with pytest.raises(ValueError, match=told):
        small(torch.zeros(1, n_frames, 128))


@pytest.mark.parametrize("shape", [(90, 128), (1, 90, 64), (1, 1, 90, 128)])
def test_other_shapes_are_refused(small, shape):
    with pytest.raises(
        ValueError, match=r"log_mel has the shape.*PaSST takes \(n_clip"
    ):
        small(torch.zeros(shape))


def test_a_clip_does_not_depend_on_the_others(small):
    log_mel = make_log_mel(3, 50, 128)
    with torch.inference_mode():
        among = small(log_mel)
        among_others = small(log_mel[[2, 0, 2]])
    for stage in ("embedding", "logits"):
        first, second = getattr(among, stage), getattr(among_others, stage)
        # With several threads torch's kernels add up in other orders.
        torch.testing.assert_close(first[[2, 0]], second[:2], rtol=0, atol=1e-5)
        assert not torch.allclose(first[0], first[2], rtol=0, atol=1e-3)


def test_made_ready_for_inference_it_gives_the_same(small):
    model = copy.deepcopy(small)
    replace_pointwise(fold_batch_norm(model))
    model.to(memory_format=torch.channels_last)
    log_mel = make_log_mel(2, 64, 128)
    torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"n_frames": 15}, "n_frames=15: .* the 16 frames"),
        ({"frequency_stride": 0}, "frequency_stride=0"),
        ({"num_heads": 3}, "num_heads=3 must divide embed_dim=128"),
        ({"patchout_frequency": 12}, "patchout_frequency=12 must lie between 0 and 11"),
        ({"patchout_time": 8}, "patchout_time=8 must lie between 0 and 7"),
        ({"patchout_time": -1}, "patchout_time=-1"),
        ({"patchout": 96}, "patchout=96 must lie between 0 and 95"),
        (
            {"patchout": 15, "patchout_time": 7, "patchout_frequency": 2},
            "patchout=15 must lie between 0 and 9",
        ),
    ],
)
def test_bad_parameters_are_refused(params, told):
    with pytest.raises(ValueError, match=told):
        PaSST(3, **{**SMALL, **params})


# Patchout.


def find_patches(model, log_mel):
    """Return which patches a pass in training keeps, as rows and columns in order."""
    grid = []
    model.eval()
    with torch.no_grad():
        whole = model.encoder.embeddings(log_mel)[:, 2:]
        kept = model.train().encoder.embeddings(log_mel)[:, 2:]
    n_columns = (log_mel.shape[1] - 16) // 10 + 1
    for clip in range(len(log_mel)):
        distances = torch.cdist(kept[clip].double(), whole[clip].double())
        assert distances.min(dim=1).values.max() < 1e-4
        places = distances.argmin(dim=1).tolist()
        grid.append([divmod(place, n_columns) for place in places])
    assert all(places == grid[0] for places in grid)  # alike for all clips
    return grid[0]


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "n_any"),
    [(0, 0, 0), (4, 0, 0), (0, 3, 0), (4, 3, 0), (0, 0, 40), (1, 2, 50), (11, 7, 0)],
)
def test_patchout_leaves_out_rows_columns_and_patches(seeded, n_rows, n_columns, n_any):
    model = make_small(
        patchout_frequency=n_rows, patchout_time=n_columns, patchout=n_any
    )
    # What the layers get: two special tokens and what is left.
    lengths = []
    model.encoder.layers[0].register_forward_hook(
        lambda module, inputs, output: lengths.append(inputs[0].shape[1])
    )
    log_mel = make_log_mel(2, 90, 128)
    n_left = (12 - n_rows) * (8 - n_columns) - n_any
    model.train()(log_mel)
    model.eval()(log_mel)
    assert lengths == [2 + n_left, 2 + 12 * 8]

    patches = find_patches(model, log_mel)
    assert len(set(patches)) == len(patches) == n_left
    assert patches == sorted(patches)
    if n_any == 0:
        rows, columns = (sorted(set(axis)) for axis in zip(*patches, strict=True))
        assert (len(rows), len(columns)) == (12 - n_rows, 8 - n_columns)
        assert patches == [(row, column) for row in rows for column in columns]


def test_patchout_leaves_evaluation_as_it_is(small):
    model = make_small(patchout_frequency=4, patchout_time=3, patchout=10)
    state = torch.get_rng_state()
    for n_frames in (90, 40):
        log_mel = make_log_mel(2, n_frames, 128)
        torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["patchout_frequency", "patchout_time", "patchout"])
def test_patchout_leaves_no_map(name):
    model = make_small(**{name: 1})
    log_mel = make_log_mel(2, 90, 128)
    with torch.inference_mode():
        assert model.forward_features(log_mel).shape[2:] == (12, 8)
    with pytest.raises(ValueError, match="no whole map: build PaSST with patchout_fr"):
        model.train().forward_features(log_mel)
    whole = make_small().train()
    assert whole.forward_features(log_mel).shape[2:] == (12, 8)


def test_patchout_draws_from_the_generator_of_torch(seeded):
    model = make_small(patchout_frequency=4, patchout_time=3, patchout=10)
    log_mel = make_log_mel(1, 90, 128)
    draws = [tuple(find_patches(model, log_mel)) for _ in range(10)]
    assert len(set(draws)) == 10
    torch.manual_seed(0)
    assert [tuple(find_patches(model, log_mel)) for _ in range(10)] == draws
    # In time every patch has its turn, as often as the next.
    counts = torch.zeros(12, 8)
    for _ in range(300):
        for row, column in find_patches(model, log_mel):
            counts[row, column] += 1
    share = ((12 - 4) * (8 - 3) - 10) / (12 * 8)
    assert abs(counts / 300 - share).max() < 0.15


def test_patchout_that_would_leave_nothing_is_told():
    model = make_small(patchout_time=6).train()
    model(make_log_mel(1, 76, 128))  # seven columns
    told = "log_mel gives 6 patches along an axis and patchout_time=6"
    with pytest.raises(ValueError, match=told):
        model(make_log_mel(1, 75, 128))
    model = make_small(patchout=30).train()
    with pytest.raises(ValueError, match=r"gives 24 patches .* patchout=30"):
        model(make_log_mel(1, 26, 128))


# Training.


def test_gradients_reach_all_weights(seeded):
    model = make_small(patchout_frequency=4, patchout_time=3, patchout=10).train()
    # Some rows and columns are left out each time.
    for turn in range(8):
        output = model(make_log_mel(2, 90, 128, seed=turn))
        output.logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("k_proj.bias"):  # adds the same to all scores of a query
            assert parameter.grad.abs().max() > 1e-6, name
    embeddings = model.encoder.embeddings
    for table in (embeddings.freq_new_pos_embed, embeddings.time_new_pos_embed):
        assert table.grad.abs().amax(dim=1).min() > 0


def test_short_clips_are_anywhere_on_the_table_in_training(seeded):
    model = make_small()
    log_mel = make_log_mel(1, 46, 128)  # four columns of eight
    time = model.encoder.embeddings.time_new_pos_embed.detach()[0, :, 0].T
    with torch.no_grad():
        at_start = model.encoder.embeddings(log_mel)[0, 2:6]
        model.train()
        seen = set()
        for _ in range(60):
            tokens = model.encoder.embeddings(log_mel)[0, 2:6]
            starts = [
                start
                for start in range(5)
                if torch.allclose(
                    tokens - at_start, time[start : start + 4] - time[:4], atol=1e-5
                )
            ]
            seen.update(starts)
            assert len(starts) == 1
    assert seen == {0, 1, 2, 3, 4}


def test_the_special_tokens_begin_apart():
    embeddings = PaSST(3, **SMALL).encoder.embeddings
    assert not torch.equal(embeddings.cls_token, embeddings.distillation_token)
    for parameter in embeddings.parameters():
        if parameter.ndim > 1:
            assert 0.01 < parameter.std() < 0.03


def test_training_from_scratch_tells_two_sounds_apart(seeded):
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patchout_frequency": 4}
    model = PaSST(2, 32, **sizes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    target = torch.arange(16) % 2
    for _ in range(30):
        log_mel = 0.5 * torch.randn(16, 32, 128)
        log_mel[target == 1, :, :60] += 1
        loss = torch.nn.functional.cross_entropy(model(log_mel).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_building_leaves_the_generator_and_the_terminal_alone(capfd, caplog):
    state = torch.get_rng_state()
    PaSST(3, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
