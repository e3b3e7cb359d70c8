"""What the embedded corpus's people say: English sentences from a small grammar of ordinary words."""

import numpy as np

_PEOPLE = (
    "my brother",
    "my sister",
    "the old teacher",
    "our neighbor",
    "the young doctor",
    "my best friend",
    "the farmer",
    "her mother",
    "his father",
    "the woman next door",
    "the man from the shop",
    "our new manager",
    "a small group of children",
    "the captain",
    "my grandmother",
    "the baker",
)
_ACTIONS = (
    "found",
    "bought",
    "painted",
    "carried",
    "opened",
    "forgot",
    "moved",
    "brought",
    "fixed",
    "wanted",
    "dropped",
    "borrowed",
    "described",
    "sold",
)
_THINGS = (
    "a blue boat",
    "the morning paper",
    "two boxes of apples",
    "a warm coat",
    "the broken window",
    "a very good map",
    "some fresh bread",
    "a wooden table",
    "the big green door",
    "a pair of brown shoes",
    "the last piece of cake",
    "an old photograph",
    "a bag of seeds",
    "the music box",
    "a bottle of water",
    "five yellow flowers",
)
_PLACES = (
    "by the river",
    "near the station",
    "at the market",
    "behind the house",
    "in the garden",
    "on the bridge",
    "at the top of the hill",
    "across the road",
    "in front of the school",
    "under the tree",
    "in a small village",
    "along the beach",
)
_TIMES = (
    "this morning",
    "last summer",
    "on Monday",
    "after lunch",
    "before the storm",
    "two weeks ago",
    "in the evening",
    "every day",
    "at the end of the month",
    "when it was dark",
    "a long time ago",
    "yesterday",
)
_THOUGHTS = (
    "I think",
    "I believe",
    "people say",
    "you may know that",
    "I am happy that",
    "it is strange that",
    "we all hope that",
    "I remember that",
    "nobody knew that",
    "they told me that",
    "I am sure that",
    "it seems that",
)
_FACTS = (
    "the weather will be better",
    "the food was wonderful",
    "most of the work is done",
    "the road is open again",
    "the birds are coming back",
    "we should leave before noon",
    "the meeting was moved to Friday",
    "the water is too cold for swimming",
    "a good story needs no pictures",
    "every room has a view of the park",
    "the train was almost empty",
    "people move more than they used to",
    "the problem is not so simple",
    "both answers may be true",
    "the moon looked bigger than before",
    "patience is part of the job",
)
_OPENERS = (
    "Well,",
    "You know,",
    "Honestly,",
    "Of course,",
    "To be fair,",
    "By the way,",
    "As you can see,",
    "For example,",
    "Oh,",
    "Maybe",
)
_JOINERS = ("and", "but", "because", "so", "while", "although")


def sentence(rng: np.random.Generator) -> str:
    """Returns one English sentence of about 9 to 16 words: rng -> str (the same generator state gives the same
    sentence).
    """

    def pick(options):
        return options[int(rng.integers(len(options)))]

    def event():
        words = [pick(_PEOPLE), pick(_ACTIONS), pick(_THINGS)]
        return " ".join(words + ([pick(_PLACES)] if rng.random() < 0.6 else []))

    form = int(rng.integers(6))
    if form == 0:
        text = f"{pick(_TIMES)}, {event()}"
    elif form == 1:
        text = f"{pick(_THOUGHTS)} {pick(_FACTS)}, {pick(_JOINERS)} {pick(_FACTS)}"
    elif form == 2:
        text = f"{event()} {pick(_TIMES)}"
    elif form == 3:
        text = f"{pick(_OPENERS)} {pick(_THOUGHTS)} {event()}"
    elif form == 4:
        text = f"{event()}, {pick(_JOINERS)} {pick(_FACTS)}"
    else:
        text = f"{pick(_OPENERS)} {pick(_FACTS)} {pick(_TIMES)}"
    return text[0].upper() + text[1:] + "."
