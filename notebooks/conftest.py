"""What nbval leaves out of its comparison, here: the pages of explorers, which hold attention weights as bytes, in which
the last digits of another processor show. Their texts are compared, as those of every picture are."""


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("text/html",)
