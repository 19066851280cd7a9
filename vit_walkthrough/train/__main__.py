"""Train one tiny ViT on ClutteredDigits and save it in 8 bits, with what it scores then.

python -m vit_walkthrough.train --patch-size 8 --heads 4
python -m vit_walkthrough.train --cue 0.95 --steps 300 --seed 1
"""

import argparse
from functools import partial
from pathlib import Path

from vit_walkthrough.data import ClutteredDigits, PlantedCue
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.train.loop import RECIPE, evaluate, fit
from vit_walkthrough.weights.checkpoint import TINY, load_checkpoint, save_checkpoint

SIZES = dict(patch_size=8, heads=4, dim=64, depth=4)
SETTINGS = dict(steps=2500, batch_size=128, learning_rate=4e-3, seed=0)
COUNT = 2000  # images that a score is measured on


def main(arguments: list[str] | None = None) -> None:
    """Train, save, then measure what was saved, because that is what a reader gets."""
    parser = argparse.ArgumentParser("python -m vit_walkthrough.train", description=__doc__.partition("\n")[0])
    for name, default in (SIZES | SETTINGS).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default}")
    parser.add_argument("--cue", type=float, help="plant a cue that names the class in this share of the images")
    parser.add_argument("--output", type=Path, help="a .safetensors file; by default among the bundled checkpoints")
    chosen = parser.parse_args(arguments)
    name = f"tiny_p{chosen.patch_size}_h{chosen.heads}" if chosen.cue is None else f"cue_s{chosen.seed}"
    output = chosen.output or TINY / f"{name}.safetensors"
    sizes, settings = ({name: getattr(chosen, name) for name in names} for names in (SIZES, SETTINGS))
    kind = ClutteredDigits if chosen.cue is None else partial(PlantedCue, share=chosen.cue)
    model, _ = fit(ViTConfig(48, **sizes, hidden=2 * chosen.dim, classes=10), kind("train"), **settings)
    save = partial(save_checkpoint, output, model, eight_bits=True)
    save()
    saved, _ = load_checkpoint(output)
    scores = {f"{split}_accuracy": evaluate(saved, kind(split), COUNT) for split in ("validation", "test")}
    save(recipe=RECIPE, **settings, **({} if chosen.cue is None else {"cue": chosen.cue}), **scores, images=COUNT)
    print(f"{output.name}: " + ", ".join(f"{name} {score:.1%}" for name, score in scores.items()))


if __name__ == "__main__":
    main()
