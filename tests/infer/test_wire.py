"""What a model file reaches for is seen before it is run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from groundglass.errors import ModelError
from groundglass.infer.model import PINNED, weights_folder
from groundglass.infer.network import read_onnx
from groundglass.infer.wire import features_of, reaches_for, with_metadata, with_output


def external() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    return tensor


def model(nodes: list[onnx.NodeProto], tensors: list[TensorProto]) -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy")
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors)).SerializeToString()


def branch() -> onnx.GraphProto:
    node = helper.make_node("Constant", [], ["y"], value=external())
    return helper.make_graph([node], "inner", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])])


@pytest.mark.parametrize(
    ("content", "reached"),
    [
        (model([helper.make_node("Add", ["x", "w"], ["y"])], [external()]), "weights in another file"),
        (model([helper.make_node("If", ["x"], ["y"], then_branch=branch())], []), "weights in another file"),
        (model([helper.make_node("Read", ["x"], ["y"], domain="evil")], []), "operators of the domain 'evil'"),
    ],
    ids=["initializer", "constant in a branch", "foreign operator"],
)
def test_a_file_that_reaches_out_is_refused(content: bytes, reached: str, tmp_path: Path) -> None:
    assert reaches_for(content) == reached
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="one file with standard operators"):
        read_onnx(tmp_path / "m.onnx")


def test_words_are_no_weights() -> None:
    node = helper.make_node("Identity", ["x"], ["y"], doc_string="EXTERNAL external_data secret.bin")
    assert reaches_for(model([node], [])) is None


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_bundled_files_reach_for_nothing(name: str) -> None:
    assert reaches_for((weights_folder() / f"{name}.onnx").read_bytes()) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_or_refused(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        reached = reaches_for(content)
        assert reached is None or reached.startswith(("weights in", "operators of"))


def test_metadata_are_replaced_and_nothing_else() -> None:
    import json

    made = onnx.load_model_from_string(model([helper.make_node("Relu", ["x"], ["y"])], []))
    helper.set_model_props(made, {"card": "old", "other": "kept"})
    changed = onnx.load_model_from_string(with_metadata(made.SerializeToString(), "card", {"b": 1, "a": "é" * 200}))
    props = {p.key: p.value for p in changed.metadata_props}
    assert json.loads(props.pop("card")) == {"a": "é" * 200, "b": 1}
    assert props == {"other": "kept"}
    del changed.metadata_props[:], made.metadata_props[:]
    assert changed == made


def test_a_tensor_inside_becomes_an_output() -> None:
    content = model([helper.make_node("Relu", ["x"], ["inner"]), helper.make_node("Neg", ["inner"], ["y"])], [])
    assert features_of(content, "y") == "inner"
    assert features_of(content, "nothing") is None
    w = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["cell"]),
        helper.make_node("Conv", ["a", "w"], ["elsewhere"]),
        helper.make_node("Neg", ["cell"], ["minus"]),
        helper.make_node("Concat", ["minus", "cell"], ["y"], axis=0),
    ]
    assert features_of(model(nodes, [w]), "y") == "a"
    opened = onnx.load_model_from_string(with_output(content, "inner"))
    assert [o.name for o in opened.graph.output] == ["y", "inner"]
    assert len(opened.graph.node) == 2
