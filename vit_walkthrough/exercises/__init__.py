"""check_*: the reader's own function, tried beside a slow version that is surely right; and what is wrong with it."""

from vit_walkthrough.exercises import attention, encoder, explain, since, tokens, training

for file in (tokens, attention, encoder, training, explain, since):
    globals().update({name: check for name, check in vars(file).items() if name.startswith("check_")})
