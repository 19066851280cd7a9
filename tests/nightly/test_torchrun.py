"""Several processes beside one, killed in the middle, and a batch that they cannot share."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train.test_main import SMALL, assert_same_checkpoint, losses
from vit_walkthrough.train.__main__ import main


def torchrun(*arguments: str, processes: int = 2) -> subprocess.Popen:
    """Start the command as the README gives it, without any setting of Accelerate's."""
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*start, "-m", "vit_walkthrough.train", *SMALL, *arguments]
    options = dict(cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=environment, **options)


def test_two_processes_have_the_losses_of_one_and_three_cannot_share_eight_images(tmp_path, capsys):
    main([*SMALL, "--steps", "12", "--output", str(tmp_path / "one.safetensors")])
    both = torchrun("--steps", "12", "--save-every", "5", "--output", str(tmp_path / "two.safetensors"))
    out, err = both.communicate(timeout=110)
    assert both.returncode == 0, err
    one, two = losses(capsys.readouterr().out), losses(out)
    assert len(one) == 10
    assert two == pytest.approx(one, abs=1e-4)
    assert max(one) - min(one) > 0.02  # something was learned, or there would be nothing to compare
    assert_same_checkpoint(tmp_path / "one.safetensors", tmp_path / "two.safetensors", atol=1e-3)
    three = torchrun("--steps", "2", "--output", str(tmp_path / "tiny.safetensors"), processes=3)
    _, err = three.communicate(timeout=240)
    assert three.returncode != 0
    assert "a batch of 8 cannot be split among 3 processes" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize("moment", [0.0, 0.3])
def test_a_run_of_two_processes_that_is_killed_continues_and_ends_the_same(tmp_path, moment):
    arguments = ["--steps", "400", "--save-every", "20", "--output"]
    whole = torchrun(*arguments, str(tmp_path / "whole.safetensors"))
    whole.communicate(timeout=240)
    assert whole.returncode == 0

    state, killed = tmp_path / "tiny.partial", torchrun(*arguments, str(tmp_path / "tiny.safetensors"))
    until = time.monotonic() + 120
    while not list(state.glob("[0-9]*")) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(moment)
    killed.send_signal(signal.SIGTERM)  # torchrun passes it on to its processes
    killed.communicate(timeout=60)
    assert killed.returncode != 0
    [saved] = [path for path in state.iterdir() if path.name.isdigit()]
    assert 0 < int(saved.name) < 400

    resumed = torchrun(*arguments, str(tmp_path / "tiny.safetensors"))
    out, err = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, err
    assert "step 0:" not in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.safetensors", "whole.safetensors"]
    assert_same_checkpoint(tmp_path / "tiny.safetensors", tmp_path / "whole.safetensors")
