import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared():
    """The folder of reference data, or a skip where there is none."""
    folder = Path(os.environ.get("SKLABELAUDIO_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the reference data; {folder} is not there")
    return folder


@pytest.fixture(scope="session")
def esc10(shared):
    """The ESC-10 folder: 400 real clips in ESC-50's layout."""
    return shared / "data" / "ESC-10"
