"""The annotators' table: what a backend says of itself is what it is given, and what its column depends on."""

from dataclasses import fields, replace

import pytest

from models.errors import InputError
from pipelines.annotators import (
    ANNOTATORS,
    AnnotateConfig,
    Backend,
    by_name,
    code_of,
    producer_of,
    roots_of,
    settings_of,
)
from pipelines.dataset import ANNOTATIONS
from pipelines.stages.gemini import GeminiConfig, GeminiService
from pipelines.stages.hallucinations import GuardConfig
from pipelines.stages.speech import SpeechConfig

CONFIG = AnnotateConfig("set")
BACKENDS = [(item, backend) for item in ANNOTATORS for backend in item.backends]
NAMES = [f"{item.name} by {backend.name}" for item, backend in BACKENDS]


def test_every_column_is_made_by_one_annotator():
    columns = [column for item in ANNOTATORS for column in item.columns]
    assert sorted(columns) == sorted(ANNOTATIONS)
    assert all(by_name(item.name) is item for item in ANNOTATORS)


@pytest.mark.parametrize(("annotator", "backend"), BACKENDS, ids=NAMES)
def test_a_backend_is_one_function_with_settings_that_there_are(annotator, backend):
    assert (backend.function is None) != (backend.batch_function is None)
    assert backend.batch == 1 or backend.batch_function is not None
    known = {field.name for field in fields(AnnotateConfig)}
    assert {*backend.settings, *backend.places} <= known and not set(backend.settings) & set(backend.places)
    assert annotator.backend(backend.name) is backend
    assert vars(settings_of(backend, CONFIG)).keys() == {*backend.settings, *backend.places}


def test_code_starts_at_the_function_and_at_own_classes_of_settings():
    speech, script, semantics = (by_name(name) for name in ("speech", "script", "semantics"))
    assert roots_of(speech.backend("energy"), CONFIG) == (
        "pipelines.annotators._speech",
        "pipelines.stages.speech.SpeechConfig",
    )
    assert roots_of(script.backend("whisper"), CONFIG) == (  # where its weights lie is a text: no code
        "pipelines.script_backends.by_whisper",
        "pipelines.stages.hallucinations.GuardConfig",
        "pipelines.stages.whisper.WhisperConfig",
    )
    assert roots_of(semantics.backend("geometry"), CONFIG) == (
        "pipelines.annotators._semantics_by_geometry",
        "pipelines.face_model.FaceModelFiles",
        "pipelines.stages.segment.SegmentConfig",
    )


def test_an_unknown_backend_is_named_with_those_there_are():
    with pytest.raises(InputError, match="--backend speech=loud: expected one of silero, energy"):
        by_name("speech").backend("loud")


def test_a_column_depends_on_the_settings_that_its_backend_reads_and_on_no_others():
    energy = by_name("speech").backend("energy")
    plain = producer_of(energy, CONFIG)
    louder = replace(CONFIG, speech=SpeechConfig(voicing=0.6))
    assert producer_of(energy, louder).config != plain.config
    others = replace(CONFIG, dataset="other", accelerator="type:x", guard=GuardConfig(silent=0.6))
    assert producer_of(energy, others) == plain
    assert (plain.backend, plain.weights, plain.code) == ("energy", "", code_of(energy, CONFIG))


def test_where_things_lie_and_how_fast_to_ask_makes_nothing_again():
    gemini = by_name("description").backend("gemini")
    here = replace(CONFIG, gemini_service=GeminiService("project"))
    elsewhere = replace(CONFIG, dataset="gs://b/set", gemini_service=GeminiService("other", rpm=600.0))
    assert producer_of(gemini, elsewhere) == producer_of(gemini, here)
    assert producer_of(gemini, replace(here, gemini=GeminiConfig("gemini-2.5-flash"))) != producer_of(gemini, here)


def test_weights_are_part_of_what_makes_a_column():
    backend = Backend("b", _nothing, weights=lambda settings: f"of {settings.segmenter}", places=("segmenter",))
    one, two = (producer_of(backend, replace(CONFIG, segmenter=name)) for name in ("a", "b"))
    assert (one.weights, two.weights) == ("of a", "of b") and one.config == two.config


def _nothing(clip, columns, settings, backend):
    return {}
