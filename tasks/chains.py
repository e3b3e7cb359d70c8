"""Chains of modality (Thinking in Modality): which modalities are made on the way to what is wanted.

A chain is data: ``shape>expression>semantics>description>video`` makes each in turn, and each joins the condition of
the next. A direct run is a chain of one. The language model makes every link but ``video``, which the decoder makes
from semantics, image and text.
"""

from collections.abc import Collection

from models.errors import InputError
from tasks.modalities import MODALITIES

# The paper's chain from speech and image to video.
THINKING = ("shape", "expression", "semantics", "description", "video")
NAMED = ("thinking", "direct")


def parse_chain(chain: str, want: str, given: Collection[str]) -> tuple[str, ...]:
    """Reads a chain.

    Args:
        chain: "thinking", "direct", or modalities joined by ">".
        want: the modality that is asked for; the chain ends with it.
        given: modalities that are there already; a named chain leaves them out.

    Returns:
        The modalities to make, in order; the last is ``want``.

    Raises:
        InputError: an unknown modality, one made twice or given already, or a video that lacks what it is made from.
    """
    if want not in MODALITIES:
        raise InputError(f"--want {want}: expected one of {', '.join(MODALITIES)}")
    if chain == "thinking":
        upto = THINKING.index(want) if want in THINKING else len(THINKING) - 1
        links = [name for name in THINKING[:upto] if name not in given] + [want]
    elif chain == "direct":
        # The decoder reads semantics, so even a direct video goes through them.
        links = ["semantics", "video"] if want == "video" and "semantics" not in given else [want]
    else:
        links = [name.strip() for name in chain.split(">")]
        for name in links:
            if name not in MODALITIES:
                raise InputError(
                    f"--chain {chain}: no modality {name!r}, expected {' or '.join(NAMED)}, or some of "
                    f"{', '.join(MODALITIES)} joined by '>'"
                )
        if links[-1] != want:
            raise InputError(f"--chain {chain}: ends with {links[-1]}, expected {want}")
    for place, name in enumerate(links):
        if name in links[:place]:
            raise InputError(f"--chain {chain}: {name} is made twice")
        if name in given and name != want:
            raise InputError(f"--chain {chain}: {name} is given already")
        if name == "video" and place != len(links) - 1:
            raise InputError(f"--chain {chain}: video can only be the last link")
    if want == "video":
        for need in ("semantics", "image"):
            if need not in links and need not in given:
                raise InputError(f"--chain {chain}: a video is made from semantics and image, and there is no {need}")
    return tuple(links)
