"""What onnxq uses of graphsurgeon, whose own sources carry types that pyright cannot follow.

`Node.doc_string`, `Node.metadata_props` and `Variable.value_info` are ours: see onnxq/ir/protobuf.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

class Tensor:
    name: str
    inputs: list[Node]
    outputs: list[Node]
    dtype: Any
    shape: Any
    def is_empty(self) -> bool: ...
    def to_constant(self, values: Any, data_location: int | None = ..., export_dtype: Any = ...) -> Constant: ...
    def to_variable(self, dtype: Any = ..., shape: Any = ...) -> Variable: ...
    def i(self, tensor_idx: int = ..., producer_idx: int = ...) -> Tensor: ...
    def o(self, consumer_idx: int = ..., tensor_idx: int = ...) -> Tensor: ...

class Variable(Tensor):
    type: Any
    value_info: Any
    def __init__(self, name: str, dtype: Any = ..., shape: Any = ..., type: str = ...) -> None: ...
    @staticmethod
    def empty() -> Variable: ...
    def copy(self) -> Variable: ...

class LazyValues:
    shape: Any
    dtype: Any
    nbytes: int
    def __init__(self, tensor: Any) -> None: ...
    def load(self) -> Any: ...

class Constant(Tensor):
    values: Any
    data_location: int | None
    export_dtype: Any
    _values: Any
    def __init__(self, name: str, values: Any, data_location: int | None = ..., export_dtype: Any = ...) -> None: ...
    def copy(self) -> Constant: ...

class Node:
    op: str
    name: str
    attrs: dict[str, Any]
    inputs: list[Any]
    outputs: list[Any]
    domain: str | None
    doc_string: str
    metadata_props: dict[str, str]
    def __init__(
        self,
        op: str,
        name: str | None = ...,
        attrs: Mapping[str, Any] | None = ...,
        inputs: Iterable[Any] | None = ...,
        outputs: Iterable[Any] | None = ...,
        domain: str | None = ...,
    ) -> None: ...
    def i(self, tensor_idx: int = ..., producer_idx: int = ...) -> Node: ...
    def o(self, consumer_idx: int = ..., tensor_idx: int = ...) -> Node: ...
    def subgraphs(self, recursive: bool = ...) -> Iterator[Graph]: ...
    def copy(self, inputs: Any = ..., outputs: Any = ..., tensor_map: Any = ...) -> Node: ...

class Graph:
    nodes: list[Node]
    inputs: list[Any]
    outputs: list[Any]
    name: str
    doc_string: str
    opset: int
    producer_name: str
    producer_version: str
    import_domains: Any
    ir_version: int | None
    functions: list[Any]
    def __init__(
        self,
        nodes: Sequence[Node] | None = ...,
        inputs: Sequence[Any] | None = ...,
        outputs: Sequence[Any] | None = ...,
        name: str | None = ...,
        doc_string: str | None = ...,
        opset: int | None = ...,
        import_domains: Any = ...,
        producer_name: str | None = ...,
        producer_version: str | None = ...,
        functions: Any = ...,
        ir_version: int | None = ...,
    ) -> None: ...
    def subgraphs(self, recursive: bool = ...) -> Iterator[Graph]: ...
    def tensors(self, check_duplicates: bool = ...) -> dict[str, Tensor]: ...
    def copy(self, tensor_map: Any = ...) -> Graph: ...
    def cleanup(
        self,
        remove_unused_node_outputs: bool = ...,
        recurse_subgraphs: bool = ...,
        remove_unused_graph_inputs: bool = ...,
        recurse_functions: bool = ...,
    ) -> Graph: ...
    def layer(self, inputs: Any = ..., outputs: Any = ..., *args: Any, **kwargs: Any) -> list[Tensor]: ...

def import_onnx(onnx_model: Any) -> Graph: ...
def export_onnx(graph: Graph, do_type_check: bool = ..., **kwargs: Any) -> Any: ...
