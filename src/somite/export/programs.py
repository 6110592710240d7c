"""Programs as files: ONNX, which onnxruntime runs in many languages and browsers, and torch's own .pt2."""

import json
import re
from importlib import import_module
from pathlib import Path
from string import Template
from typing import Any

import torch

from ..errors import InputError
from ..files import replacing, write_text
from ..pipeline import Run
from .program import AXES, OUTPUTS, Inputs, Program, check, described, program, written_down

HERE = Path(__file__).parent
NEEDED = ("onnx", "onnxscript", "onnxruntime")
DESCRIBED = "somite.json"  # within a .pt2


def write_onnx(run: Run, path: Path) -> dict[str, Any]:
    """Returns what the file says of itself."""
    require()
    import onnx
    from onnxruntime import InferenceSession, SessionOptions  # pyright: ignore[reportAttributeAccessIssue]

    made, told = program(run), described(run)
    with written_down(made.run):
        exported = torch.onnx.export(made.traced, (), kwargs=made.inputs, output_names=list(OUTPUTS), dynamo=True, verbose=False)
    assert exported is not None
    model = exported.model_proto
    named(model, made)
    untraced(model)
    told = {**told, "inputs": list(made.inputs)}
    onnx.helper.set_model_props(model, {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()})
    model.producer_name, model.producer_version, model.doc_string = "somite", told["somite"], told["notice"]
    with replacing(path) as temporary:
        onnx.save(model, temporary)
        options = SessionOptions()
        options.log_severity_level = 3
        session = InferenceSession(temporary, options)

        def answer(inputs: Inputs) -> dict[str, Any]:
            return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {name: part.numpy() for name, part in inputs.items()}), strict=True))

        return {**told, "difference": check(made, answer, "its ONNX file")}


def write_torch(run: Run, path: Path) -> dict[str, Any]:
    made = program(run)
    told = {**described(run), "inputs": list(made.inputs)}
    with replacing(path) as temporary:
        for node in made.traced.graph.nodes:
            for name in ("stack_trace", "nn_module_stack", "source_fn_stack"):  # which name files of this machine
                node.meta.pop(name, None)
        torch.export.save(made.traced, temporary, extra_files={DESCRIBED: json.dumps(told)})
        opened = torch.export.load(temporary).module()

        def answer(inputs: Inputs) -> dict[str, Any]:
            with torch.no_grad():
                return dict(zip(OUTPUTS, opened(**inputs), strict=True))

        return {**told, "difference": check(made, answer, "its .pt2 file")}


def named(model: Any, made: Program) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Axes of inputs and outputs by their names, in place of torch's numbers."""
    names: dict[str, str] = {}
    for given in model.graph.input:
        for dim, name in zip(given.type.tensor_type.shape.dim, AXES[given.name], strict=True):
            if dim.dim_param:
                names.setdefault(dim.dim_param, name)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), dim.dim_param)


def untraced(model: Any) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Without torch's notes of which lines of which files each step comes from."""
    graph, inner = model.graph, (node for function in model.functions for node in function.node)
    for part in (graph, *graph.node, *inner, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def require() -> None:
    """Raises InputError where what ONNX files need is not installed."""
    for name in NEEDED:
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(f"ONNX files need the package {name}: pip install 'somite[export]'") from error


def write_onnx_folder(run: Run, out: Path) -> None:
    write_readme(out, "model.onnx", "use_onnx.py.template", write_onnx(run, out / "model.onnx"))


def write_torch_folder(run: Run, out: Path) -> None:
    write_readme(out, "model.pt2", "use_torch.py.template", write_torch(run, out / "model.pt2"))


def write_readme(folder: Path, file: str, code: str, told: dict[str, Any]) -> None:
    told = {**told, "file": file, "code": HERE.joinpath(code).read_text(encoding="utf-8").strip()}
    unsaid = ("notice", "difference", "file", "code")
    told["rows"] = "\n".join(f"| {name} | `{json.dumps(value)}` |" for name, value in told.items() if name not in unsaid)
    write_text(folder / "README.md", Template(HERE.joinpath("program.md.template").read_text(encoding="utf-8")).substitute(told))
