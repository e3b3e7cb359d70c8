import json

import pytest

from pipelines.books import Books, BooksError, books_for_manifest, sum_books
from pipelines.dataset import update_manifest


def example():
    books = Books("curate", "sources", items=6)
    books.keep(2)
    books.filter("no_audio")
    books.filter("no_audio")
    books.fail("probe", "UnreadableVideo", "ab")
    books.fail("crop", "ZeroDivisionError", "cd")
    return books


def test_books_that_close():
    books = example().close(6)
    assert books.lines() == [
        "curate: 6 sources in = 2 kept + 2 filtered + 2 failed",
        "curate:   2 filtered: no_audio",
        "curate:   1 failed: UnreadableVideo in probe [ab]",
        "curate:   1 failed: ZeroDivisionError in crop [cd]",
    ]


@pytest.mark.parametrize("change", [lambda b: b.keep(), lambda b: b.filter("x"), lambda b: setattr(b, "items", 7)])
def test_books_that_do_not_close_say_the_numbers(change):
    books = example()
    change(books)
    with pytest.raises(BooksError, match=r"do not close: \d sources in, but \d kept \+ \d filtered.*\+ 2 failed"):
        books.close()


def test_an_item_that_nobody_counted_is_missed():
    with pytest.raises(BooksError, match=r"6 sources in \(7 expected\)"):
        example().close(7)


def test_shards_add_up():
    shards = [json.loads(json.dumps(example().as_dict())) for _ in range(3)]
    total = sum_books("curate", "sources", shards, 18)
    assert total.kept == 6 and total.failed["probe", "UnreadableVideo", "ab"] == 3
    assert Books.from_dict("curate", total.as_dict()) == total
    with pytest.raises(BooksError):
        sum_books("curate", "sources", shards, 17)


def test_the_manifest_keeps_every_job_s_books(tmp_path):
    update_manifest(str(tmp_path), {}, books=books_for_manifest(str(tmp_path), example()))
    other = Books("annotate", "clips", items=1, kept=1)
    manifest = update_manifest(str(tmp_path), {}, books=books_for_manifest(str(tmp_path), other))
    assert set(manifest["books"]) == {"curate", "annotate"}
    assert manifest["books"]["curate"]["filtered"] == {"no_audio": 2}
