from infra.heldout import one_row_maker, row_progress
from tasks.generate import Language
from tasks.registry import TASKS
from tasks.windows import WindowConfig
from tests.language import VOCABULARY, language_config
from tests.token_records import ByteText


def test_rows_are_as_long_as_the_context_and_of_every_task():
    config = language_config()
    maker, layout = one_row_maker(Language(config, {}, VOCABULARY, ByteText(), WindowConfig(3, 3), length=1280))
    assert (maker.config.rows, maker.config.length, maker.config.window) == (1, 1280, WindowConfig(3, 3))
    assert maker.tasks == TASKS and len(set(maker.weights)) == 1 and layout.num_classes == len(config.classes)


def test_progress_is_said_now_and_then(capsys):
    row_progress("mixture", every=0.0)(3)
    row_progress("mixture", every=60.0)(4)
    assert "[mixture] 3 rows in 0 s" in (said := capsys.readouterr().err) and "4 rows" not in said
