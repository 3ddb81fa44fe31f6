import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def read_examples():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)


def test_first_example_names_real_clips(shared, esc10, minilm, tmp_path, capsys):
    checkpoint = shared / "reference/checkpoints/efficientat/mn04_as_mAP_432.pt"
    for file in (checkpoint, shared / "data/audioset/class_labels_indices.csv"):
        (tmp_path / file.name).symlink_to(file)
    example, *_ = read_examples()
    for named, here in {
        "mn04_as": tmp_path / checkpoint.name,
        "sentence-transformers/all-MiniLM-L6-v2": minilm,
        "yard.wav": esc10 / "audio" / "1-100032-A-0.ogg",
        "street.ogg": esc10 / "audio" / "1-17367-A-10.ogg",
    }.items():
        assert f'"{named}"' in example
        example = example.replace(f'"{named}"', repr(str(here)))
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == "['dog' 'rain']\n"


def test_second_example_prints_what_it_says(capsys):
    _, example, *_ = read_examples()
    claimed = float(re.search(r"print\(.*\)  # ([0-9.]+);", example)[1])
    exec(compile(example, "README.md", "exec"), {})
    assert abs(float(capsys.readouterr().out) - claimed) < 0.02


def test_first_screen_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    example, *_ = read_examples()
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
