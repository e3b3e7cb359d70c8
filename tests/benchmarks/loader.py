"""Tokens a second of the language model's loader, beside two others with the same records and the same batches.

    python -m tests.benchmarks.loader [--clips 400] [--seconds 20] [--workers 2]

Made-up token records at the published sizes (clips of 2 to 10 s), all 72 tasks, rows of 8,192 packed best-fit. Ours
reads ArrayRecord by index with Grain; the others stream the same bytes through a shuffle buffer: tf.data from TFRecord,
PyTorch's DataLoader from webdataset's tar files. All three decode a record, draw a task and make its ids by the same
functions, and pack and arrange batches in the main process. Counted are ids that are no padding.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infra.presets.language import PAPER
from infra.training.language_job import loader_config, model_config
from pipelines.dataset import Column, ShardReader, write_shard
from pipelines.records import decode_record, encode_record
from tasks.loader import ExampleMaker, HeadLayout, TokenRecords, arrange_packed, marked, pack, training_batches
from tasks.mixture import uniform_weights
from tasks.modalities import PAPER_CODEBOOKS, Vocabulary
from tasks.registry import TASKS
from tests.token_records import SMALL, ByteText, record

SHARD = 100  # records of a file
BUFFER = 200  # of the shuffles of those that stream


class Example:
    """A stored record -> an example; each process has a generator of its own."""

    def __init__(self, maker: ExampleMaker):
        self.maker, self.random = maker, None

    def __call__(self, data: bytes) -> dict[str, np.ndarray]:
        if self.random is None:
            self.random = np.random.default_rng(os.getpid())
        return marked(self.maker(decode_record(data), self.random))


def by_grain(folder: Path, maker: ExampleMaker, layout: HeadLayout) -> Iterator[dict]:
    column = Column([ShardReader(path) for path in sorted(folder.glob("*.array_record"))])
    return iter(training_batches(TokenRecords(column, range(len(column))), maker, layout, seed=0))


def by_tf_data(folder: Path, maker: ExampleMaker, layout: HeadLayout) -> Iterator[dict]:
    import tensorflow as tf

    make = Example(maker)
    fields = ("tokens", *(("wide",) if maker.config.wide else ()))

    def arrays(data):
        built = make(data.numpy())
        return tuple(built[name] for name in fields)

    def made(data):
        return tf.py_function(arrays, [data], (tf.int32,) * len(fields))

    files = tf.data.Dataset.from_tensor_slices([str(path) for path in sorted(folder.glob("*.tfrecord"))])
    records = files.shuffle(100).repeat().interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
    examples = records.shuffle(BUFFER).map(made, num_parallel_calls=tf.data.AUTOTUNE).prefetch(64)
    items = (dict(zip(fields, arrays, strict=True)) for arrays in examples.as_numpy_iterator())
    return packed(items, maker, layout)


def by_webdataset(folder: Path, maker: ExampleMaker, layout: HeadLayout) -> Iterator[dict]:
    import torch
    import webdataset

    make = Example(maker)
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    stream = webdataset.WebDataset(urls, resampled=True, shardshuffle=False, nodesplitter=None).shuffle(BUFFER)
    examples = stream.map(lambda sample: make(sample["record"]))
    loader = torch.utils.data.DataLoader(
        examples, batch_size=None, num_workers=maker.config.workers, collate_fn=lambda item: item, prefetch_factor=32
    )
    return packed(iter(loader), maker, layout)


def packed(examples: Iterator[dict], maker: ExampleMaker, layout: HeadLayout) -> Iterator[dict]:
    """Grain's packing of examples that another loader makes."""
    import grain

    class Given(grain.IterDataset):
        def __iter__(self):
            return GivenIterator()

    class GivenIterator(grain.DatasetIterator):
        def __next__(self):
            return {name: np.asarray(values) for name, values in next(examples).items()}

        def get_state(self):
            return {}

        def set_state(self, state):
            del state

    for batch in pack(Given(), maker.config):
        yield arrange_packed(batch, maker.config, maker.vocabulary, layout)


WAYS = {
    "grain, ArrayRecord": by_grain,
    "tf.data, TFRecord": by_tf_data,
    "DataLoader, webdataset": by_webdataset,
}


def write(folder: Path, clips: int) -> Vocabulary:
    """The same records in three formats."""
    import tarfile
    from io import BytesIO

    import tensorflow as tf

    codebooks = PAPER_CODEBOOKS | {"text": SMALL["text"]}
    frames = 4 * np.random.default_rng(0).integers(15, 75, clips) + 1
    for first in range(0, clips, SHARD):
        name = f"{first:06d}"
        records = [record(i, int(frames[i]), codebooks) for i in range(first, min(clips, first + SHARD))]
        write_shard(folder, f"{name}.array_record", records)
        with (
            tf.io.TFRecordWriter(str(folder / f"{name}.tfrecord")) as writer,
            tarfile.open(folder / f"{name}.tar", "w") as archive,
        ):
            for item in records:
                data = encode_record(item)
                writer.write(data)
                entry = tarfile.TarInfo(f"{item['clip_id']}.record")
                entry.size = len(data)
                archive.addfile(entry, BytesIO(data))
    return Vocabulary.of_codebooks(codebooks, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20, help="for each loader, after its first pool of rows")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary = write(folder, args.clips)
        preset = dataclasses.replace(PAPER, rows=4, bins=128, workers=args.workers)
        maker = ExampleMaker(TASKS, uniform_weights(TASKS), loader_config(preset), vocabulary, ByteText())
        layout = HeadLayout.of(vocabulary, model_config(preset, vocabulary))
        rates = {}
        for way, begin in WAYS.items():
            batches, used, slots = begin(folder, maker, layout), 0, 0
            for _ in range(preset.bins // preset.rows):  # the first pool: processes start, buffers fill
                next(batches)
            start = time.monotonic()
            # Whole pools only: a pool's rows come at once.
            while time.monotonic() - start < args.seconds or slots % (preset.bins * preset.length):
                segments = next(batches)["segments"]
                used, slots = used + int((segments > 0).sum()), slots + segments.size
            rates[way] = used / (time.monotonic() - start)
            padding = 100 * (1 - used / slots)
            print(f"{way}: {rates[way] / 1e6:.2f} million tokens/s, {padding:.2f} % padding", flush=True)
            if hasattr(batches, "close"):
                batches.close()
    ours = rates["grain, ArrayRecord"]
    for way, rate in rates.items():
        if rate != ours:
            print(f"grain, ArrayRecord is {ours / rate:.1f}x {way}")


if __name__ == "__main__":
    main()
