"""Traces networks by torch.fx in a process of its own: the run-time checks of our tests refuse proxies as tensors."""

import json

import timm
import torch
from timm.utils import AttentionExtract
from torchvision.models.feature_extraction import create_feature_extractor

import halonet


def main() -> None:
    torch.manual_seed(0)
    results = {}
    for row, changes in {
        "mini32": {},
        "tiny28": {"position": "absolute", "squeeze_excitation_stages": (1, 2), "num_classes": 10},
        "micro32": {"stem": "patch2x2", "downsampling": "pool"},
    }.items():
        model = halonet.create_model(row, **changes)
        images = torch.randn(2, 3, 40, 32)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # the last one of a block starts at zero, which hides the rest
                torch.nn.init.uniform_(module.weight, 0.5, 1.0)
        model(images)  # in training mode, for running statistics that are not those of the start
        traced = torch.fx.symbolic_trace(model)
        expected, found = (network(images).square().sum() for network in (model, traced))
        results[f"{row} loss"] = torch.allclose(expected, found, rtol=1e-4)
        found.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        expected.backward()
        results[f"{row} gradients"] = all(
            torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-3 * parameter.grad.abs().max())
            for parameter, gradient in zip(model.parameters(), gradients, strict=True)
        )
        model.eval()
        with torch.inference_mode():
            features = model.forward_intermediates(images, indices=[1], intermediates_only=True)[0]
            torchvisions = create_feature_extractor(model, {"stages.0": "stage"})(images)["stage"]
            names = [name for name, module in model.named_modules() if isinstance(module, halonet.HaloAttention)]
            by_hooks = AttentionExtract(model, names, method="hook")(images)
            by_graph = AttentionExtract(model, [f"{name}.permute" for name in names], method="fx")(images)
            fx = timm.create_model(f"halonet_paper_{row}", features_only=True, feature_cls="fx", **changes).eval()
            fx.graph_module.load_state_dict(model.state_dict(), strict=False)
            results[f"{row} timm"] = torch.allclose(fx(images)[1], features, atol=1e-5)
        results[f"{row} torchvision"] = torch.allclose(torchvisions, features, atol=1e-5)
        pairs = zip(by_hooks.values(), by_graph.values(), strict=True)
        results[f"{row} attention"] = [torch.allclose(*pair, atol=1e-5) for pair in pairs] == [True] * len(names)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
