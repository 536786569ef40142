"""Exported programs as ONNX models."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

OPSET = 18  # the oldest whose Resize and Pad name their axes


def translate(
    program: ExportedProgram,
    axes: Mapping[str, Mapping[int, str]],
    outputs: Sequence[str],
    translations: Mapping[Any, Any] | None = None,
) -> Any:
    """Translate a program into an `onnx_ir.Model`.

    Args:
        program: With dynamic sizes.
        axes: Names for the inputs, and for their dynamic axes.
        outputs: Names for the outputs.
        translations: A `custom_translation_table` of `torch.onnx.export`.
    """
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    translated = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=list(axes),
        output_names=outputs,
        opset_version=OPSET,
        custom_translation_table=dict(translations or {}),
        # It compares every node with every pattern; what is needed of it follows.
        optimize=False,
    )
    assert translated is not None
    model = translated.model
    common.CommonSubexpressionEliminationPass()(model)
    fold_constants(model)
    common.RemoveUnusedNodesPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    _name_axes(model, axes)
    _forget_the_trace(model)
    return model


def set_metadata(model: Any, metadata: Mapping[str, Any]) -> None:
    """Write metadata into an `onnx_ir.Model`, see `as_texts`."""
    model.metadata_props.update(as_texts(metadata))


def as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Write metadata as texts: texts as they are, other values as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}


def open_session(source: str | bytes, threads: int = 0) -> Any:
    """Open a model in onnxruntime, on the CPU and without its warnings; 0 threads are as many as it takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])


def _name_axes(model: Any, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Name the symbols in the shapes of inputs and outputs by the axes of the inputs."""
    from onnx_ir import Shape

    symbols = {
        str(value.shape[axis].value): name for value in model.graph.inputs for axis, name in axes[value.name].items()
    }
    symbol = re.compile("|".join(rf"\b{re.escape(each)}\b" for each in symbols))
    for value in (*model.graph.inputs, *model.graph.outputs):
        sizes = (each if isinstance(each, int) else str(each.value) for each in value.shape)
        value.shape = Shape(
            [each if isinstance(each, int) else symbol.sub(lambda found: symbols[found[0]], each) for each in sizes]
        )


def _forget_the_trace(model: Any) -> None:
    """Remove source locations of nodes, which have paths of this machine, and shapes of inner values."""
    model.graph.metadata_props.clear()
    kept = {id(value) for value in model.graph.outputs}
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) not in kept:
                value.shape = value.type = None
