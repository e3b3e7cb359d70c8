"""One clip of the embedded corpus: who speaks, where, what; the frames, the sound and the truth about both."""

import dataclasses
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from models.face.model import FaceModel, load_face_model
from models.signals import AUDIO_RATE, VIDEO_FPS
from pipelines.stages import imperfections, talk
from pipelines.stages.character import Character, build_character
from pipelines.stages.complexion import CLOTHES_COLORS, SKIN_TONES
from pipelines.stages.known_description import describe_truth
from pipelines.stages.scene import Performer, Scene, Stage, compose_poses, draw_scene
from pipelines.stages.sentences import sentence
from pipelines.stages.video_writer import VideoWriter, compress
from pipelines.stages.voice import ACCENTS, FEMALE_VARIANTS, MALE_VARIANTS, Speech, Voice, speak

MIN_SECONDS, MAX_SECONDS = 3.0, 6.0
LEAD_SECONDS = 0.2
_ATTEMPTS = 20
# One independent random stream each, so that a change in one leaves the others as they were.
_LOOKS, _PLACE, _SPEAKER, _MOVES, _OTHER_LOOKS, _OTHER_MOVES = range(6)


@dataclasses.dataclass(frozen=True)
class ClipTask:
    """What decides a clip: seed and index; frame size in pixels; kinds of imperfections and the share of clips that
    has each.
    """

    seed: int
    index: int
    width: int = 512
    height: int = 512
    kinds: tuple[str, ...] = ()
    share: float = 0.3

    def stream(self, k: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.index, k])


@dataclasses.dataclass(frozen=True, eq=False)
class Take:
    """Everything a clip is rendered from: T frames of sound (int16 at ``rate``), script, performance, scenes by their
    first frame, who else is there, and the imperfections.
    """

    text: str
    words: list
    phonemes: list
    audio: np.ndarray
    rate: int
    voice: Voice
    character: Character
    expression: np.ndarray
    motion: np.ndarray
    scenes: list[tuple[int, Scene]]
    pose: np.ndarray
    faults: list[imperfections.Imperfection]
    other: tuple[Character, np.ndarray, np.ndarray, np.ndarray] | None

    @property
    def frames(self) -> int:
        return len(self.expression)


def choose_speech(rng: np.random.Generator, voice: Voice) -> tuple[str, Speech]:
    """Says sentences until one fits a clip; returns (text, Speech)."""
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


def draw_voice(rng: np.random.Generator, gender: str, age: str) -> Voice:
    """Draws a voice that goes with a person."""
    variants = FEMALE_VARIANTS if gender == "female" else MALE_VARIANTS
    pitch = int(rng.integers(45, 70) if gender == "female" else rng.integers(25, 55)) - (8 if age == "older" else 0)
    return Voice(
        accent=ACCENTS[int(rng.choice(len(ACCENTS), p=[0.55, 0.2, 0.15, 0.1]))],
        variant=variants[int(rng.integers(len(variants)))],
        rate=int(rng.integers(140, 175)) - (10 if age == "older" else 0),
        pitch=pitch,
        pitch_range=int(rng.integers(40, 75)),
    )


def draw_manner(rng: np.random.Generator) -> talk.Manner:
    """Draws how a person moves."""
    return talk.Manner(
        articulation=float(rng.uniform(0.9, 1.15)),
        liveliness=float(rng.uniform(0.7, 1.2)),
        blink_seconds=float(rng.uniform(2.0, 3.5)),
        smile=float(rng.uniform(0.0, 0.2)),
    )


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


