"""The control panel: what a trained ViT says of any picture, and where it looks."""

from vit_walkthrough.living import live
from vit_walkthrough.look.explain import mass_on_object
from vit_walkthrough.widgets.models import DIGITS, a, answer, said, sizes_of_tiny, tiny
from vit_walkthrough.widgets.panel import Panel, counted
from vit_walkthrough.widgets.pictures import PictureChooser, picture


def explore_vit() -> Panel:
    """The control panel: what a trained ViT says of an unseen digit, of a photograph or of the reader's own picture,
    and where it looks. Each patch size and number of heads is a model of its own, trained alike."""

    def show(chosen, patch_size, heads):
        (model, scores), (image, label, mask) = tiny(patch_size, heads), picture(chosen)
        trace = answer(model, image)
        probabilities, weights = trace["output"][0].softmax(-1), trace.attention[-1, :, :, 0, 1:].mean(1)
        if mask is None:
            seen = "this picture" if chosen[0] == "own" else f"the {chosen[0]}"
            what, where = f"This ViT knows digits and nothing else. Of {seen} it says", ""
        else:
            what = f"This is {a(label)}. The model says"
            mass, area = mass_on_object(weights, mask).item(), mask.float().mean()
            where = f" Its square, {area:.0%} of the picture, gets {mass:.0%} of the attention to patches."
        return live("attention", trace, image[0], classes=DIGITS), (
            f"{what} {said(probabilities)}.{where} With patches of {patch_size} pixels and {counted(heads, 'head')} "
            f"this ViT names {scores['test_accuracy']:.1%} of {scores['images']:,} unseen pictures right."
        )

    return Panel(
        show,
        chosen=PictureChooser(),
        **sizes_of_tiny(),
        groups={"chosen": "Picture", "patch_size": "Model"},
        hint="Try another digit, or write one of your own, about half as high as the picture. Then point at a patch. "
        "Notice how soon the model looks at the digit: go through the blocks one by one.",
    )
