"""Records as bytes: ``tf.train.Example`` (what TFDS, seqio and MaxText read), written and read without TensorFlow.

Importing TensorFlow would cost a loader worker seconds and hundreds of megabytes.

An array is one bytes feature with ``/dtype`` and ``/shape`` features beside it.
"""

import functools
from collections.abc import Mapping

import numpy as np

Value = np.ndarray | bytes | str | int | float
Record = dict[str, Value]


@functools.lru_cache(maxsize=1)
def _example_class():
    """Builds tf.train.Example's message class from its public field numbers."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="archon/example.proto", package="archon.example", syntax="proto3")

    def message(name: str, parent=None):
        out = (parent.nested_type if parent is not None else file.message_type).add()
        out.name = name
        return out

    def add(owner, name: str, number: int, kind: int, repeated: bool = False, type_name: str = "", oneof: bool = False):
        out = owner.field.add(name=name, number=number, type=kind)
        out.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        if type_name:
            out.type_name = f".archon.example.{type_name}"
        if oneof:
            out.oneof_index = 0
        if repeated and kind in (field.TYPE_FLOAT, field.TYPE_INT64):
            out.options.packed = True

    add(message("BytesList"), "value", 1, field.TYPE_BYTES, repeated=True)
    add(message("FloatList"), "value", 1, field.TYPE_FLOAT, repeated=True)
    add(message("Int64List"), "value", 1, field.TYPE_INT64, repeated=True)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(("BytesList", "FloatList", "Int64List"), start=1):
        name = kind.replace("List", "_list").lower()
        add(feature, name, number, field.TYPE_MESSAGE, type_name=kind, oneof=True)
    features = message("Features")
    entry = message("FeatureEntry", features)
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING)
    add(entry, "value", 2, field.TYPE_MESSAGE, type_name="Feature")
    add(features, "feature", 1, field.TYPE_MESSAGE, repeated=True, type_name="Features.FeatureEntry")
    add(message("Example"), "features", 1, field.TYPE_MESSAGE, type_name="Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("archon.example.Example"))


def encode_record(record: Mapping[str, Value]) -> bytes:
    """Serialises a record as tf.train.Example.

    The same record always gives the same bytes. Floats are kept as float32.
    """
    example = _example_class()()
    feature = example.features.feature
    for name, value in record.items():
        if isinstance(value, np.ndarray):
            if value.dtype.kind in "OV":  # bytes and dtype do not say what is in it
                raise TypeError(f"field {name}: an array of {value.dtype} is not one of numbers or text")
            feature[name].bytes_list.value.append(np.ascontiguousarray(value).tobytes())
            feature[f"{name}/dtype"].bytes_list.value.append(value.dtype.str.encode())
            feature[f"{name}/shape"].int64_list.value.extend(value.shape)
        elif isinstance(value, str):
            feature[name].bytes_list.value.append(value.encode())
            feature[f"{name}/dtype"].bytes_list.value.append(b"str")
        elif isinstance(value, bytes):
            feature[name].bytes_list.value.append(value)
        elif isinstance(value, bool | int | np.integer):
            feature[name].int64_list.value.append(int(value))
        elif isinstance(value, float | np.floating):
            feature[name].float_list.value.append(float(value))
        else:
            raise TypeError(f"field {name}: {type(value).__name__} is not one of ndarray, str, bytes, int, float")
    return example.SerializeToString(deterministic=True)


def decode_record(data: bytes) -> Record:
    """Reads what encode_record wrote. Arrays are read-only views of the record's bytes."""
    feature = _example_class().FromString(data).features.feature
    record: Record = {}
    for name in feature:
        if name.endswith(("/dtype", "/shape")):
            continue
        value = feature[name]
        kind = value.WhichOneof("kind")
        if kind == "int64_list":
            record[name] = int(value.int64_list.value[0])
        elif kind == "float_list":
            record[name] = float(value.float_list.value[0])
        else:
            raw = value.bytes_list.value[0]
            dtype = feature[f"{name}/dtype"].bytes_list.value[0] if f"{name}/dtype" in feature else b""
            if dtype == b"str":
                record[name] = raw.decode()
            elif dtype:
                shape = tuple(feature[f"{name}/shape"].int64_list.value)
                record[name] = np.frombuffer(raw, np.dtype(dtype.decode())).reshape(shape)
            else:
                record[name] = raw
    return record
