"""Answers that were paid for, kept beside the dataset under ``_state/annotate/captions/``, a small file a clip.

A file is written as soon as an answer arrives, so that a killed job, or a column that is made again for another
reason, asks only for what it does not have. A refusal is an answer too and is kept; remove its file to ask again. What
was paid for answers that could not be used is kept with the clip and counted.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from pipelines import storage
from pipelines.stages.spending import Usage

FOLDER = "_state/annotate/captions"


@dataclass(frozen=True)
class Answer:
    """Of one clip: the ``description``, or the ``refusal`` (why there is none, for good), or neither yet."""

    description: str | None = None
    refusal: str | None = None
    usage: Usage = Usage()


@dataclass(frozen=True)
class CaptionCache:
    """The answers of one dataset. ``made_with`` is the hash of prompt, schema, model and sampling."""

    dataset: str
    made_with: str

    def path(self, shown: str) -> str:
        """Where the answer about a clip lies; ``shown`` says what is to be seen in it, starting with its id."""
        # A hash, whatever the id: no clip's name can point elsewhere.
        key = hashlib.sha256(f"{self.made_with}\0{shown}".encode()).hexdigest()[:32]
        return storage.join(self.dataset, FOLDER, key[:2], f"{key}.json")

    def get(self, shown: str) -> Answer:
        """Returns what is there; an empty Answer if there is nothing, or not a whole file of this clip."""
        try:
            stored = json.loads(storage.read_bytes(self.path(shown)))
            if stored["shown"] != shown or stored["made_with"] != self.made_with:
                return Answer()
            return Answer(stored["description"], stored["refusal"], Usage(**stored["usage"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Answer()

    def put(self, shown: str, answer: Answer) -> None:
        stored = {"shown": shown, "made_with": self.made_with, **asdict(answer)}
        storage.write_bytes(self.path(shown), (json.dumps(stored, sort_keys=True) + "\n").encode())
