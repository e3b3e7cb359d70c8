"""The job `archon tokenize`: annotation columns become token records, which the language model's loader reads.

One record a clip: the codes of every modality on the shared time grid, level first, plus the two texts as text (their
pieces belong to the language model's vocabulary). A clip that lacks a column keeps its row, with the reason in it.
"""

import argparse
import functools
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.signals import CROP_SIZE, SEMANTIC_SIZE, latent_steps, speech_steps
from pipelines import storage
from pipelines.beam import (
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    add_runner_arguments,
    fingerprint,
    marker_files,
    run_shards,
    runner_options,
)
from pipelines.dataset import (
    ANNOTATIONS,
    Dataset,
    Record,
    ShardReader,
    error_record,
    heldout_sources,
    shard_name,
    update_manifest,
    write_shard,
)

JOB, STEP = "tokenize", "tokens"
VERSION = 1  # of what a token record is made of: raise it when the same columns and tokenizers give other tokens
TOKENIZERS = ("text", "speech", "image", "semantic", "shape", "expression", "pose")


@dataclass(frozen=True)
class TokenizeConfig:
    """``tokenizers`` is the folder that holds one trained tokenizer a folder: text, speech, image ..."""

    dataset: str
    tokenizers: str


@functools.lru_cache(maxsize=2)
def load_all(directory: str) -> dict:
    """Tokenizer name -> tokenizer, loaded once a process."""
    from models.tokenizers import load_tokenizer

    with storage.local_folder(directory) as folder:
        return {name: load_tokenizer(Path(folder, name)) for name in TOKENIZERS}


def tokenize_clip(clip: Record, columns: Mapping[str, Record], tokenizers: Mapping) -> Record:
    """Encodes one clip: its record and its annotation records -> the fields of a token record (pipelines/dataset.py).

    Raises:
        ValueError: a code array is not on the clip's time grid.
    """
    frames = clip["num_frames"]
    step = CROP_SIZE // SEMANTIC_SIZE
    signals = {
        "speech": columns["speech"]["audio"].astype(np.float32) / 32_768,
        "image": columns["image"]["image"],
        "semantic": columns["semantics"]["labels"][:, ::step, ::step],
        "shape": columns["shape"]["shape"],
        "expression": columns["expression"]["expression"],
        "pose": columns["pose"]["pose"],
    }
    codes = {name: np.asarray(tokenizers[name].encode(signal)) for name, signal in signals.items()}
    steps = {"speech": speech_steps(frames), "expression": latent_steps(frames), "pose": latent_steps(frames)}
    for name, count in steps.items():
        if codes[name].shape[-1] != count:
            raise ValueError(f"{name}: {codes[name].shape[-1]} code steps for {frames} frames, expected {count}")
    if len(codes["semantic"]) != latent_steps(frames):
        raise ValueError(f"semantics: {len(codes['semantic'])} code steps, expected {latent_steps(frames)}")
    return {
        "num_frames": frames,
        "image": codes["image"].astype(np.int32),
        "semantics": codes["semantic"].astype(np.int16),
        **{name: codes[name].astype(np.int16) for name in ("speech", "shape", "expression", "pose")},
        "description": columns["description"]["description"],
        "script": columns["script"]["text"],
    }


