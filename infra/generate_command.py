"""``archon generate``: any modality from any other, with everything made on the way written as something to look at."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infra.given import (
    KINDS,
    Reference,
    parse_given,
    read_array,
    read_clip,
    read_reference,
    read_speech,
    read_text,
    read_video,
)
from infra.requests import GenerateConfig, chain_of, read_requests
from models.errors import InputError
from models.sampling import Sampling
from models.signals import VIDEO_FPS, audio_samples, frames_of_audio, grid_frames, grid_frames_up
from pipelines import storage
from tasks.modalities import MODALITIES

BATCH = 8  # requests that are sampled together
_TOKENIZERS = {"semantics": "semantic"}  # the folder of a modality's tokenizer, where it has another name


@dataclass
class Signals:
    """Everything that is known of the clip, given or made.

    Attributes:
        frames: T, what is written. Codes are for ``grid_frames_up(T)`` frames.
        codes: modality -> codes, or text.
        values: modality -> signal: shape (Ns,), expression (T', Ne), pose (T', 6), semantics labels (T', 128, 128),
            speech int16 as given, image uint8 (256, 256, 3).
        reference: the given picture with its segmentation.
        given: what was given.
    """

    frames: int
    codes: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    reference: Reference | None = None
    given: tuple[str, ...] = ()


class _Tokenizers:
    """The trained tokenizers of a directory, each read when it is first needed."""

    def __init__(self, models: str):
        self._models, self._loaded = Path(models), {}

    def __getitem__(self, modality: str):
        from models.tokenizers import load_tokenizer

        if modality not in self._loaded:
            self._loaded[modality] = load_tokenizer(self._models / _TOKENIZERS.get(modality, modality))
        return self._loaded[modality]


def generate(config: GenerateConfig) -> dict:
    """Makes what is wanted and writes it with every intermediate.

    Returns:
        {"outputs": modality -> path (and "animation", "overview"), "tokens", "seconds", "seed", "frames", "chain"}.

    Raises:
        InputError: what is given cannot be read, shows no face, or does not suffice; a model is missing.
    """
    return generate_all([config])[0]


def generate_all(configs: Sequence[GenerateConfig], batch: int = BATCH) -> list[dict]:
    """``generate`` for several requests; those of one chain and one way of sampling share the language model's batches.

    Args:
        configs: the requests.
        batch: at most how many are sampled together.
    """
    begin = time.monotonic()
    tokenizers: dict[str, _Tokenizers] = {}
    ready = []
    for config in configs:
        chain = chain_of(config)
        signals = _read(config)
        _encode(signals, config.want, tokenizers.setdefault(config.models, _Tokenizers(config.models)))
        ready.append((config, chain, signals))
    together: dict[tuple, list[int]] = {}
    for index, (config, chain, _) in enumerate(ready):
        together.setdefault((config.models, chain, config.sampling), []).append(index)
    steps: dict[int, dict] = {}
    for indices in together.values():
        for first in range(0, len(indices), batch):
            part = indices[first : first + batch]
            steps |= zip(part, _run_chain([ready[index] for index in part]), strict=True)
    summaries = []
    for index, (config, chain, signals) in enumerate(ready):
        summaries.append(_finish(config, chain, signals, steps[index], tokenizers[config.models], begin))
        begin = time.monotonic()
    return summaries


def _finish(
    config: GenerateConfig, chain: tuple[str, ...], signals: Signals, steps: dict, tokenizers: _Tokenizers, begin: float
) -> dict:
    """Decodes what a request came to, lets the decoder make its video, and writes everything; returns the summary."""
    for name in chain:
        if name != "video":
            signals.values[name] = _decode(name, signals.codes[name], tokenizers)
    used = {}
    if "video" in chain:
        start = time.monotonic()
        signals.values["video"], used = _make_video(config, signals, tokenizers)
        steps = steps | {"video": {"tokens": 0, "seconds": round(time.monotonic() - start, 2)}}
    outputs = _write(config, chain, signals)
    summary = {
        "outputs": outputs,
        "tokens": sum(step["tokens"] for step in steps.values()),
        "seconds": round(time.monotonic() - begin, 2),
        "seed": config.seed,
        "frames": signals.frames,
        "fps": VIDEO_FPS,
        "given": sorted(signals.given),
        "chain": list(chain),
        "sampling": dataclasses.asdict(config.sampling),
        "steps": steps,
        **used,
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(config.output, "summary.json"), text.encode())
    return summary


# --- In ---------------------------------------------------------------------------------------------------------------


def _read(config: GenerateConfig) -> Signals:
    """Reads what is given; the number of frames comes from ``frames``, the speech, or another signal with time.

    A signal of what is wanted is gone on with: it may be shorter than the clip, and says nothing of its length.
    """
    values: dict[str, Any] = {}
    reference = None
    if config.clip:
        values["speech"], reference = read_clip(config.clip)
    for kind, value in config.given:
        if kind == "speech":
            values[kind] = read_speech(value)
        elif kind == "image":
            reference = read_reference(value)
        elif kind == "video":
            values["semantics"], reference = read_video(value)
        elif MODALITIES[kind].is_text:
            values[kind] = read_text(kind, value)
        else:
            values[kind] = read_array(kind, value)
    if reference is not None:
        values["image"] = reference.image
    lengths = {kind: len(values[kind]) for kind in ("expression", "pose", "semantics") if kind in values}
    if "speech" in values:
        lengths["speech"] = frames_of_audio(len(values["speech"]))
    begun = lengths.pop(config.want, None)
    longest = min(lengths.values()) if lengths else None
    frames = config.frames or longest
    if frames is None:
        raise InputError("--frames: needed, since nothing that is given has a length")
    if begun is not None and begun >= frames:
        raise InputError(f"--given {config.want}: {begun} frames, expected fewer than the {frames} that are to be made")
    if frames < 1 or (longest is not None and frames > longest):
        have = ", ".join(f"{kind} {count}" for kind, count in lengths.items())
        raise InputError(f"--frames {frames}: expected 1 to {longest}, the frames of what is given ({have})")
    given = tuple(kind for kind, _ in config.given) + (("speech", "image") if config.clip else ())
    return Signals(frames=frames, values=values, reference=reference, given=given)


def _encode(signals: Signals, want: str, tokenizers: _Tokenizers) -> None:
    """Fills ``codes`` from ``values``, for ``grid_frames_up(frames)`` frames: the end is silence, or stands still.

    What is wanted and has begun is encoded as far as it goes on the grid.
    """
    from pipelines.stages.speech import normalise

    for name, value in signals.values.items():
        frames = grid_frames_up(signals.frames)
        if name == want and MODALITIES[name].has_clock:
            have = frames_of_audio(len(value)) if name == "speech" else len(value)
            frames = grid_frames(have)
            value = value[: audio_samples(frames) if name == "speech" else frames]
        if MODALITIES[name].is_text:
            signals.codes[name] = value
            continue
        if name == "speech":
            loud = normalise(value[: audio_samples(signals.frames)]).audio.astype(np.float32) / 32768
            samples = audio_samples(frames)
            value = np.pad(loud[:samples], (0, max(0, samples - len(loud))))
        elif name in ("expression", "pose", "semantics"):
            value = value[: signals.frames]
            value = np.concatenate([value, np.repeat(value[-1:], frames - len(value), axis=0)])
        signals.codes[name] = tokenizers[name].encode(value)


def _run_chain(requests: Sequence[tuple[GenerateConfig, tuple[str, ...], Signals]]) -> list[dict]:
    """Lets the language model make every link but the video, for requests of one chain and one way of sampling.

    Their codes are filled in. Returns, for each request, name -> {"tokens", "seconds"}; the seconds are the batch's.
    """
    from pipelines.stages.description_schema import description_form
    from tasks.generate import Request, run_chain

    config, chain, _ = requests[0]
    steps: list[dict] = [{} for _ in requests]

    def progress(name: str, counts: list[int], seconds: float) -> None:
        for row, count in enumerate(counts):
            steps[row][name] = {"tokens": count, "seconds": round(seconds, 2)}
        rate = f", {sum(counts) / max(seconds, 1e-9):.0f} a second"
        rows = f" for {len(counts)} requests" if len(counts) > 1 else ""
        print(f"[generate] {name}: {sum(counts)} tokens in {seconds:.1f} s{rate}{rows}", file=sys.stderr, flush=True)

    if any(name != "video" for name in chain):
        made = run_chain(
            Path(config.models) / "language",
            config.models,
            [Request(signals.codes, grid_frames_up(signals.frames), one.seed) for one, _, signals in requests],
            chain,
            sampling=config.sampling,
            forms={"description": description_form()},
            progress=progress,
        )
        for (_, _, signals), codes in zip(requests, made, strict=True):
            signals.codes |= codes
    return steps


# --- Out --------------------------------------------------------------------------------------------------------------


def _decode(name: str, codes: Any, tokenizers: _Tokenizers) -> Any:
    if MODALITIES[name].is_text:
        return codes
    value = tokenizers[name].decode(codes)
    if name == "speech":
        return np.clip(np.rint(value * 32767), -32768, 32767).astype(np.int16)
    return value


def _make_video(config: GenerateConfig, signals: Signals, tokenizers: _Tokenizers) -> tuple[np.ndarray, dict]:
    """Runs the decoder: returns uint8 (T, resolution, resolution, 3) and what the summary says of it."""
    from models.video_generation import load_decoder

    decoder = load_decoder(Path(config.models) / "decoder")
    text = tokenizers["text"]
    if decoder.text_sha256 != text.weights_sha256:
        raise InputError(
            f"{config.models}/decoder: trained with the text tokenizer {decoder.text_sha256}, "
            f"{config.models}/text is {text.weights_sha256}"
        )
    labels = np.asarray(signals.values["semantics"])
    missing = grid_frames_up(len(labels)) - len(labels)
    labels = np.concatenate([labels, np.repeat(labels[-1:], missing, axis=0)])
    # A picture that the language model made belongs to the first frame of the semantic video that it made.
    made = signals.reference is None
    reference = Reference(signals.values["image"], labels[0]) if made else signals.reference
    description = signals.codes.get("description")

    def progress(done: int, total: int) -> None:
        if done == total:
            print(f"[generate] video: {total} latents", file=sys.stderr, flush=True)

    video = decoder.generate(
        labels,
        reference.image,
        reference.labels,
        None if description is None else text.encode(description),
        seed=config.seed,
        progress=progress,
    )
    used = {
        "video_resolution": decoder.resolution,
        "reference_segmentation": "first semantic frame" if made else "landmarks of the given image",
        "text_condition": description is not None,
    }
    return video[: signals.frames], used


def _write(config: GenerateConfig, chain: tuple[str, ...], signals: Signals) -> dict[str, str]:
    """Writes everything that was made; returns name -> path."""
    from infra import previews
    from pipelines.inspect import wav_bytes
    from pipelines.overlay import encode_image

    def path(name: str) -> str:
        return storage.join(config.output, name)

    frames, values = signals.frames, signals.values
    audio = None
    if "speech" in values:
        audio = np.asarray(values["speech"])[: audio_samples(frames)]
        audio = np.pad(audio, (0, audio_samples(frames) - len(audio)))
    outputs: dict[str, str] = {}
    looks: dict[str, np.ndarray] = {}
    if "shape" in chain:
        content = {"shape": np.asarray(values["shape"], float).round(5).tolist()}
        storage.write_bytes(path("shape.json"), (json.dumps(content, indent=1) + "\n").encode())
        outputs["shape"] = path("shape.json")
    for name in ("expression", "pose"):
        if name in chain:
            outputs[name] = _write_npz(path(f"{name}.npz"), name, np.asarray(values[name], np.float32)[:frames])
    if "expression" in values:
        pose = values.get("pose")
        mesh = previews.mesh_frames(
            values.get("shape"), values["expression"][:frames], pose if pose is None else pose[:frames]
        )
        looks["animation"] = mesh
        if "expression" in chain:
            outputs["animation"] = previews.write_movie(path("animation.mp4"), mesh, audio)
    if "semantics" in values:
        labels = np.asarray(values["semantics"])[:frames]
        looks["semantics"] = previews.semantic_frames(labels)
        if "semantics" in chain:
            _write_npz(path("semantics.npz"), "labels", labels)
            outputs["semantics"] = previews.write_movie(path("semantics.mp4"), looks["semantics"], audio)
    if "description" in chain:
        outputs["description"] = previews.write_description(path("description.json"), values["description"])
    if "script" in chain:
        storage.write_bytes(path("script.txt"), (values["script"] + "\n").encode())
        outputs["script"] = path("script.txt")
    if "speech" in chain:
        storage.write_bytes(path("speech.wav"), wav_bytes(audio))
        outputs["speech"] = path("speech.wav")
    if "image" in chain:
        storage.write_bytes(path("image.png"), encode_image(values["image"], "PNG"))
        outputs["image"] = path("image.png")
    if "video" in chain:
        looks["video"] = previews.enlarge(values["video"])
        outputs["video"] = previews.write_movie(path("video.mp4"), looks["video"], audio)
    if looks:
        outputs["overview"] = previews.write_overview(path("overview.png"), values.get("image"), looks)
    return outputs


def _write_npz(path: str, name: str, array: np.ndarray) -> str:
    from models.io import npz_bytes

    storage.write_bytes(path, npz_bytes({name: array}))
    return path


# --- The command ------------------------------------------------------------------------------------------------------


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make one modality from others. A video is made by the decoder from semantics, image and text; the language "
        "model makes the rest, one modality after the other along the chain. Everything that is made on the way is "
        "written to the output folder."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """what is given:
  speech       any audio or video file; its length is the video's
  image        any picture of a face; 256 x 256 pixels are taken as they are, any other picture is cut around its
               largest face, as clips are
  video        a video of one person: its first clip's semantic video and reference image, found as `archon curate` and
               `archon annotate` find them
  what is wanted, shorter than the clip (--frames): it is gone on with, window by window
  script, description   text, or a .txt or .json file
  shape, expression, pose, semantics   files that this command wrote (.json, .npz)

examples:
  archon generate --given speech=a.wav image=face.png --want video --models demo/models --output out
  archon generate --given speech=a.wav image=face.png --want video --chain 'semantics>video' \\
      --models demo/models --output out
  archon generate --clip demo/dataset:1f0c... --want video --models demo/models --output out
  archon generate --given script='good morning' --want shape --frames 61 --models demo/models --output out
  archon generate --given video=a.mp4 --want description --models demo/models --output out
  archon generate --requests many.jsonl --want expression --models demo/models --output out"""
    parser.add_argument("--given", nargs="+", default=[], metavar="KIND=FILE", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--clip", metavar="DATASET:ID", help="give the speech and the reference image of this clip")
    parser.add_argument("--want", help=f"what to make: {', '.join(MODALITIES)}")
    parser.add_argument("--chain", default="thinking", help="thinking (default), direct, or modalities joined by '>'")
    parser.add_argument("--models", required=True, help="the folder of the trained models (WORKDIR/models of the demo)")
    parser.add_argument("--output", required=True, help="the folder to write to")
    parser.add_argument("--frames", type=int, help="length at 30 frames a second; needed without speech")
    parser.add_argument("--seed", type=int, default=0)
    default = Sampling()
    parser.add_argument(
        "--temperature", type=float, default=default.temperature, help="0 is the most likely (default: 1)"
    )
    parser.add_argument("--top-k", type=int, default=default.top_k, help="draw from the K most likely (default: all)")
    parser.add_argument("--top-p", type=float, default=default.top_p, help="draw from this much mass (default: 0.95)")
    parser.add_argument(
        "--guidance",
        type=float,
        default=default.guidance,
        help="classifier-free guidance by the conditions; 1 is none (default), above 1 follows them more",
    )
    parser.add_argument(
        "--requests",
        metavar="FILE",
        help='many at once: a line of JSON each, {"given": {"speech": "a.wav"}, "want": ..., "output": ...}, and '
        "chain, seed, frames, clip where they differ from this command's; without output, a folder of --output",
    )
    parser.add_argument("--batch", type=int, default=BATCH, help=f"requests sampled together (default: {BATCH})")


def run(args: argparse.Namespace) -> dict:
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}: expected 1 or more")
    if args.want is None and args.requests is None:
        raise InputError(f"--want: needed; expected one of {', '.join(MODALITIES)}")
    config = GenerateConfig(
        given=parse_given(args.given),
        want=args.want or "",
        models=args.models,
        output=args.output,
        chain=args.chain,
        seed=args.seed,
        frames=args.frames,
        clip=args.clip,
        sampling=Sampling(args.temperature, args.top_k, args.top_p, args.guidance),
    )
    if args.requests is None:
        summary = generate(config)
        for name, path in summary["outputs"].items():
            print(f"{name:<12} {path}")
        return summary
    if args.given or args.clip:
        raise InputError("--requests: what is given stands in the file; --given and --clip are for one request")
    begin = time.monotonic()
    summaries = generate_all(read_requests(args.requests, config), args.batch)
    for summary in summaries:
        print(f"{summary['chain'][-1]:<12} {summary['outputs'].get(summary['chain'][-1])}")
    return {
        "requests": summaries,
        "tokens": sum(summary["tokens"] for summary in summaries),
        "seconds": round(time.monotonic() - begin, 2),
    }
