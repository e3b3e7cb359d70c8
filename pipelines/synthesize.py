"""``archon synthesize``: the embedded corpus: rendered talking heads with speech, and the truth about them beside each.

For a clip NAME it leaves, in this order, NAME.truth.npz (arrays), NAME.truth.json (everything else) and NAME.mp4; a
clip whose mp4 is there and whose truth was made with the same settings is skipped, so a killed run goes on where it
was. Clip k of a seed does not depend on how many clips are made or by how many workers; the same seed gives the same
bytes on one machine.
"""

import argparse
import dataclasses
import json
import os
import time
import wave
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.signals import VIDEO_FPS

# Goes into the truth: a change here renders existing corpora anew.
CORPUS_VERSION = 1
MIN_SECONDS, MAX_SECONDS = 3.0, 6.0
LEAD_SECONDS = 0.2
_ATTEMPTS = 20


@dataclasses.dataclass(frozen=True)
class SynthesizeConfig:
    """Attributes: clips: how many; output: directory; seed; size: frame side in pixels (a multiple of 4); workers:
    processes, 0 for one a
    core; quiet: no progress lines."""

    clips: int
    output: str
    seed: int = 0
    size: int = 512
    workers: int = 0
    quiet: bool = False


def clip_name(seed: int, index: int) -> str:
    """Returns the file name (without suffix) of a clip."""
    return f"head-{seed:04d}-{index:04d}"


def synthesize(config: SynthesizeConfig) -> dict:
    """Renders the corpus.

    Returns:
      clips, rendered, skipped, frames, video_seconds, seconds, output, videos (paths, in order).

    Raises:
      InputError: a setting is out of range.
    """
    if config.clips < 1:
        raise InputError(f"--clips {config.clips}: expected at least 1")
    if config.size < 64 or config.size % 4:
        raise InputError(f"--size {config.size}: expected a multiple of 4, at least 64")
    if config.workers < 0:
        raise InputError(f"--workers {config.workers}: expected 0 (one a core) or more")
    start = time.monotonic()
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    workers = min(config.workers or os.cpu_count() or 1, config.clips)
    tasks = [(config.seed, index, config.size, str(output)) for index in range(config.clips)]
    results = []

    def done(result):
        results.append(result)
        if not config.quiet:
            elapsed = time.monotonic() - start
            left = elapsed / len(results) * (config.clips - len(results))
            state = "is there" if result["skipped"] else f"{result['frames']} frames, {result['seconds']:.1f} s"
            print(
                f"synthesize {len(results)}/{config.clips} {result['name']}: {state}; about {left:.0f} s left",
                flush=True,
            )

    pending = [task for task in tasks if _finished(*task) is None]
    for task in tasks:
        truth = _finished(*task)
        if truth is not None:
            done({"name": truth["name"], "frames": truth["frames"], "seconds": 0.0, "skipped": True})
    if workers == 1 or len(pending) <= 1:
        for task in pending:
            done(render_clip(*task))
    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed

        # spawn: a forked child would inherit the threads and locks of whatever the caller has loaded.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for future in as_completed([pool.submit(render_clip, *task) for task in pending]):
                done(future.result())
    frames = sum(r["frames"] for r in results)
    return {
        "clips": config.clips,
        "rendered": sum(not r["skipped"] for r in results),
        "skipped": sum(r["skipped"] for r in results),
        "frames": frames,
        "video_seconds": round(frames / VIDEO_FPS, 3),
        "seconds": round(time.monotonic() - start, 3),
        "output": str(output),
        "videos": [str(output / f"{clip_name(config.seed, k)}.mp4") for k in range(config.clips)],
    }


def _finished(seed, index, size, output):
    """Returns the truth of a clip that is there and was made with these settings, else None."""
    path = Path(output) / clip_name(seed, index)
    if not all(Path(f"{path}{suffix}").is_file() for suffix in (".mp4", ".truth.json", ".truth.npz")):
        return None
    try:
        truth = json.loads(Path(f"{path}.truth.json").read_text(encoding="utf-8"))
    except ValueError:
        return None
    return truth if truth.get("made_by") == _made_by(seed, index, size) else None


def _made_by(seed, index, size):
    from models.face.model import load_face_model

    return {"corpus": CORPUS_VERSION, "face_model": load_face_model().name, "seed": seed, "index": index, "size": size}


