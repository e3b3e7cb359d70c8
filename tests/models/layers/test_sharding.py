import pytest
from jax.sharding import PartitionSpec

from models.language_model import parameter_axes
from models.layers.sharding import RULES, partition, partition_of
from tests.language import language_config


class Eight:
    shape = {"fsdp": 4, "tensor": 2}


def test_every_parameter_has_a_place_and_large_ones_are_split():
    for narrow in (16, 32):
        axes = parameter_axes(language_config(image_width=narrow))
        specs = {name: partition(a) for arrays in axes.values() for name, a in arrays.items()}
        assert specs["text"] == PartitionSpec("tensor", "fsdp")
        assert specs["gate"] == PartitionSpec(None, "fsdp", "tensor")
        assert specs["out"] == PartitionSpec(None, "tensor", None, "fsdp")


def test_a_collision_is_named():
    with pytest.raises(ValueError, match="batch and width .* 'fsdp'"):
        partition(("batch", "length", "width"))
    with pytest.raises(ValueError, match="heads and hidden .* 'tensor'"):
        partition(("heads", "hidden"))
    assert partition(("batch", "length", "features")) == PartitionSpec("fsdp", None, None)


def test_an_unknown_axis_is_named():
    with pytest.raises(ValueError, match="'smell'"):
        partition(("batch", "smell"))
    with pytest.raises(ValueError, match="'width'"):
        partition(("width",), {name: RULES[name] for name in ("batch",)})


def test_what_the_mesh_does_not_divide_stays_whole():
    assert partition_of(Eight, (8, 6), ("width", "hidden")) == PartitionSpec("fsdp", "tensor")
    assert partition_of(Eight, (8, 7), ("width", "hidden")) == PartitionSpec("fsdp", None)
    assert partition_of(Eight, (6, 6), ("width", "hidden")) == PartitionSpec(None, "tensor")
