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
    modules = {"ops", "layers", "models", "data", "visual", "recipes", "engine", "classification", "detection"}
    modules |= {
        "export",
        "training",
        "benchmark",
        "complaints",
        "console",
        "errors",
        "installation",
        "interrupts",
        "rules",
    }
    modules.add("schemas")
    modules.add("jaxtyping")  # the shape-check hook of the tests
    assert {name for name in vars(halonet) if not name.startswith("_")} - modules == PUBLIC
