"""Train one tiny ViT on ClutteredDigits and save it in 8 bits, with what it scores then.

python -m vit_walkthrough.train --patch-size 8 --heads 4
python -m vit_walkthrough.train --cue 0.95 --steps 300 --seed 1
torchrun --nproc-per-node=2 -m vit_walkthrough.train --patch-size 8 --heads 4

The state of the run is saved as it goes. After an interruption the same command continues it, with the same result.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

import torch

from vit_walkthrough.data import ClutteredDigits, PlantedCue
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.train import optimizers
from vit_walkthrough.train.loop import RECIPE, evaluate, init_model, schedule, set_rates, train_step
from vit_walkthrough.weights.checkpoint import TINY, load_checkpoint, save_checkpoint

SIZES = dict(patch_size=8, heads=4, dim=64, depth=4)
SETTINGS = dict(steps=2500, batch_size=128, learning_rate=4e-3, seed=0)
COUNT = 2000  # images that a score is measured on


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The settings that the command line chooses."""
    parser = argparse.ArgumentParser("python -m vit_walkthrough.train", description=__doc__.partition("\n")[0])
    for name, default in (SIZES | SETTINGS | dict(save_every=500)).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default}")
    parser.add_argument("--cue", type=float, help="plant a cue that names the class in this share of the images")
    parser.add_argument("--output", type=Path, help="a .safetensors file; by default among the bundled checkpoints")
    chosen = parser.parse_args(arguments)
    for name in ("steps", "batch_size", "save_every"):
        if getattr(chosen, name) < 1:
            parser.error(f"{name} is {getattr(chosen, name)}; it must be at least 1")
    name = f"tiny_p{chosen.patch_size}_h{chosen.heads}" if chosen.cue is None else f"cue_s{chosen.seed}"
    chosen.output = chosen.output or TINY / f"{name}.safetensors"
    if chosen.output.suffix != ".safetensors":
        parser.error(f"the output {chosen.output} does not end in .safetensors")
    return chosen


def save_run(accelerator, folder: Path, settings: dict, step: int) -> None:
    """Save the run as `folder`/`step`. The folder gets this name when it is complete; then the older one goes."""
    unfinished, older = folder / "unfinished", _saved_steps(folder)
    accelerator.save_state(unfinished)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (unfinished / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        unfinished.rename(folder / str(step))
        for before in older:
            shutil.rmtree(folder / str(before))


def resume_run(accelerator, folder: Path, settings: dict) -> int:
    """Load the run that was saved in `folder`. Returns the step at which it continues: 0 if nothing was saved. Raises:
    ValueError for the state of a run with other settings."""
    step = max(_saved_steps(folder), default=0)
    if step:
        saved = json.loads((folder / str(step) / "settings.json").read_text(encoding="utf-8"))
        if saved != settings:
            raise ValueError(f"{folder} is the state of another run ({saved}); delete it or choose another output")
        accelerator.load_state(folder / str(step))
    return step


def _saved_steps(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.glob("[0-9]*")]


def main(arguments: list[str] | None = None) -> None:
    """Train, on one process or several, then measure and save."""
    chosen = parse(arguments)
    from accelerate import Accelerator  # only here: the loop itself does without

    # Without cpu=True, Accelerate takes torchrun's processes on a machine without a GPU for as many separate runs.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    rank, processes = accelerator.process_index, accelerator.num_processes
    if chosen.batch_size % processes:
        raise ValueError(f"a batch of {chosen.batch_size} cannot be split among {processes} processes")

    sizes, settings = ({name: getattr(chosen, name) for name in names} for names in (SIZES, SETTINGS))
    kind = ClutteredDigits
    if chosen.cue is not None:
        kind, settings = partial(PlantedCue, share=chosen.cue), settings | dict(cue=chosen.cue)
    config, data = ViTConfig(48, **sizes, hidden=2 * chosen.dim, classes=10), kind("train")
    model = init_model(config, data, chosen.seed).train()
    model, optimizer = accelerator.prepare(model, optimizers.muon(model, chosen.learning_rate))
    state = chosen.output.with_suffix(".partial")

    for step in range(resume_run(accelerator, state, sizes | settings), chosen.steps):
        set_rates(optimizer, schedule(step, chosen.steps))
        images, labels, _ = data.sample(chosen.batch_size, draw=step)
        images, labels = (part[rank::processes].to(accelerator.device) for part in (images, labels))
        seed = (1_000_003 * chosen.seed + step) * processes + rank
        loss, accuracy = accelerator.reduce(train_step(model, optimizer, images, labels, seed=seed), "mean")
        if step < 10 or step % 100 == 0:
            accelerator.print(f"step {step}: loss {loss:.6f}, accuracy {accuracy:.1%}", flush=True)
        if (step + 1) % chosen.save_every == 0:
            save_run(accelerator, state, sizes | settings, step + 1)

    if accelerator.is_main_process:
        save = partial(save_checkpoint, chosen.output, accelerator.unwrap_model(model), eight_bits=True)
        save()
        saved, _ = load_checkpoint(chosen.output)  # what a reader gets is what is measured
        scores = {f"{split}_accuracy": evaluate(saved, kind(split), COUNT) for split in ("validation", "test")}
        save(recipe=RECIPE, **settings, **scores, images=COUNT)
        shutil.rmtree(state, ignore_errors=True)
        print(f"{chosen.output.name}: " + ", ".join(f"{name} {score:.1%}" for name, score in scores.items()))
    accelerator.end_training()


if __name__ == "__main__":
    main()
