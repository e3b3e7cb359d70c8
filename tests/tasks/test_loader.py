import dataclasses

import numpy as np
import pytest

from infra.presets.language import PAPER
from infra.training.language_job import loader_config, model_config
from models.errors import InputError
from models.language_model import LanguageModelConfig
from tasks.loader import (
    PACKINGS,
    ExampleMaker,
    HeadLayout,
    LoaderConfig,
    TokenRecords,
    arrange,
    heldout_batches,
    heldout_examples,
    sample_window,
    training_batches,
)
from tasks.mixture import uniform_weights
from tasks.modalities import MODALITIES, PAPER_CODEBOOKS, Range, Vocabulary
from tasks.prompts import parse, to_pieces
from tasks.registry import TASKS, task_named
from tasks.windows import Window, WindowConfig
from tests.token_records import SMALL, ByteText, record, vocabulary

VOCABULARY = vocabulary()
MODEL = LanguageModelConfig(
    VOCABULARY.sizes[0][0], VOCABULARY.sizes[1][0], tuple(n for levels in VOCABULARY.sizes[2:] for n in levels)
)
LAYOUT = HeadLayout.of(VOCABULARY, MODEL)
CONFIG = LoaderConfig(length=1536, rows=2, block=64, bins=4, window=WindowConfig(3, 3))
RECORDS = TokenRecords([record(i) for i in range(6)], range(6))


def maker(config=CONFIG, weights=None) -> ExampleMaker:
    return ExampleMaker(TASKS, uniform_weights(TASKS) if weights is None else weights, config, VOCABULARY, ByteText())


@dataclasses.dataclass(frozen=True)
class TwoLevels:
    """The vocabulary of ``arrange``'s docstring: 100 text ids and two levels of 10."""

    ranges = (Range("text", 0, 0, 100), Range("speech", 0, 100, 10), Range("speech", 1, 110, 10))


