import halonet

PUBLIC = {
    "HALONETS",
    "HaloAttention",
    "HaloNet",
    "HaloNetConfig",
    "accelerate",
    "accelerated_layers",
    "attention_weights",
    "create_model",
    "fuse_batch_norm",
    "halo_attention",
    "load",
    "restore",
    "use_backend",
}


def test_public_names():
    packages = "ops layers models data visual recipes engine classification detection benchmark demo export"
    files = "training loading complaints console errors installation interrupts rules schemas"
    modules = {*packages.split(), *files.split()}
    modules.add("jaxtyping")  # the shape-check hook of the tests
    assert {name for name in vars(halonet) if not name.startswith("_")} - modules == PUBLIC