def plan(model: FaceModel, task: ClipTask) -> Take:
    """Draws a clip: the same task gives the same take."""
    rngs = imperfections.drawn(task.seed, task.index, task.kinds, task.share)
    speaker, moves = task.stream(_SPEAKER), task.stream(_MOVES)
    character = build_character(model, task.stream(_LOOKS))
    voice = draw_voice(speaker, character.attributes["gender"], character.attributes["age"])
    text, speech = choose_speech(speaker, voice)
    sound, words, phonemes, faults, pause = speech.audio, speech.words, speech.phonemes, [], None
    if "silence" in rngs:
        rng = rngs["silence"]
        longest = MAX_SECONDS - 2 * LEAD_SECONDS - len(sound) / speech.rate
        paused = (
            None
            if rng.random() < 0.4
            else imperfections.insert_pause(rng, sound, speech.rate, words, phonemes, longest)
        )
        if paused is None:
            text, words, phonemes, sound = "", [], [], np.zeros_like(sound)
        else:
            sound, words, phonemes, pause = paused
    audio, lead, frames = lay_out(sound, speech.rate)
    if "silence" in rngs:
        start, end = (0, frames) if pause is None else (round((second + lead) * VIDEO_FPS) for second in pause)
        faults.append(imperfections.Imperfection("silence", start, end, round((end - start) / VIDEO_FPS, 3), "seconds"))
    phonemes = [p | {"start": round(p["start"] + lead, 4), "end": round(p["end"] + lead, 4)} for p in phonemes]
    words = [w | {"start": round(w["start"] + lead, 4), "end": round(w["end"] + lead, 4)} for w in words]
    expression, motion = talk.perform(model, phonemes, frames, draw_manner(moves), moves)
    scenes = [(0, draw_scene(task.stream(_PLACE), task.width, task.height))]
    pose = compose_poses(scenes[0][1].rest, motion)
    if "cut" in rngs:
        at = int(rngs["cut"].integers(frames // 3, 2 * frames // 3))
        scenes.append((at, draw_scene(rngs["cut"], task.width, task.height)))
        pose[at:] = compose_poses(scenes[1][1].rest, motion[at:])
        faults.append(
            imperfections.Imperfection("cut", at, at + 1, 1.0, "cuts", {"attributes": scenes[1][1].attributes})
        )
    other = None
    if "second-person" in rngs:
        other, fault = _somebody(model, task, rngs["second-person"], pose, frames)
        faults.append(fault)
    for kind, draw in (
        ("compression", imperfections.draw_compression),
        ("blur", imperfections.draw_blur),
        ("noise", imperfections.draw_noise),
    ):
        if kind in rngs:
            faults.append(draw(rngs[kind], frames))
    return Take(
        text, words, phonemes, audio, speech.rate, voice, character, expression, motion, scenes, pose, faults, other
    )


def _somebody(model, task, rng, pose, frames):
    """Draws a second person who stands beside and behind the first and listens."""
    character = build_character(model, task.stream(_OTHER_LOOKS))
    expression, motion = talk.perform(model, [], frames, draw_manner(rng), task.stream(_OTHER_MOVES))
    side = float(rng.choice([-1, 1]))
    offset = np.array([side * rng.uniform(0.22, 0.34), rng.uniform(-0.04, 0.06), rng.uniform(0.18, 0.40)])
    turn = np.array([0.0, side * rng.uniform(0.0, 0.6), 0.0])
    still = pose[0, 3:]
    poses, rests = np.empty((frames, 6), np.float32), np.empty((frames, 6), np.float32)
    for t in range(frames):
        # Where the first person's shot puts that person; the cut moves both.
        if t == 0 or np.abs(pose[t, 3:] - pose[t - 1, 3:]).max() > 0.04:
            still = pose[t, 3:]
        rests[t] = [*turn, *(still + offset)]
    for t in range(frames):
        poses[t] = compose_poses(rests[t], motion[t : t + 1])[0]
    fault = imperfections.Imperfection(
        "second-person",
        0,
        frames,
        round(float(abs(offset[0])), 3),
        "metres aside",
        {"side": "right" if side > 0 else "left", "attributes": character.attributes},
    )
    return (character, expression, poses, rests), fault


def render_clip(task: ClipTask, base: Path, made_by: dict) -> dict:
    """Renders one clip with its truth.

    Args:
      task: what decides it.
      base: path without suffix; ``.truth.npz``, ``.truth.json`` and ``.mp4`` appear in this order, each complete.
      made_by: kept in the truth; says whether a clip that is there is the one asked for.

    Returns:
      name, frames, seconds, skipped.
    """
    from pipelines.stages.props import draw_hand, draw_microphone

    start = time.monotonic()
    model = load_face_model()
    take = plan(model, task)
    frames, faults, character = take.frames, list(take.faults), take.character
    rngs = imperfections.drawn(task.seed, task.index, task.kinds, task.share)
    skin = np.array(SKIN_TONES[character.attributes["skin"]])
    sleeve = np.array(CLOTHES_COLORS[character.attributes["clothes_color"]])
    props, spans = [], []
    rest = np.empty((frames, 6), np.float32)
    for at, scene in take.scenes:
        rest[at:] = scene.rest
    if "hand" in rngs:
        prop, where = draw_hand(rngs["hand"], take.pose, skin, sleeve)
        props.append(prop)
        spans.append(("hand", where))
    if "microphone" in rngs:
        prop, where = draw_microphone(rngs["microphone"], take.pose, rest, skin, sleeve)
        props.append(prop)
        spans.append(("microphone", where))
    filters = []
    for fault in faults:
        if fault.kind == "blur":
            filters.append(imperfections.Blur(fault, min(task.width, task.height)))
        if fault.kind == "noise":
            filters.append(imperfections.Noise(fault, task.width, task.height, rngs["noise"]))

    height, width = task.height, task.width
    labels = np.empty((frames, height, width), np.uint8)
    landmarks, hidden = np.empty((frames, 68, 2), np.float32), np.zeros((frames, 68), bool)
    video_path = Path(f"{base}.mp4.partial")
    stages = [(at, _stage(model, take, scene, props)) for at, scene in take.scenes]
    with VideoWriter(video_path, width, height, take.audio, take.rate) as video:
        for t in range(frames):
            stage = stages[-1][1] if t >= stages[-1][0] else stages[0][1]
            image, labels[t], landmarks[t], hidden[t] = stage.draw(t)
            for change in filters:
                image = change(image, t)
            video.write(image)
    for kind, where in spans:
        here = hidden[where["start"] : where["end"]]
        share = round(float(here.mean()), 3) if len(here) else 0.0
        details = {"place": where["place"]}
        faults.append(
            imperfections.Imperfection(kind, where["start"], where["end"], share, "landmarks hidden", details)
        )
    for fault in faults:
        if fault.kind == "compression":
            compress(video_path, width, height, int(fault.strength), fault.details["shrink"])
    attributes = character.attributes | take.scenes[0][1].attributes
    description = describe_truth(
        attributes,
        take.scenes[0][1].backdrop,
        landmarks,
        take.pose,
        take.expression,
        model.expression_names,
        take.words,
        _pitch(take),
    )
    truth = {
        "name": base.name,
        "made_by": made_by,
        "frames": frames,
        "fps": VIDEO_FPS,
        "size": [width, height],
        "text": take.text,
        "words": take.words,
        "phonemes": take.phonemes,
        "language": "en",
        "voice": dataclasses.asdict(take.voice),
        "attributes": attributes,
        "description": json.loads(description),
        "imperfections": [fault.record() for fault in faults],
        "face_model": model.name,
        "expression_names": model.expression_names,
        "shape_names": model.shape_names,
    }
    arrays = {
        "shape": character.shape,
        "expression": take.expression,
        "pose": take.pose.astype(np.float32),
        "camera": take.scenes[0][1].camera,
        "landmarks": landmarks,
        "hidden": hidden,
        "labels": labels,
    }
    _save_arrays(Path(f"{base}.truth.npz.partial"), arrays)
    Path(f"{base}.truth.json.partial").write_text(json.dumps(truth, indent=1, ensure_ascii=False), encoding="utf-8")
    for suffix in (".truth.npz", ".truth.json", ".mp4"):
        os.replace(f"{base}{suffix}.partial", f"{base}{suffix}")
    return {"name": base.name, "frames": frames, "seconds": time.monotonic() - start, "skipped": False}


def _stage(model, take, scene, props):
    performers = [Performer(take.character, take.expression, take.pose, np.broadcast_to(scene.rest, (take.frames, 6)))]
    if take.other is not None:
        performers.append(Performer(*take.other))
    return Stage(model, scene, performers, props)


def _pitch(take: Take) -> float | None:
    """Returns the median pitch of the voice in hertz, None without a voice."""
    from scipy.signal import resample_poly

    from pipelines.stages.speech import SpeechConfig, pitch

    if not take.words:
        return None
    divisor = int(np.gcd(AUDIO_RATE, take.rate))
    sound = resample_poly(take.audio.astype(np.float32) / 32768, AUDIO_RATE // divisor, take.rate // divisor)
    voiced = pitch(sound.astype(np.float32), SpeechConfig())
    voiced = voiced[voiced > 0]
    return float(np.median(voiced)) if len(voiced) >= 10 else None


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz at zlib's fastest level; equal arrays are equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in arrays.items():
            # Opened by name: it then has a fixed date and this level (a ZipInfo would bring zlib's default).
            with file.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
