import pytest

from models.errors import InputError
from tasks.chains import THINKING, parse_chain

BOTH = ("speech", "image")


@pytest.mark.parametrize(
    ("chain", "want", "given", "links"),
    [
        ("thinking", "video", BOTH, THINKING),
        ("thinking", "semantics", BOTH, ("shape", "expression", "semantics")),
        ("thinking", "pose", BOTH, ("shape", "expression", "semantics", "description", "pose")),
        ("thinking", "video", (*BOTH, "shape"), THINKING[1:]),
        ("direct", "video", BOTH, ("semantics", "video")),
        ("direct", "video", (*BOTH, "semantics"), ("video",)),
        ("direct", "expression", BOTH, ("expression",)),
        ("shape>semantics>video", "video", BOTH, ("shape", "semantics", "video")),
        ("image > semantics > video", "video", ("speech",), ("image", "semantics", "video")),
        ("direct", "speech", ("speech",), ("speech",)),
    ],
)
def test_chains_read(chain, want, given, links):
    assert parse_chain(chain, want, given) == links


@pytest.mark.parametrize(
    ("chain", "want", "given", "message"),
    [
        ("direct", "smell", BOTH, "--want smell"),
        ("shape>smell>video", "video", BOTH, "no modality 'smell'"),
        ("shape>semantics", "video", BOTH, "ends with semantics"),
        ("shape>shape>semantics", "semantics", BOTH, "made twice"),
        ("shape>semantics", "semantics", ("shape",), "given already"),
        ("video>shape", "shape", BOTH, "last link"),
        ("shape>video", "video", BOTH, "no semantics"),
        ("semantics>video", "video", ("speech",), "no image"),
        ("semantics>", "semantics", BOTH, "no modality ''"),
    ],
)
def test_chains_that_cannot_be_made_are_refused(chain, want, given, message):
    with pytest.raises(InputError, match=message):
        parse_chain(chain, want, given)
