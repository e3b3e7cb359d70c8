"""``archon measure learning``: does the language model use what it is given? On the embedded corpus, from nothing.

Renders a corpus of talking heads, curates, annotates and tokenizes it with small tokenizers trained on it, trains the
language model, and measures it on the sixth of the people that nothing was trained on. Killed and called again, it goes
on where it was.

- ``clips``, ``heldout_clips``: of the corpus.
- ``<family>_right``, ``<family>_shuffled``: nats a target token with the right condition and with another clip's, mean
  over held-out clips, for each family of tasks; ``<family>_gain`` their difference, ``<family>_gain_low`` and
  ``<family>_gain_high`` its 95 % interval over clips.
- ``lips``: correlation of the mouth's opening with that of the rendered truth, mean over clips: the mean opening of
  ``--draws`` expressions that the model generates from a held-out clip's speech, decoded; ``lips_low``, ``lips_high``
  its interval. ``lips_single``: of one such expression.
- ``lips_shuffled``, ``lips_single_shuffled``: the same openings against the truths of other clips; ``lips_mean``: the
  mean opening of the training clips at each moment against the truth, the best that can be said without hearing (one
  mean face for all moments has no correlation with anything); ``lips_over_shuffled_low``,
  ``lips_single_over_shuffled_low``, ``lips_over_mean_low``: lower ends of the intervals of the differences.
- ``lips_tokenizer``: what the expression tokenizer lets through: the truth's own tokens, decoded.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from infra.heldout import one_row_maker, row_progress
from models.errors import InputError

TARGETS: dict = {
    **{f"{family}_gain_low": (">=", 0.0) for family in ("continuation", "cross-modal", "chained")},
    "lips_over_shuffled_low": (">=", 0.0),
    "lips_single_over_shuffled_low": (">=", 0.0),
    "lips_over_mean_low": (">=", 0.0),
}
CLIPS, STEPS = 150, 1800  # most of an hour on two cores
# A uniform mixture shows each second of speech to each task once or twice in that time: too little to learn lips from.
HEARD_SHARE = 0.8
# Slower steps of more rows than the demo's: at its pace the model learns to go on with a movement and never to listen.
# Without dropout it learns the corpus by heart.
OVERRIDES = {"dropout": "0.15", "rows": "2", "peak_rate": "1e-3", "final_rate": "5e-5", "warmup": "50"}
LIPS_CONTEXT = 256  # ids: speech and expression of a window fit, and attention costs a fifth of the model's own context


def register(parser: argparse.ArgumentParser) -> None:
    """Adds arguments."""
    parser.add_argument("--workdir", type=Path, required=True, help="where corpus, dataset and models go")
    parser.add_argument("--clips", type=int, default=CLIPS, help="of the corpus (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the language model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=16, help="expressions for each clip (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of these (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0, help="of these (default: %(default)s)")


def measure(args: argparse.Namespace) -> dict:
    """Makes what is not there yet, measures, and returns the figures of the module's text.

    Raises:
        InputError: too few clips, or a work directory of another run.
    """
    from infra.demo import DemoConfig, demo
    from infra.training.command import train_named
    from models.sampling import Sampling
    from pipelines.beam import RunnerOptions
    from pipelines.dataset import Dataset, write_json
    from tasks.generate import load_language

    if args.clips < 12:
        raise InputError(f"--clips {args.clips}: expected at least 12: a sixth of them is held out")
    if args.draws < 1:
        raise InputError(f"--draws {args.draws}: expected at least 1")
    sampling = Sampling(temperature=args.temperature, guidance=args.guidance)
    begin = time.monotonic()
    config = DemoConfig(workdir=str(args.workdir), clips=args.clips, seed=args.seed)
    demo(config, RunnerOptions(), last="tokenize")
    dataset, models = args.workdir / "dataset", args.workdir / "models"
    write_json(str(args.workdir / "mixture.json"), mixture())
    train_named(
        "language",
        dataset=dataset,
        tokenizers=models,
        workdir=models / "language",
        overrides={"tasks": str(args.workdir / "mixture.json"), **OVERRIDES},
        steps=args.steps,
        seed=args.seed,
    )
    language = load_language(models / "language", models)
    figures = {"clips": args.clips}
    figures |= family_gains(language, Dataset(dataset).column("tokens"))
    figures |= lips(language, args.workdir, args.seed, sampling, args.draws)
    print(f"measured in {time.monotonic() - begin:.0f} s, all that was made this time included")
    return figures


def mixture() -> dict:
    """Returns a file of weights: all 72 tasks alike, and four times as often those that hear lips move."""
    from tasks.registry import TASKS

    heard = [task.name for task in TASKS if hears_lips(task)]
    weights = {task.name: (1 - HEARD_SHARE) / len(TASKS) for task in TASKS}
    for name in heard:
        weights[name] += HEARD_SHARE / len(heard)
    return {"tasks": {name: {"weight": weight} for name, weight in weights.items()}}


def hears_lips(task) -> bool:
    """Whether a task's one step makes expression from speech and nothing else but the expression before."""
    given = {source.modality for source in task.inputs if source.state == "current"}
    return task.outputs == ("expression",) and given == {"speech"}


