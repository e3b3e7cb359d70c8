from pipelines.reporting.sections import _rate, _short


def test_hashes_are_cut_and_names_are_whole():
    digest = "0123456789abcdef" * 4
    shown = _short(f"face model archon-procedural-2, landmark refiner {digest}")
    assert shown.endswith(">face model archon-procedural-2<br>landmark refiner 0123456789abcdef</code>")
    assert f'title="face model archon-procedural-2, landmark refiner {digest}"' in shown
    assert _short("") == "" and _short("7ac9e2662a7e9dfd").endswith(">7ac9e2662a7e9dfd</code>")
    assert "<b>" not in _short("<b>")


def test_rates_are_numbers_that_people_read():
    assert [_rate(value) for value in (0.4449, 13.31, 1984.2)] == ["0.445", "13.3", "1,984"]
