"""A plan so small that tests can afford to run it."""

from pathlib import Path

from halonet.benchmark.claims.plan import Plan, read_plan

TEXT = """
variant: CIFAR-10
bases:
  halonet:
    seeds: 3
    recipe:
      description: a test
      reproduces: nothing
      model:
        name: micro32
        num_classes: 10
        overrides: {depths: [1], num_heads: [1], width_ratio: 0.125, stem_width: 8}
      data:
        source: cifar10
        augmentation: {image_size: 32, train_crop: none}
      optimizer: {learning_rate: 0.05, batch_size: 30}
      schedule: {epochs: 2}
      engine: {accelerator: cpu, log_every_steps: 1}
  resnet:
    seeds: 3
    base: halonet
    set: {model.overrides.convolution_stages: [1]}
claims:
  family:
    title: HaloNet is more accurate
    source: Table 3
    comparisons:
      - {row: halonet, base: resnet, effect: higher, paper: "+1.0"}
  windows:
    title: A halo is needed
    source: Fig. 7
    rows:
      no_halo: {base: halonet, seeds: 3, set: {model.overrides.halo_size: 0}, effect: lower, paper: "worse", minutes: 2}
      small: {base: no_halo, seeds: 4, set: {model.overrides.block_size: 2}, effect: none, paper: "the same"}
    contrasts:
      both: {of: [halonet, no_halo, resnet, small], effect: higher, paper: "more"}
absent:
  - COCO
"""


def write_plan(folder: Path, text: str = TEXT) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return read_plan(path)
