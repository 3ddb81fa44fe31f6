import pytest


@pytest.fixture(autouse=True)
def plt():
    """Pyplot without a window; what a test draws is closed behind it."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")
