"""What changes a model: the training loop, fine-tuning, and what came after the paper."""

from vit_walkthrough.train.loop import Fitted, History, evaluate, fit, init_model, schedule
