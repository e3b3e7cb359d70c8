from models.errors import InputError


def test_is_a_value_error_with_its_message():
    error = InputError("a.json: field x: expected a number")
    assert isinstance(error, ValueError) and "field x" in str(error)
