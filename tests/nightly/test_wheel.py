"""A wheel, unpacked elsewhere, has the photographs inside the package, and its panel answers.

pip fetches the build backend, so this needs a network."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from vit_walkthrough.data import PHOTOS, photo

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from vit_walkthrough import data
assert data.__file__.startswith(sys.argv[1]), data.__file__
print(*(data.photo(name, 32).double().mean().item() for name in data.PHOTOS))
from vit_walkthrough.widgets import explore_vit
panel = explore_vit()
for name in data.PHOTOS:
    panel.controls["chosen"].kind.value = name
    print(name, panel.text)
"""


def test_a_wheel_has_the_photographs_and_its_panel_shows_them(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-q", "-w", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if "/photos/" in name}
        archive.extractall(tmp_path / "unpacked")
    assert inside == {f"vit_walkthrough/photos/{file}" for file in ("CREDITS.md", *(f"{name}.jpg" for name in PHOTOS))}
    unpacked = str(tmp_path / "unpacked") + os.sep
    ran = subprocess.run([sys.executable, "-I", "-c", SCRIPT, unpacked], check=True, cwd=tmp_path, capture_output=True)
    means, *said = ran.stdout.decode().splitlines()
    assert [float(mean) for mean in means.split()] == [photo(name, 32).double().mean().item() for name in PHOTOS]
    assert len(said) == len(PHOTOS)
    for line, name in zip(said, PHOTOS, strict=True):
        assert re.match(rf"{name} .* of the {name} it says \d \(\d", line, flags=re.IGNORECASE), line