def choose_speech(rng: np.random.Generator, voice):
    """Says sentences until one fits a clip; returns (text, Speech)."""
    from pipelines.stages.sentences import sentence
    from pipelines.stages.voice import speak

    for _ in range(_ATTEMPTS):
        text = sentence(rng)
        # Reading aloud takes about 0.066 s a letter at 165 words a minute; spare espeak what cannot fit.
        guess = 0.066 * len(text) * 165 / voice.rate
        if not 2.0 <= guess <= 6.2:
            continue
        speech = speak(text, voice)
        seconds = len(speech.audio) / speech.rate
        if 2.2 <= seconds <= MAX_SECONDS - 2 * LEAD_SECONDS:
            return text, speech
    raise RuntimeError(f"no sentence of a clip's length in {_ATTEMPTS} attempts with {voice}")


def draw_voice(rng: np.random.Generator, gender: str, age: str):
    """Draws a voice that goes with a person."""
    from pipelines.stages import voice

    variants = voice.FEMALE_VARIANTS if gender == "female" else voice.MALE_VARIANTS
    pitch = int(rng.integers(45, 70) if gender == "female" else rng.integers(25, 55)) - (8 if age == "older" else 0)
    return voice.Voice(
        accent=voice.ACCENTS[int(rng.choice(len(voice.ACCENTS), p=[0.55, 0.2, 0.15, 0.1]))],
        variant=variants[int(rng.integers(len(variants)))],
        rate=int(rng.integers(140, 175)) - (10 if age == "older" else 0),
        pitch=pitch,
        pitch_range=int(rng.integers(40, 75)),
    )


