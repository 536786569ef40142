"""Write docs/recipes.md from the packaged recipes, so that the table cannot say anything else than the files.

python tools/make_recipe_table.py            # rewrites the page
python tools/make_recipe_table.py --check    # says whether it is up to date, and changes nothing
"""

import sys
from collections.abc import Sequence

from pages import ROOT, markdown_table, write_pages

from halonet.detection import DetectionRecipe
from halonet.training import Recipe, list_recipes, resolve

PAGE = ROOT / "docs/recipes.md"

SECTIONS = {
    "": "Ours",
    "cifar10": "CIFAR-10 (ours)",
    "imagenet": "ImageNet: the family, and what it is compared with",
    "imagenet/components": "ImageNet: the component study",
    "imagenet/scaling": "ImageNet: the scaling study",
    "imagenet/hybrids": "ImageNet: the hybrids of H7",
    "imagenet/windows": "ImageNet: windows and halos",
    "imagenet21k": "ImageNet-21k: pre-training",
    "detection_pretraining": "ImageNet: pre-training of the detection backbones",
    "detection": "COCO and nuclei: Mask R-CNN",
}

INTRODUCTION = """\
# Recipes

A recipe is one experiment. `halonet train NAME` runs it, any of its values can be overridden (`--schedule.epochs 10`),
and `halonet recipes NAME` prints it in full. The files lie in `src/halonet/recipes/`; what the paper does not state is
marked "ours" in them.

A file holds one recipe, or the recipes of one study under `variations:`, so that a study is read on one page:
`imagenet/windows/b4_h1` is the variation `b4_h1` in `imagenet/windows.yaml`. Whatever is beside `variations:` applies
to all of them. A recipe with a `base:` is that other recipe except for the values that it states; a recipe of your own
can have one too, see [training](training.md#recipes-and-overrides).

The recipes for ImageNet take `data/imagenet`, a folder with the folders `train` and `val`, each with one folder per
class; `--data.source FOLDER` names another. They train on all of `train`, choose nothing, and measure `top1` once, on
`val`. Beyond what they state they use random crops of 8 to 100 % of the image, flips, bicubic resampling and ImageNet's
mean and deviation: ours too, for the paper does not state them.

The recipes for COCO are run by `halonet detect train NAME`. They take `data/coco`, a folder with the folders
`annotations`, `train2017` and `val2017` as COCO gives them, and begin with the backbone that the recipe of the same
name under `detection_pretraining` trains: run that first, or name other weights with `--init`.

`accumulate` says how many parts a batch of 4096 is computed in, on one device; on eight, divide it by eight and add
`--engine.devices 8`. Batch norm sees one part at a time.
"""


def make_page(recipes: Sequence[Recipe | DetectionRecipe]) -> str:
    folders = {recipe.name.rpartition("/")[0] for recipe in recipes}
    if unknown := folders - set(SECTIONS):
        raise ValueError(f"no heading for the recipes in {', '.join(sorted(unknown))}: add one to SECTIONS")
    parts = [INTRODUCTION]
    for folder, heading in SECTIONS.items():
        rows = [
            [f"`{recipe.name}`", recipe.reproduces, recipe.provenance.result]
            for recipe in recipes
            if recipe.name.rpartition("/")[0] == folder
        ]
        parts.append(f"## {heading}\n\n{markdown_table(['recipe', 'reproduces', 'result here'], rows, words=3)}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(write_pages(__doc__, lambda: {PAGE: make_page([resolve(name) for name in list_recipes()])}))
