"""The job `archon tokenize`: annotation columns become token records, which the language model's loader reads.

One record a clip: the codes of every modality on the shared time grid, level first, plus the two texts as text (their
pieces belong to the language model's vocabulary). A clip that lacks a column keeps its row, with the reason in it.
"""

import argparse
import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.loading import load_once
from models.signals import CROP_SIZE, SEMANTIC_SIZE, latent_steps, speech_steps
from pipelines import provenance, storage
from pipelines.beam import (
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    add_runner_arguments,
    fingerprint,
    marker_files,
    runner_options,
)
from pipelines.books import books_for_manifest, sum_books
from pipelines.code_hash import code_hash
from pipelines.column_scores import read_scores, scores_code
from pipelines.column_shard import ColumnWork, make_shard, remove_others, run_columns, write_inputs
from pipelines.dataset import ANNOTATIONS, Dataset, ShardInfo, heldout_sources, update_manifest
from pipelines.failures import Failures, failure_limit
from pipelines.keyed import Fields, Keyed, one_by_one
from pipelines.manifest import SCORES
from pipelines.provenance import Producer
from pipelines.records import Record

JOB, STEP = "tokenize", "tokens"
# Where the code that makes tokens starts, and the packages whose version decides what it makes.
CODE, PACKAGES = ("pipelines.tokenize.token_fields", "models.tokenizers.load_tokenizer"), ("jax",)
TOKENIZERS = ("text", "speech", "image", "semantic", "shape", "expression", "pose")


@dataclass(frozen=True)
class TokenizeConfig:
    """``tokenizers`` is the folder that holds one trained tokenizer a folder: text, speech, image ..."""

    dataset: str
    tokenizers: str


@load_once(2)
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


def token_fields(clip: Record, columns: Mapping[str, Record], tokenizers: Mapping, hashes: str) -> Record:
    """A clip's token record without its split: its codes and texts, and which tokenizers they are of."""
    return {**tokenize_clip(clip, columns, tokenizers), "tokenizers": hashes}


@dataclass(frozen=True)
class Split:
    """Which split a clip is of. A rule over all sources: one more may move others, whose codes stay as they are."""

    heldout: frozenset[str]

    def __call__(self, record: Record) -> dict:
        return {"split": "heldout" if record["source_sha256"] in self.heldout else "train"}


@dataclass(frozen=True)
class TokenizeShard:
    """The step: reads a shard's columns, writes its token records."""

    config: TokenizeConfig
    split: Split
    work: ColumnWork

    def __call__(self, task: ShardTask) -> StepResult:
        tokenizers = load_all(self.config.tokenizers)
        hashes = json.dumps({name: tokenizer.weights_sha256 for name, tokenizer in tokenizers.items()}, sort_keys=True)

        def encode(item: Keyed) -> Fields:
            return {STEP: {**token_fields(item.clip, item.columns, tokenizers, hashes), **self.split(item.clip)}}

        return make_shard(self.work, task, one_by_one(encode))


def tokenize(config: TokenizeConfig, runner: RunnerOptions | None = None) -> dict:
    """Runs the job; returns the summary that ``--json`` prints. Shards made with other weights are made again.

    Raises:
        InputError: a column or a tokenizer is missing, or the columns have not the same shards.
        TooManyFailures: more failures than ``runner.max_failures`` allows.
        BooksError: the books do not close.
    """
    start = time.monotonic()
    runner = runner or RunnerOptions()
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
    look = functools.partial(_shard_sources, config.dataset)
    sources = storage.map_requests(config.dataset, look, dataset.score_infos(ANNOTATIONS[0]))
    heldout = frozenset(heldout_sources(set().union(*sources)))
    manifest = dataset.manifest()
    upstream = [provenance.from_manifest(config.dataset, manifest, column) for column in infos]
    # There are no settings that decide. The split is counted in the shards that it says something else of.
    producer = Producer("tokenizers", code_hash(CODE, PACKAGES), fingerprint(), _weights_text(weights))
    made_by = provenance.made_by([STEP], producer, upstream)
    made = made_by, scores_code([STEP])
    marks = [
        fingerprint(*made, [shards[index].sha256 for shards in infos.values()], sorted(heldout & sources[index]))
        for index in range(len(sources))
    ]
    clips = sum(counts["clips"])
    limit = failure_limit(runner.max_failures, clips)
    work = ColumnWork(
        config.dataset,
        JOB,
        STEP,
        (STEP,),
        ANNOTATIONS,
        producer,
        fingerprint(marks),
        Failures(config.dataset, JOB, fingerprint(made_by), limit, runner.is_local),
        write_inputs(config.dataset, JOB, infos, {STEP: marks}),
        settle=Split(heldout),
    )
    step = Step(STEP, TokenizeShard(config, work.settle, work), work.fingerprint, of_shard=work.mark)
    tasks = [ShardTask(index, len(infos["clips"])) for index in range(len(infos["clips"]))]
    print("tokenize: " + ", ".join(f"{name} {digest[:8]}" for name, digest in weights.items()), flush=True)
    markers = run_columns(JOB, [(work, step)], tasks, runner)[STEP]
    books = sum_books(JOB, "clips", (marker["summary"]["books"] for marker in markers), clips)
    print("\n".join(books.lines()), flush=True)
    for text in [text for marker in markers for text in marker["summary"]["errors"]][:20]:
        print(f"tokenize: {text}", flush=True)
    files = marker_files(markers)
    shards = [info for info in files if info.path.startswith(f"{STEP}/")]
    scores = [info for info in files if info.path.startswith(f"{SCORES}/")]
    facts = {"job": JOB, **made_by[STEP], "made_by": made_by, "tokenizers": weights}
    all_books = books_for_manifest(config.dataset, books)
    update_manifest(config.dataset, {STEP: (shards, facts)}, {STEP: scores}, books=all_books)
    remove_others(config.dataset, work, files)
    return {
        "clips": books.items,
        "errors": books.failed.total(),
        "books": books.as_dict(),
        "heldout_sources": len(heldout),
        "tokenizers": weights,
        "seconds": round(time.monotonic() - start, 2),
    }


def _shard_sources(root: str, info: ShardInfo) -> set[str]:
    """The content hashes of the sources in a shard: of the column's table of scores, not of millions of clips."""
    return set(read_scores(root, info, ["source_sha256"])["source_sha256"].to_pylist())


def _weights_text(weights: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {digest}" for name, digest in sorted(weights.items()))


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Encodes every clip's columns with the trained tokenizers: DATASET/tokens."
    parser.epilog = "example:\n  archon tokenize --dataset demo/dataset --tokenizers demo/models"
    parser.add_argument("--dataset", required=True, help="a dataset with every annotation column")
    parser.add_argument("--tokenizers", required=True, help="folder of trained tokenizers: text, speech, image ...")
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    return tokenize(TokenizeConfig(args.dataset, args.tokenizers), runner_options(args))
