"""What changes a model: the training loop, fine-tuning, and experiments that change one thing at a time."""

from vit_walkthrough.train.loop import Fitted, History, evaluate, fit, init_model, schedule
