import json

import jax
import numpy as np
import pytest

from infra import generate_command
from infra.cli import main
from infra.generate_command import GenerateConfig, generate
from infra.given import Reference
from infra.training.command import train_named
from infra.training.jobs import build_job
from models.errors import InputError
from models.sampling import Sampling
from models.signals import audio_samples
from models.tokenizers import text as text_tokenizer
from pipelines.dataset import Dataset
from pipelines.inspect import wav_bytes
from pipelines.stages.frames import decode_video
from tests.infra.training.test_decoder_job import SMALL
from tests.talking_ellipses import write_talking_dataset

CHAIN = "shape>expression>semantics>description>video"
SAMPLES = audio_samples(19) + 100  # not on the grid: 19 frames


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dataset and untrained models of every kind: what is made is noise, but all of it is made."""
    root = tmp_path_factory.mktemp("world")
    dataset, models = write_talking_dataset(root / "dataset"), root / "models"
    config = text_tokenizer.TextConfig()
    lines = [record["description"] for record in Dataset(dataset).column("description")]
    text_tokenizer.save(models / "text", text_tokenizer.fit(lines * 8, config), config)
    for name in ("speech", "image", "semantic", "shape", "expression", "pose"):
        job = build_job(name, dataset=dataset, tokenizers=models)
        export_untrained(job, models / name)
    write_language(models)
    decoder = SMALL | {"autoencoder.steps": "1", "diffusion.steps": "1"}
    train_named("decoder", dataset=dataset, tokenizers=models, workdir=models / "decoder", overrides=decoder)
    audio = np.asarray(Dataset(dataset).column("speech")[0]["audio"])[:SAMPLES]
    (root / "speech.wav").write_bytes(wav_bytes(audio))
    return root


def export_untrained(job, directory):
    init = jax.jit(job.init, compiler_options={"xla_backend_optimization_level": "0"})
    job.export(init(jax.random.key(0)), directory)


def write_language(models):
    from infra.presets.language import TINY
    from infra.training.jobs import preset_config
    from infra.training.language_job import LanguageJobConfig, make_job
    from tasks.generate import read_token_space

    small = {"width": "32", "layers": "1", "heads": "1", "head_width": "32", "hidden": "32", "image_width": "8"}
    preset = preset_config("infra.presets.language", "tiny", small)
    assert preset.window == TINY.window
    space = read_token_space(models)
    job = make_job(LanguageJobConfig(preset, space.vocabulary), text=space.text, weights=space.weights)
    export_untrained(job, models / "language")


@pytest.fixture(autouse=True)
def ellipses_have_no_landmarks(monkeypatch, world):
    """The faces of this dataset are ellipses: their own labels stand in for the segmentation of a given picture."""
    dataset = Dataset(world / "dataset")
    reference = Reference(dataset.column("image")[0]["image"], dataset.column("semantics")[0]["labels"][0])

    def read(path):
        return reference

    monkeypatch.setattr(generate_command, "read_reference", read)


def config(world, output, **changes):
    given = (("speech", str(world / "speech.wav")), ("image", "face.png"))
    fields = {"given": given, "want": "video", "chain": CHAIN, "models": str(world / "models"), "output": str(output)}
    return GenerateConfig(**fields | changes)


def test_a_video_and_every_intermediate_on_the_way(world, tmp_path):
    import av

    made = generate(config(world, tmp_path))
    outputs = made["outputs"]
    names = ("shape", "expression", "animation", "semantics", "description", "video", "overview")
    assert sorted(outputs) == sorted(names)
    assert made["frames"] == 19 and made["seed"] == 0 and made["tokens"] > 0
    assert json.loads((tmp_path / "summary.json").read_text())["outputs"] == outputs
    for name in ("animation", "semantics", "video"):
        data = open(outputs[name], "rb").read()
        assert decode_video(data).shape == (19, 256, 256, 3), name
        with av.open(outputs[name]) as container:
            sound = container.streams.audio[0]
            heard = np.concatenate([f.to_ndarray().reshape(-1) for f in container.decode(sound)])
            assert sound.rate == 16_000 and abs(len(heard) - SAMPLES) < 2_200 and np.abs(heard).max() > 0.01
    assert np.load(outputs["expression"])["expression"].shape[0] == 19
    assert len(json.loads(open(outputs["shape"]).read())["shape"]) == 38
    assert json.loads(open(outputs["description"]).read())
    assert set(made["steps"]) == {"shape", "expression", "semantics", "description", "video"}

    # Again with the same seed: the same bytes. What was made can be given: here everything but the video.
    again = generate(config(world, tmp_path / "again"))
    assert open(again["outputs"]["video"], "rb").read() == open(outputs["video"], "rb").read()
    given = (("image", "face.png"), ("semantics", str(tmp_path / "semantics.npz")))
    alone = generate(config(world, tmp_path / "alone", given=given, chain="direct"))
    assert alone["frames"] == 19 and alone["tokens"] == 0 and alone["text_condition"] is False
    assert list(alone["outputs"]) == ["video", "overview"]


def test_other_wants_and_lengths(world, tmp_path):
    given = (("description", '{"hair": "red"}'),)
    made = generate(config(world, tmp_path, given=given, want="expression", chain="direct", frames=7))
    assert np.load(made["outputs"]["expression"])["expression"].shape[0] == 7
    made = generate(config(world, tmp_path / "s", given=given, want="speech", chain="direct", frames=7))
    import wave

    with wave.open(made["outputs"]["speech"]) as file:
        assert file.getnframes() == audio_samples(7)
    made = generate(config(world, tmp_path / "i", given=given, want="image", chain="direct", frames=1))
    assert made["outputs"]["image"].endswith("image.png")


def test_what_has_begun_is_gone_on_with(world, tmp_path):
    """Longer than a window: every later one reads the past of what is there."""
    speech = ("speech", str(world / "speech.wav"))
    begun = np.random.default_rng(0).normal(size=(10, 28)).astype(np.float32)
    np.savez(tmp_path / "begun.npz", expression=begun)
    given = (speech, ("expression", str(tmp_path / "begun.npz")))
    made = generate(config(world, tmp_path / "o", given=given, want="expression", chain="direct"))
    assert np.load(made["outputs"]["expression"])["expression"].shape == (19, 28)
    # Nine frames are two windows' starts at least: only what comes after them is drawn.
    whole = generate(config(world, tmp_path / "w", given=(speech,), want="expression", chain="direct"))
    assert 0 < made["tokens"] < whole["tokens"]
    alone = generate(config(world, tmp_path / "s", given=(speech,), want="speech", chain="direct", frames=61))
    import wave

    with wave.open(alone["outputs"]["speech"]) as file:
        assert file.getnframes() == audio_samples(61)
    with pytest.raises(InputError, match="19 frames, expected fewer than the 19"):
        generate(config(world, tmp_path / "n", given=(speech,), want="speech", chain="direct", frames=19))


def test_many_requests_share_batches_and_are_what_they_are_alone(world, tmp_path, capsys):
    speech = str(world / "speech.wav")
    lines = [
        {"given": {"speech": speech, "image": "face.png"}, "seed": 3},
        {"given": {"speech": speech}, "seed": 4, "frames": 9, "output": str(tmp_path / "second")},
        {"given": {"description": "red hair"}, "want": "shape", "frames": 1},
    ]
    (tmp_path / "many.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    common = ["--models", str(world / "models"), "--output", str(tmp_path / "many"), "--chain", "direct"]
    arguments = [*common, "--requests", str(tmp_path / "many.jsonl"), "--want", "expression", "--top-k", "50"]
    assert main(["generate", *arguments, "--guidance", "2", "--json"]) == 0
    out = capsys.readouterr()
    summary = json.loads(out.out.strip().splitlines()[-1])
    assert "for 2 requests" in out.err and len(summary["requests"]) == 3
    first, second, third = summary["requests"]
    assert first["outputs"]["expression"] == str(tmp_path / "many/000/expression.npz")
    assert second["outputs"]["expression"] == str(tmp_path / "second/expression.npz") and second["frames"] == 9
    assert list(third["outputs"])[0] == "shape" and third["outputs"]["shape"].endswith("many/002/shape.json")
    assert summary["tokens"] == sum(one["tokens"] for one in summary["requests"])
    sampling = Sampling(top_k=50, guidance=2.0)
    given = (("speech", speech), ("image", "face.png"))
    alone = config(world, tmp_path / "alone", given=given, want="expression", chain="direct", seed=3, sampling=sampling)
    made = np.load(generate(alone)["outputs"]["expression"])["expression"]
    np.testing.assert_allclose(made, np.load(first["outputs"]["expression"])["expression"], atol=1e-4)


def test_a_clip_of_a_dataset_can_be_given(world, tmp_path):
    clip = f"{world / 'dataset'}:clip01"
    made = generate(config(world, tmp_path, given=(), clip=clip, want="shape", chain="direct"))
    assert made["given"] == ["image", "speech"] and made["frames"] == 21
    for bad in (f"{world / 'dataset'}:clip99", "clip01"):
        with pytest.raises(InputError, match="--clip"):
            generate(config(world, tmp_path, given=(), clip=bad, want="shape", chain="direct"))


def test_bad_input_is_named(world, tmp_path):
    speech = ("speech", str(world / "speech.wav"))
    cases = (
        ({"given": ()}, "nothing is given"),
        ({"given": (speech,)}, "no image"),
        ({"given": (("speech", "absent.wav"), ("image", "face.png"))}, "absent.wav"),
        ({"frames": 20}, "--frames 20"),
        ({"given": (("script", "hello"),), "want": "shape", "chain": "direct"}, "--frames"),
        ({"chain": "semantics>shape"}, "expected video"),
        ({"want": "smell"}, "--want smell"),
        ({"models": str(tmp_path / "nowhere")}, "nowhere"),
    )
    for changes, message in cases:
        with pytest.raises(InputError, match=message):
            generate(config(world, tmp_path, **changes))


def test_a_decoder_with_another_text_tokenizer_is_refused(world, tmp_path):
    import shutil

    models = tmp_path / "models"
    shutil.copytree(world / "models", models, ignore=shutil.ignore_patterns("checkpoints"))
    other = text_tokenizer.TextConfig()
    text_tokenizer.save(models / "text", text_tokenizer.fit(["something else entirely"] * 8, other), other)
    given = (("image", "face.png"), ("semantics", str(tmp_path / "s.npz")))
    np.savez(tmp_path / "s.npz", labels=np.zeros((5, 128, 128), np.uint8))
    with pytest.raises(InputError, match="text tokenizer"):
        generate(config(world, tmp_path, models=str(models), given=given, chain="direct"))


def test_the_command(world, tmp_path, capsys):
    arguments = ["--want", "shape", "--chain", "direct", "--models", str(world / "models"), "--output", str(tmp_path)]
    assert main(["generate", "--given", f"speech={world / 'speech.wav'}", *arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert summary["outputs"]["shape"] == f"{tmp_path}/shape.json" and {"tokens", "seconds", "seed"} <= set(summary)
    assert main(["generate", "--given", "speech=absent.wav", *arguments]) == 2
    assert main(["generate", "--given", "smell=rose", *arguments]) == 2