def family_gains(language, column) -> dict:
    """Returns what the right condition is worth to each family of tasks; see the module's text."""
    from tasks.conditions import gain, likelihoods
    from tasks.loader import TokenRecords
    from tasks.registry import FAMILIES, TASKS

    records = TokenRecords.of_split(column, "heldout")
    maker, layout = one_row_maker(language)
    progress = row_progress("learning")
    nats, tokens = likelihoods(language.config, language.params, records, maker, layout, progress)
    figures = {"heldout_clips": len(records)}
    for family in FAMILIES:
        found = gain(nats, tokens, [number for number, task in enumerate(TASKS) if task.family == family])
        if found is None:
            raise InputError(f"no task of the family {family} fits a held-out clip; expected longer clips or rows")
        figures |= {
            f"{family}_right": found.right,
            f"{family}_shuffled": found.shuffled,
            f"{family}_gain": found.gain,
            f"{family}_gain_low": found.low,
            f"{family}_gain_high": found.high,
        }
    return figures


def lips(language, workdir: Path, seed: int, sampling, draws: int) -> dict:
    """Generates ``draws`` expressions of every held-out clip from its speech; see the module's text."""
    from models.face.model import load_face_model
    from models.tokenizers import load_tokenizer
    from pipelines.dataset import Dataset
    from pipelines.measure.corpus import read_corpus
    from pipelines.measure.fits import cut_truth, mouth_opening
    from tasks.conditions import interval
    from tasks.generate import Request, generate

    model, tokenizer = load_face_model(), load_tokenizer(workdir / "models/expression")
    dataset = Dataset(workdir / "dataset")
    truths = {Path(video).name: arrays for video, _, arrays in read_corpus(workdir / "videos")}
    openings: dict[str, list[np.ndarray]] = {"train": [], "heldout": []}
    requests, through = [], []
    for tokens, clip in zip(dataset.column("tokens"), dataset.column("clips"), strict=True):
        if tokens["error"]:
            continue
        truth = cut_truth(truths[Path(clip["source"]).name], clip)
        openings[tokens["split"]].append(mouth_opening(model, truth["shape"], truth["expression"]))
        if tokens["split"] == "heldout":
            requests.append(Request({"speech": tokens["speech"]}, int(tokens["num_frames"])))
            through.append(tokenizer.decode(tokens["expression"]))
    still = np.zeros(model.num_shape, np.float32)
    language = replace(language, length=min(language.length, LIPS_CONTEXT))
    heard: list[list[np.ndarray]] = [[] for _ in requests]
    progress = row_progress("lips")
    for draw in range(draws):
        drawn = [replace(request, seed=seed + draw) for request in requests]
        for clip, (codes, _) in zip(heard, generate(language, drawn, "expression", sampling=sampling), strict=True):
            clip.append(mouth_opening(model, still, tokenizer.decode(codes)))
        progress((draw + 1) * len(requests))
    truth = openings["heldout"]
    right, wrong = follow([np.mean(clip, axis=0) for clip in heard], truth)
    single = np.mean([follow([clip[draw] for clip in heard], truth) for draw in range(draws)], axis=0)
    mean, _ = follow([mean_track(openings["train"])] * len(truth), truth)
    kept, _ = follow([mouth_opening(model, still, expression) for expression in through], truth)
    low, high = interval(right)
    return {
        "lips": float(right.mean()),
        "lips_low": low,
        "lips_high": high,
        "lips_single": float(single[0].mean()),
        "lips_shuffled": float(wrong.mean()),
        "lips_single_shuffled": float(single[1].mean()),
        "lips_mean": float(mean.mean()),
        "lips_over_shuffled_low": interval(right - wrong)[0],
        "lips_single_over_shuffled_low": interval(single[0] - single[1])[0],
        "lips_over_mean_low": interval(right - mean)[0],
        "lips_tokenizer": float(kept.mean()),
    }


def follow(openings: list[np.ndarray], truth: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the correlation of each opening with its own truth, and its mean correlation with the others' truths.

    Where two are of different lengths, as much of both as the shorter has is compared.
    """
    from pipelines.measure.fits import correlation

    each = np.array([[correlation(a[: len(b)], b[: len(a)]) for b in truth] for a in openings])
    own = np.diagonal(each)
    return own, (each.sum(axis=1) - own) / max(1, len(truth) - 1)


def mean_track(tracks: list[np.ndarray]) -> np.ndarray:
    """Returns the mean of tracks of several lengths at each moment, as long as the longest."""
    total, count = np.zeros((2, max(map(len, tracks))))
    for track in tracks:
        total[: len(track)] += track
        count[: len(track)] += 1
    return total / count
