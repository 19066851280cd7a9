"""Train one of the bundled masked autoencoders anew, and save it in 8 bits.

python -m notebooks.experiments.pretrain --seed 0
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.train.masked import STEPS, init_masked, reconstruct
from vit_walkthrough.weights.checkpoint import TINY, in_eight_bits


def main(arguments: list[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser("python -m notebooks.experiments.pretrain", description=main.__doc__)
    for name, default in (("--seed", 0), ("--steps", STEPS)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--output", type=Path, help="by default among the bundled checkpoints")
    chosen = parser.parse_args(arguments)
    data = ClutteredDigits("train", seed=chosen.seed)
    model = init_masked(data, chosen.seed)
    last = reconstruct(model, data, steps=chosen.steps, seed=chosen.seed)[-100:]
    path = chosen.output or TINY / f"masked_s{chosen.seed}.safetensors"
    save_file(in_eight_bits(model.state_dict()), path)
    print(f"{path.name}: mean squared error on hidden patches {sum(last) / len(last):.5f}")


if __name__ == "__main__":
    main()
