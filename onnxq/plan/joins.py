"""What only a Concat reads is made in the encoding of its result: then it copies integers instead of rescaling them.

The values end in that encoding anyway; made in it at once, they are rounded once less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnxq.encoding import Affine
from onnxq.plan.facts import Facts
from onnxq.plan.select import Selection


def joined(facts: Facts, chosen: Selection, values: Mapping[str, Affine], fixed: Collection[str]) -> dict[str, Affine]:
    """New encodings, by tensor.

    Args:
        values: the encodings so far.
        fixed: tensors that must keep theirs: others share it, or an op has vanished into it.
    """
    found: dict[str, Affine] = {}
    for node in reversed(facts.graph.nodes):  # a Concat of Concats hands its encoding up
        if node.op != "Concat" or node.name not in chosen.integer:
            continue
        result = node.outputs[0].name
        if result not in values:  # an activation vanishes into the Concat: what it yields has an encoding, not this
            continue
        for tensor in node.inputs:
            maker, reader = facts.producer.get(tensor.name), facts.sole_consumer(tensor)
            if maker is None or reader is None or tensor.name in fixed:
                continue
            if reader.name == node.name and maker.name in chosen.integer:
                found[tensor.name] = found.get(result) or values[result]
    return found
