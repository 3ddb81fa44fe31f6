import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_first_example_prints_what_it_says(capsys):
    text = README.read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.S)[1]
    claimed = float(re.search(r"print\(.*\)  # ([0-9.]+);", example)[1])
    exec(compile(example, "README.md", "exec"), {})
    assert abs(float(capsys.readouterr().out) - claimed) < 0.02


def test_first_screen_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    example = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