def render_clip(seed: int, index: int, size: int, output: str) -> dict:
    """Renders one clip with its truth into ``output``; returns name, frames, seconds, skipped."""
    from models.face.model import load_face_model
    from pipelines.stages import talk
    from pipelines.stages.character import build_character
    from pipelines.stages.scene import Stage, compose_poses, draw_scene

    start = time.monotonic()
    # One independent stream each, so that a change in one leaves the others as they were.
    looks, place, speaker, moves = (np.random.default_rng([seed, index, k]) for k in range(4))
    model = load_face_model()
    character = build_character(model, looks)
    scene = draw_scene(place, size)
    voice = draw_voice(speaker, character.attributes["gender"], character.attributes["age"])
    text, speech = choose_speech(speaker, voice)
    manner = talk.Manner(
        articulation=float(moves.uniform(0.9, 1.15)),
        liveliness=float(moves.uniform(0.7, 1.2)),
        blink_seconds=float(moves.uniform(2.0, 3.5)),
        smile=float(moves.uniform(0.0, 0.2)),
    )
    audio, lead, frames = lay_out(speech.audio, speech.rate)
    phonemes = [p | {"start": round(p["start"] + lead, 4), "end": round(p["end"] + lead, 4)} for p in speech.phonemes]
    words = [w | {"start": round(w["start"] + lead, 4), "end": round(w["end"] + lead, 4)} for w in speech.words]
    expression, motion = talk.perform(model, phonemes, frames, manner, moves)
    pose = compose_poses(scene.rest, motion)

    path = Path(output) / clip_name(seed, index)
    stage = Stage(model, character, scene)
    labels = np.empty((frames, size // 2, size // 2), np.uint8)
    landmarks = np.empty((frames, 68, 2), np.float32)
    partial = Path(f"{path}.mp4.partial")
    with VideoWriter(partial, size, audio, speech.rate) as video:
        for t in range(frames):
            image, labels[t], landmarks[t] = stage.draw(expression[t], pose[t])
            video.write(image)
    truth = {
        "name": path.name,
        "made_by": _made_by(seed, index, size),
        "frames": frames,
        "fps": VIDEO_FPS,
        "text": text,
        "words": words,
        "phonemes": phonemes,
        "language": "en",
        "voice": dataclasses.asdict(voice),
        "attributes": character.attributes | scene.attributes,
        "face_model": model.name,
        "expression_names": model.expression_names,
        "shape_names": model.shape_names,
    }
    arrays = {
        "shape": character.shape,
        "expression": expression,
        "pose": pose,
        "camera": scene.camera,
        "landmarks": landmarks,
        "labels": labels,
    }
    with open(f"{path}.truth.npz.partial", "wb") as file:
        np.savez_compressed(file, **arrays)
    Path(f"{path}.truth.json.partial").write_text(json.dumps(truth, indent=1, ensure_ascii=False), encoding="utf-8")
    for suffix in (".truth.npz", ".truth.json", ".mp4"):
        os.replace(f"{path}{suffix}.partial", f"{path}{suffix}")
    return {"name": path.name, "frames": frames, "seconds": time.monotonic() - start, "skipped": False}


def lay_out(audio: np.ndarray, rate: int) -> tuple[np.ndarray, float, int]:
    """Puts speech into a clip: silence before and after, at least ``MIN_SECONDS``.

    Args:
      audio: int16 (N,).
      rate: its rate.

    Returns:
      audio of exactly the clip's length; where the speech starts, seconds; the clip's frames.
    """
    seconds = max(MIN_SECONDS, len(audio) / rate + 2 * LEAD_SECONDS)
    frames = int(np.ceil(seconds * VIDEO_FPS))
    total = round(frames * rate / VIDEO_FPS)
    lead = round(LEAD_SECONDS * rate)
    out = np.zeros(total, np.int16)
    out[lead : lead + len(audio)] = audio
    return out, lead / rate, frames


class VideoWriter:
    """An H.264 + AAC mp4 written through ffmpeg: one thread and bit-exact flags, so that the same frames give the same
    bytes.
    """

    def __init__(self, path: Path, size: int, audio: np.ndarray, rate: int):
        self.path, self.size, self.audio, self.rate = path, size, audio, rate
        self.wave = Path(f"{path}.wav")

    def __enter__(self):
        import ffmpeg
        import imageio_ffmpeg

        with wave.open(str(self.wave), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes(self.audio.tobytes())
        video = ffmpeg.input(
            "pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{self.size}x{self.size}", framerate=VIDEO_FPS
        )
        sound = ffmpeg.input(str(self.wave))
        self.process = (
            ffmpeg.output(
                video,
                sound,
                str(self.path),
                format="mp4",
                vcodec="libx264",
                preset="veryfast",
                crf=18,
                pix_fmt="yuv420p",
                acodec="aac",
                ar=48000,
                audio_bitrate="96k",
                threads=1,
                map_metadata=-1,
                sws_flags="bitexact+accurate_rnd",
                **{"flags:v": "+bitexact", "flags:a": "+bitexact", "fflags": "+bitexact", "filter_threads": 1},
            )
            .global_args("-loglevel", "error", "-nostdin")
            .overwrite_output()
            .run_async(cmd=imageio_ffmpeg.get_ffmpeg_exe(), pipe_stdin=True, pipe_stderr=True)
        )
        return self

    def write(self, image: np.ndarray) -> None:
        """Writes a frame (S, S, 3) uint8."""
        try:
            self.process.stdin.write(np.ascontiguousarray(image).data)
        except BrokenPipeError:
            self._finish()

    def _finish(self):
        self.process.stdin.close()
        message = self.process.stderr.read().decode(errors="replace")
        self.process.stderr.close()
        if self.process.wait():
            raise RuntimeError(f"{self.path}: ffmpeg failed: {message.strip()[-800:]}")

    def __exit__(self, kind, error, trace):
        try:
            if error is not None:
                self.process.kill()
                self.process.stdin.close()
                self.process.stderr.close()
                self.process.wait()
            else:
                self._finish()
        finally:
            self.wave.unlink(missing_ok=True)


def register(parser: argparse.ArgumentParser) -> None:
    """Adds description, arguments and examples."""
    parser.description = "Render talking heads with speech by espeak-ng, and the ground truth of each clip beside it."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n  archon synthesize --clips 12 --output corpus\n"
        "  archon synthesize --clips 200 --output corpus --seed 7 --workers 4"
    )
    parser.add_argument("--clips", type=int, required=True, help="how many clips, one person each")
    parser.add_argument("--output", required=True, help="directory for NAME.mp4, NAME.truth.json and NAME.truth.npz")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default 0)")
    parser.add_argument("--size", type=int, default=512, help="side of the frames in pixels (default 512)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    parser.add_argument("--quiet", action="store_true", help="no progress lines")


def run(args: argparse.Namespace) -> dict:
    """Runs the command; returns the --json summary."""
    return synthesize(SynthesizeConfig(args.clips, args.output, args.seed, args.size, args.workers, args.quiet))
