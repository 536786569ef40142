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
    "restore",
    "use_backend",
}


def test_public_names():
    modules = {"data", "errors", "layers", "models", "ops", "training", "visual", "recipes", "benchmark"}
    modules |= {"complaints", "console", "deploy", "detection", "installation", "interrupts", "rules", "schemas"}
    modules.add("jaxtyping")  # the shape-check hook of the tests
    assert {name for name in vars(halonet) if not name.startswith("_")} - modules == PUBLIC
