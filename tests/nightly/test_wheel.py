"""A wheel, unpacked elsewhere, has the photographs inside the package, and its panel answers.

pip fetches the build backend, so this needs a network."""

import subprocess
import sys
import zipfile
from pathlib import Path

from vit_walkthrough.data import PHOTOS

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from vit_walkthrough import data
from vit_walkthrough.widgets import explore_vit
assert data.__file__.startswith(sys.argv[1]), data.__file__
panel = explore_vit()
for name in data.PHOTOS:
    panel.controls["chosen"].kind.value = name
    print(panel.text)
"""


def test_a_wheel_has_the_photographs_and_its_panel_shows_them(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", str(Path(__file__).parents[2]), "--no-deps", "-w", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    command = [sys.executable, "-I", "-c", SCRIPT, str(tmp_path / "unpacked")]
    said = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout.splitlines()
    for line, name in zip(said, PHOTOS, strict=True):
        assert f"of the {name} it says" in line.lower()
    photos = tmp_path / "unpacked/vit_walkthrough/photos"
    assert {path.name for path in photos.iterdir()} == {"CREDITS.md", *(f"{name}.jpg" for name in PHOTOS)}