@dataclass(frozen=True)
class TokenizeShard:
    """The step: reads a shard's columns, writes its token records."""

    config: TokenizeConfig
    inputs: tuple[tuple[str, tuple[str, ...]], ...]
    heldout: tuple[str, ...]

    def __call__(self, task: ShardTask) -> StepResult:
        tokenizers = load_all(self.config.tokenizers)
        hashes = {name: tokenizer.weights_sha256 for name, tokenizer in tokenizers.items()}
        readers = {column: ShardReader(paths[task.index]) for column, paths in self.inputs}
        rows, errors = [], []
        for k in range(len(readers["clips"])):
            row = self._row({column: reader[k] for column, reader in readers.items()}, tokenizers, hashes)
            rows.append(row)
            if row["error"]:
                errors.append(f"{row['clip_id']}: {row['error']}")
        info = write_shard(self.config.dataset, shard_name(STEP, task.index, task.count), rows)
        return StepResult((info,), {"clips": len(rows), "errors": errors})

    def _row(self, records: Mapping[str, Record], tokenizers: Mapping, hashes: Mapping[str, str]) -> Record:
        clip = records["clips"]
        failed = next((f"{name}: {record['error']}" for name, record in records.items() if record["error"]), "")
        if failed:
            return error_record(clip["clip_id"], f"tokenize: needs {failed}")
        stray = next((name for name, record in records.items() if record["clip_id"] != clip["clip_id"]), "")
        try:
            if stray:
                raise InputError(f"column {stray} has clip {records[stray]['clip_id']} in this row: not aligned")
            fields = tokenize_clip(clip, records, tokenizers)
        except Exception as error:
            traceback.print_exc()
            return error_record(clip["clip_id"], f"tokenize: {type(error).__name__}: {error}")
        split = "heldout" if clip["source_sha256"] in self.heldout else "train"
        facts = {"tokenizers": json.dumps(hashes, sort_keys=True), "split": split}
        return {"clip_id": clip["clip_id"], "error": "", **fields, **facts}


def tokenize(config: TokenizeConfig, runner: RunnerOptions | None = None) -> dict:
    """Runs the job; returns the summary that ``--json`` prints. Shards made with other weights are made again.

    Raises:
        InputError: a column or a tokenizer is missing, or the columns have not the same shards.
    """
    start = time.monotonic()
    dataset = Dataset(config.dataset)
    infos = {column: dataset.shard_infos(column) for column in ("clips", *ANNOTATIONS)}
    counts = {column: tuple(info.count for info in shards) for column, shards in infos.items()}
    for column, rows in counts.items():
        if rows != counts["clips"]:
            raise InputError(f"{config.dataset}: column {column} has {rows} rows by shard, clips {counts['clips']}")
    weights = {}
    for name in TOKENIZERS:
        path = storage.join(config.tokenizers, name, "model.json")
        if not storage.exists(path):
            raise InputError(f"{path}: no such file; expected the trained {name} tokenizer (`archon train {name}`)")
        weights[name] = json.loads(storage.read_bytes(path))["weights_sha256"]
    heldout = tuple(sorted(heldout_sources(row["source_sha256"] for row in dataset.column("clips"))))
    work = TokenizeShard(
        config,
        tuple((column, tuple(dataset.path(info.path) for info in shards)) for column, shards in infos.items()),
        heldout,
    )
    hashes = [[info.sha256 for info in shards] for shards in infos.values()]
    step = Step(STEP, work, fingerprint(VERSION, weights, heldout, hashes))
    tasks = [ShardTask(index, len(infos["clips"])) for index in range(len(infos["clips"]))]
    print("tokenize: " + ", ".join(f"{name} {digest[:8]}" for name, digest in weights.items()), flush=True)
    markers = run_shards(JOB, config.dataset, [step], tasks, runner or RunnerOptions())[STEP]
    files = marker_files(markers)
    errors = [text for marker in markers for text in marker["summary"]["errors"]]
    for text in errors:
        print(f"tokenize: {text}", flush=True)
    producer = {"job": JOB, "version": VERSION, "backend": "tokenizers", "tokenizers": weights}
    update_manifest(config.dataset, {STEP: (files, producer)})
    return {
        "clips": sum(info.count for info in files),
        "errors": len(errors),
        "heldout_sources": len(heldout),
        "tokenizers": weights,
        "seconds": round(time.monotonic() - start, 2),
    }


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Encodes every clip's columns with the trained tokenizers: DATASET/tokens."
    parser.epilog = "example:\n  archon tokenize --dataset demo/dataset --tokenizers demo/models"
    parser.add_argument("--dataset", required=True, help="a dataset with every annotation column")
    parser.add_argument("--tokenizers", required=True, help="folder of trained tokenizers: text, speech, image ...")
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    return tokenize(TokenizeConfig(args.dataset, args.tokenizers), runner_options(args))
