"""Two of the stored experiments, cheap ones, measured again."""

import pytest

from notebooks.experiments import results
from notebooks.experiments.__main__ import run


@pytest.mark.parametrize(("group", "name"), [("data", "linear, 100 scans"), ("depth and dim", "2 blocks, dim 32")])
def test_an_experiment_gives_what_is_stored(group, name):
    stored, again = results()[group][name]["1"], run(group, name, seed=1)
    for what in ("accuracy", "training accuracy"):  # another machine rounds differently
        assert again[what] == pytest.approx(stored[what], abs=0.02)
    assert (again["parameters"], again["work"]) == (stored["parameters"], stored["work"])