def test_the_arrays_of_the_docstring():
    row = lambda *values: np.array([values])  # noqa: E731
    batch = arrange(
        tokens=row(7, 8, 101, 102, 115, 9, 3, 2, 0),
        segments=row(1, 1, 1, 1, 1, 2, 2, 2, 0),
        positions=row(0, 1, 2, 3, 4, 0, 1, 2, 0),
        target=row(0, 0, 1, 1, 1, 0, 1, 1, 0),
        config=LoaderConfig(length=9, rows=1, block=2, bins=1, window=WindowConfig()),
        vocabulary=TwoLevels(),
        layout=HeadLayout(classes=(0, 1, 1), rows=(0, 0, 10), num_classes=2),
    )
    assert batch["bounds"].tolist() == [[1, 1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch["head_positions"][0, :3].tolist() == [[5, 6], [1, 2], [3, 0]]
    assert batch["head_targets"][0, :3].tolist() == [[3, 2], [1, 2], [5, 0]]
    assert batch["head_weights"].sum(2).tolist() == [[2, 2, 1, 0, 0, 0, 0, 0]]
    assert batch["head_starts"][0, :3].tolist() == [0, 0, 10]
    assert batch["head_ends"].tolist() == [[1, 3]]


def test_blocks_name_every_target_once_and_the_position_before_it():
    batch = next(iter(training_batches(RECORDS, maker(), LAYOUT, seed=0)))
    offsets = np.cumsum([0, *MODEL.tables.values()])
    tables = list(MODEL.tables)
    for row in range(CONFIG.rows):
        tokens, segments = batch["tokens"][row], batch["segments"][row]
        begin, seen = 0, []
        for (table, size), end in zip(MODEL.classes, batch["head_ends"][row], strict=True):
            for block in range(begin, end):
                used = batch["head_weights"][row, block] > 0
                at = batch["head_positions"][row, block][used]
                ids = batch["head_targets"][row, block][used] + batch["head_starts"][row, block]
                np.testing.assert_array_equal(tokens[at + 1], ids + offsets[tables.index(table)])
                np.testing.assert_array_equal(segments[at], segments[at + 1])
                assert np.all(batch["head_targets"][row, block] < size) and used.any()
                seen += (at + 1).tolist()
            begin = end
        assert len(seen) == len(set(seen)) == int(batch["head_weights"][row].sum()) > 0
        # A target is never in a prefix: nothing before it looks at it.
        bounds, own = batch["bounds"][row], np.arange(CONFIG.length)
        assert np.all(bounds[seen] == own[seen]) and np.all(bounds[np.array(seen) - 1] == own[np.array(seen) - 1])
        assert batch["head_weights"][row, batch["head_ends"][row, -1] :].sum() == 0


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_clock_is_packed_with_its_tokens(packing):
    plain, timed = (
        next(iter(training_batches(RECORDS, maker(config), LAYOUT, seed=0)))
        for config in (dataclasses.replace(CONFIG, packing=packing, clock=clock) for clock in (False, True))
    )
    clock = timed.pop("clock")
    for name, array in plain.items():
        np.testing.assert_array_equal(timed[name], array)
    assert clock.shape == plain["tokens"].shape and clock.dtype == np.int32
    clocked = [r for r in VOCABULARY.ranges if r.stream in ("speech", "expression", "pose", "semantics")]
    has = np.any([(plain["tokens"] >= r.start) & (plain["tokens"] < r.start + r.size) for r in clocked], axis=0)
    np.testing.assert_array_equal(clock > 0, has)


def test_no_row_has_more_targets_of_the_large_ranges_than_its_bound():
    free = [next(batches) for batches in [iter(training_batches(RECORDS, maker(), LAYOUT, seed=0))] for _ in range(12)]
    bound = 300
    config = dataclasses.replace(CONFIG, wide=bound)
    stream = iter(training_batches(RECORDS, maker(config), LAYOUT, seed=0))
    bounded = [next(stream) for _ in range(12)]
    wide = VOCABULARY.ranges[1].start + VOCABULARY.ranges[1].size  # text and image come first

    def most(batches):
        counts = []
        for batch in batches:
            for row in range(CONFIG.rows):
                used = batch["head_weights"][row] > 0
                counts.append(int(np.sum(batch["tokens"][row][batch["head_positions"][row][used] + 1] < wide)))
        return max(counts)

    assert most(free) > bound >= most(bounded) > 0
    assert {name: a.shape for name, a in bounded[0].items()} == {name: a.shape for name, a in free[0].items()}
    # An example that has more by itself is not used.
    image = np.zeros(len(TASKS))
    image[[task.name for task in TASKS].index("description-to-image")] = 1
    with pytest.raises(InputError, match="no task fits"):
        maker(dataclasses.replace(CONFIG, wide=255), image)(record(0), np.random.default_rng(0))


def test_a_share_of_examples_comes_without_conditions():
    """What classifier-free guidance compares with: the output, its past, and nothing else."""
    weights = np.zeros(len(TASKS))
    weights[[task.name for task in TASKS].index("speech-to-expression")] = 1
    half = ExampleMaker(TASKS, weights, CONFIG, VOCABULARY, ByteText(), free=0.5)
    found = {False: 0, True: 0}
    for seed in range(200):
        built = half(RECORDS[0], np.random.default_rng(seed))
        pieces = to_pieces(built["tokens"], VOCABULARY, ByteText())
        given = {field.modality for field in parse([*pieces, "</expression></make>"]).given}
        assert given <= {"speech", "expression"}
        found["speech" in given] += 1
    assert 70 < found[False] < 130


def test_rows_are_whole_prompts_of_the_clips():
    batch = next(iter(training_batches(RECORDS, maker(), LAYOUT, seed=1)))
    scripts = {RECORDS[i]["script"] for i in range(len(RECORDS))}
    checked = 0
    for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True):
        for segment in range(1, segments.max() + 1):
            pieces = to_pieces(tokens[segments == segment], VOCABULARY, ByteText())
            texts = [piece for piece in pieces if isinstance(piece, str)]
            made = texts[-1].rsplit("<make><", 1)[1].split(" ")[0].split(">")[0]
            prompt = parse([*pieces, f"</{made}></make>"])
            assert prompt.make.content is not None
            assert all(field.content in scripts for field in prompt.given if field.modality == "script")
            checked += 1
    assert checked >= 2


def test_the_stream_is_a_function_of_the_seed_and_goes_on_at_the_exact_next_batch():
    stream = iter(training_batches(RECORDS, maker(), LAYOUT, seed=3))
    first = [next(stream) for _ in range(3)]
    state = stream.get_state()
    rest = [next(stream) for _ in range(4)]
    again = iter(training_batches(RECORDS, maker(), LAYOUT, seed=3))
    for batch in first:
        equal(next(again), batch)
    fresh = iter(training_batches(RECORDS, maker(), LAYOUT, seed=3))
    fresh.set_state(state)
    for batch in rest:
        equal(next(fresh), batch)
    other = next(iter(training_batches(RECORDS, maker(), LAYOUT, seed=4)))
    assert any(not np.array_equal(other[name], first[0][name]) for name in other)


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
def test_worker_processes_change_nothing_but_the_pace(packing):
    """Packed, the stream is that of one process; grouped, each worker groups its share. Both go on where they were."""
    alone = dataclasses.replace(CONFIG, packing=packing, groups=3)
    config = dataclasses.replace(alone, workers=2)
    stream = iter(training_batches(RECORDS, maker(config), LAYOUT, seed=3))
    batches = [next(stream) for _ in range(3)]
    state = stream.get_state()
    following = next(stream)
    stream.close()
    if packing == "best-fit":
        for ours, theirs in zip(batches, iter(training_batches(RECORDS, maker(alone), LAYOUT, seed=3)), strict=False):
            equal(ours, theirs)
    again = iter(training_batches(RECORDS, maker(config), LAYOUT, seed=3))
    again.set_state(state)
    equal(next(again), following)
    again.close()


def test_grouped_batches_have_one_length_and_as_many_ids():
    config = dataclasses.replace(CONFIG, packing="grouped", groups=4)
    stream = iter(training_batches(RECORDS, maker(config), LAYOUT, seed=0))
    shapes = set()
    for _ in range(12):
        batch = next(stream)
        rows, length = batch["tokens"].shape
        shapes.add((rows, length))
        assert rows % CONFIG.rows == 0 and rows * length <= CONFIG.rows * CONFIG.length < (rows + CONFIG.rows) * length
        assert batch["segments"].max() == 1 and (batch["segments"][:, 0] == 1).all()
        assert batch["head_weights"].sum() > 0
    assert len(shapes) > 1
    with pytest.raises(InputError, match="packing=tight: expected best-fit or grouped"):
        dataclasses.replace(CONFIG, packing="tight")


def test_processes_share_every_epoch(monkeypatch):
    """What two processes read of an epoch is all records, none twice; the next epoch is shared out anew."""
    monkeypatch.setattr("tasks.loader.READ", (0, 0))  # no reading ahead, so that reads come in order
    orders = []
    for index in range(2):
        source = Noted(RECORDS)
        stream = iter(training_batches(source, maker(), LAYOUT, seed=5, shard=(index, 2)))
        while len(source.read) < 6:
            next(stream)
        orders.append(source.read)
    for epoch in (slice(0, 3), slice(3, 6)):
        assert sorted(orders[0][epoch] + orders[1][epoch]) == list(range(6))
    assert orders[0][:3] != orders[0][3:6]
    with pytest.raises(InputError, match="6 token records to train on, expected at least 7"):
        training_batches(RECORDS, maker(), LAYOUT, seed=0, shard=(0, 7))


class Noted:
    """Records that note which of them were read."""

    def __init__(self, records):
        self.records, self.read = records, []

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.read.append(index)
        return self.records[index]


def test_long_rows_waste_little():
    """The published sizes: rows of 8,192, clips of 2 to 10 s, all tasks: at most 2 % padding."""
    codebooks = PAPER_CODEBOOKS | {"text": SMALL["text"]}
    wide = Vocabulary.of_codebooks(codebooks, VOCABULARY.eos)
    frames = 4 * np.random.default_rng(0).integers(15, 75, 40) + 1
    clips = TokenRecords([record(i, int(n), codebooks) for i, n in enumerate(frames)], range(40))
    config = loader_config(dataclasses.replace(PAPER, rows=8))
    make = ExampleMaker(TASKS, uniform_weights(TASKS), config, wide, ByteText())
    stream = iter(training_batches(clips, make, HeadLayout.of(wide, model_config(PAPER, wide)), seed=0))
    used = [next(stream)["segments"] > 0 for _ in range(PAPER.bins // 8)]
    assert np.mean(used) > 0.98


def equal(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def test_shapes_are_fixed():
    stream = iter(training_batches(RECORDS, maker(), LAYOUT, seed=0))
    shapes = [{name: (a.shape, a.dtype) for name, a in next(stream).items()} for _ in range(4)]
    assert all(s == shapes[0] for s in shapes)


def test_tasks_come_as_often_as_their_weights_say():
    weights = np.zeros(len(TASKS))
    names = [task.name for task in TASKS]
    weights[names.index("image-to-shape")] = 3
    weights[names.index("past-pose-to-pose")] = 1
    make = maker(weights=weights)
    outputs = [make(RECORDS[0], np.random.default_rng(i)) for i in range(400)]
    shapes = sum(int(o["target"].sum()) == 8 for o in outputs)
    assert 0.68 < shapes / 400 < 0.82


def test_a_clip_without_a_script_gets_other_tasks_and_an_impossible_row_says_so():
    silent = {**record(0), "script": ""}
    names = [task.name for task in TASKS]
    weights = np.zeros(len(TASKS))
    weights[[names.index("speech-to-script"), names.index("image-to-shape")]] = [1000, 1]
    assert maker(weights=weights)(silent, np.random.default_rng(0))["target"].sum() == 8
    with pytest.raises(InputError, match="no task fits into rows of 64"):
        maker(dataclasses.replace(CONFIG, length=64))(record(0), np.random.default_rng(0))


def test_windows_are_drawn_where_the_step_can_use_them():
    rng = np.random.default_rng(0)
    config = WindowConfig(6, 3)
    script = task_named("speech-to-script").steps[0]
    assert sample_window(script, 16, config, rng) == Window(0, 16)
    past = task_named("past-speech-to-speech").steps[0]
    drawn = {sample_window(past, 16, config, rng) for _ in range(100)}
    assert all(w.start > 1 for w in drawn) and len(drawn) == 4
    assert sample_window(past, 1, config, rng) is None
    either = task_named("speech-image-to-semantics").steps[0]
    first = sum(sample_window(either, 16, config, rng).start == 0 for _ in range(300))
    assert 70 < first < 130


def test_heldout_batches_are_the_same_every_time_and_end():
    once = list(heldout_batches(RECORDS, maker(), LAYOUT, limit=3))
    again = list(heldout_batches(RECORDS, maker(), LAYOUT, limit=3))
    assert len(once) == 3
    for left, right in zip(once, again, strict=True):
        equal(left, right)


def test_the_first_heldout_examples_are_of_every_task_and_then_come_all_steps_on_all_clips():
    short = TokenRecords([record(i, frames=37) for i in range(2)], range(2))
    made = list(heldout_examples(short, maker(dataclasses.replace(CONFIG, length=4096))))
    order = [int(example["task"][0]) for example in made]
    assert sorted(order[: len(TASKS)]) == list(range(len(TASKS)))
    for number, task in enumerate(TASKS):
        assert order.count(number) == 2 * len(task.steps), task.name
    # Both clips have their part in the first round.
    scripts = [made[n]["tokens"].tobytes() for n in range(len(TASKS))]
    assert len(set(scripts)) > len(TASKS) - 5
    # Tasks that are not sampled are not measured; a clip without a script has no example of one.
    weights = np.zeros(len(TASKS))
    weights[[order[0], 5]] = 1
    assert {int(e["task"][0]) for e in heldout_examples(short, maker(weights=weights))} == {order[0], 5}
    silent = TokenRecords([{**record(0, frames=37), "script": ""}], [0])
    texts = {n for n, task in enumerate(TASKS) if task.steps[0].output == "script" and len(task.steps) == 1}
    assert texts and not texts & {int(e["task"][0]) for e in heldout_examples(silent, maker())}


def test_the_last_held_out_batch_is_filled_up_with_empty_rows():
    weights = np.zeros(len(TASKS))
    weights[[task.name for task in TASKS].index("image-to-shape")] = 1
    wide = dataclasses.replace(CONFIG, rows=8)
    batches = list(heldout_batches(RECORDS, maker(wide, weights), LAYOUT, limit=None))
    assert len(batches) == 1 and batches[0]["tokens"].shape == (8, CONFIG.length)
    assert batches[0]["head_weights"].sum() == len(RECORDS) * 8
    assert not batches[0]["segments"][-1].any() and batches[0]["segments"][0].any()


def test_heldout_targets_know_their_task():
    batch = next(heldout_batches(RECORDS, maker(), LAYOUT, limit=None))
    used = batch["head_weights"] > 0
    assert batch["head_task"].shape == batch["head_weights"].shape
    starts = [r.start for r in VOCABULARY.ranges]
    ids = batch["tokens"][np.nonzero(used)[0], batch["head_positions"][used] + 1]
    streams = np.array([VOCABULARY.ranges[i].stream for i in np.searchsorted(starts, ids, side="right") - 1])
    for number in set(batch["head_task"][used].tolist()):
        made = {MODALITIES[step.output].stream for step in TASKS[number].steps}
        assert set(streams[batch["head_task"][used] == number].tolist()) <= made
    assert len(set(batch["head_task"][used].tolist())) > 1


def test_a_record_without_a_modality_is_named():
    broken = {k: v for k, v in record(0).items() if k != "pose"}
    with pytest.raises(InputError, match="clip0000: no field 'pose'"):
        TokenRecords([broken], [0])[0]


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="weights"):
        maker(weights=np.ones(3))
