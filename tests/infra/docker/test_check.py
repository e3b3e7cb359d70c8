"""The image definitions are sound as far as can be seen, and what is unsound is seen."""

import pytest

from infra.docker import check as docker

GOOD = """FROM python:3.11-slim
COPY models models
RUN pip install -c infra/constraints.txt ".[train]"
USER nobody
ENTRYPOINT ["archon"]
"""


@pytest.fixture(scope="module")
def package():
    return docker.read_package()


def test_our_definitions_are_sound(package):
    paths = docker.definitions()
    assert {path.name for path in paths} == {
        "Dockerfile",
        "template.Dockerfile",
        "trainer.Dockerfile",
        "dev.Dockerfile",
    }
    for path in paths:
        assert docker.check(path, package=package) == []


def test_the_beam_of_the_image_is_the_beam_of_the_package(package):
    text = (docker.ROOT / "infra/dataflow/Dockerfile").read_text()
    assert f"apache/beam_python3.11_sdk:{package.pinned['apache-beam']} " in text
    assert "/opt/apache/beam/boot" in text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("python:3.11-slim", "python", "has no tag"),
        ("python:3.11-slim", "python:latest", "has no tag"),
        ("FROM python:3.11-slim", "ARG V=\nFROM python:${V}", "has no tag"),
        ("COPY models", "COPY modles", "no such file"),
        ("COPY models", "COPY .git", ".dockerignore leaves it out"),
        ("COPY models", "COPY --from=beam /x", "no such stage"),
        (".[train]", ".[trian]", "no extra trian"),
        ("-c infra/constraints.txt ", "", "expected -c"),
        ('".[train]"', "requests", "nothing"),
        ('-c infra/constraints.txt ".[train]"', "requests", "not pinned"),
        ("USER nobody\n", "", "runs as root"),
        ('["archon"]', "archon", "exec form"),
        ('["archon"]', '["/opt/boot"]', "nothing puts it into the image"),
        ("USER", "ADD https://example.com/x /x\nUSER", "without a checksum"),
        ("USER", "RUN curl -O https://example.com/x\nUSER", "without a checksum"),
        ("USER", "RUN apt-get update && apt-get install -y git\nUSER", "no-install-recommends"),
        ("USER", "RUN python -m infra.none\nUSER", "no such module"),
        ("USER", "RUN --mount=type=bind,from=weights true\nUSER", "from=weights: no such stage"),
    ],
)
def test_what_is_unsound_is_seen(package, tmp_path, old, new, says):
    assert old in GOOD
    (tmp_path / "Dockerfile").write_text(GOOD.replace(old, new, 1))
    found = docker.check(tmp_path / "Dockerfile", package=package)
    if says == "nothing":
        assert found == []
    else:
        assert len(found) >= 1 and any(says in problem for problem in found), found


def test_a_requirement_that_is_not_pinned_is_seen(package, tmp_path):
    from dataclasses import replace

    (tmp_path / "Dockerfile").write_text(GOOD)
    loose = replace(package, pinned={k: v for k, v in package.pinned.items() if k != "optax"})
    assert "does not pin optax" in docker.check(tmp_path / "Dockerfile", package=loose)[0]


def test_a_reason_lets_an_image_run_as_root(package, tmp_path):
    (tmp_path / "Dockerfile").write_text("# root: it must\n" + GOOD.replace("USER nobody\n", ""))
    assert docker.check(tmp_path / "Dockerfile", package=package) == []
