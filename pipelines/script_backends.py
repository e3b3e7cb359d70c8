"""The ways to make the script column: who listens or reads. Each says in the record who it was.

Functions of one clip, or of keyed clips (pipelines/keyed.py); settings are fields of AnnotateConfig.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.keyed import Fields, Keyed, Outcome
from pipelines.records import Record


def by_pocketsphinx(clip: Record, columns: dict[str, Record], settings: Any, backend: str) -> Fields:
    from pipelines.stages.transcribe import transcribe

    speech = columns["speech"]
    return {"script": transcribe(speech["audio"], speech["activity"], settings.guard).fields()}


def by_subtitles(clip: Record, columns: dict[str, Record], settings: Any, backend: str) -> Fields:
    """Subtitles beside the source, or the clip fails: NoSubtitlesError."""
    from pipelines.stages.subtitles import subtitles_script

    activity = columns["speech"]["activity"]
    script = subtitles_script(clip["source"], clip["start_frame"], clip["end_frame"], activity, settings.guard)
    return {"script": script.fields()}


def by_subtitles_or_pocketsphinx(clip: Record, columns: dict[str, Record], settings: Any, backend: str) -> Fields:
    """Subtitles where a source has some, else the embedded recogniser; the record's backend says which it was."""
    from pipelines.stages.subtitles import NoSubtitlesError

    try:
        return by_subtitles(clip, columns, settings, backend)
    except NoSubtitlesError:
        return by_pocketsphinx(clip, columns, settings, backend)


def by_whisper(items: Sequence[Keyed], settings: Any, backend: str) -> Iterable[tuple[str, Outcome]]:
    """Many clips at once; a batch that fails as a whole is tried again in parts by whoever calls."""
    from pipelines.stages.whisper import Sound, load_whisper, transcribe_batch

    sounds = {item.key: Sound(item.columns["speech"]["audio"], item.columns["speech"]["activity"]) for item in items}
    scripts = transcribe_batch(sounds, load_whisper(settings.whisper_weights), settings.whisper, settings.guard)
    for key, script in scripts.items():
        yield key, {"script": script.fields()}


def whisper_weights(settings: Any) -> str:
    """What identifies the weights. InputError without --whisper-weights, or if a file is missing."""
    from models.errors import InputError
    from pipelines.stages.whisper import weights_sha256

    if not settings.whisper_weights:
        raise InputError(
            "script=whisper: expected --whisper-weights PATH, a folder with config.json, model.safetensors"
        )
    return f"whisper {weights_sha256(settings.whisper_weights)}"
