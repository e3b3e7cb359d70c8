"""The fields of a clip's description and what each may say: the one place that captioner, checker and sampler read."""

import json
from dataclasses import dataclass

from models.errors import InputError

UNKNOWN = "unknown"

COLOURS = (
    *("black", "dark grey", "grey", "light grey", "white", "red", "dark red", "pink", "orange", "brown", "beige"),
    *("yellow", "olive", "green", "dark green", "teal", "light blue", "blue", "dark blue", "purple"),
)
HAIR_COLOURS = ("black", "dark brown", "brown", "red", "blond", "grey", "white", "other")
SKIN_TONES = ("very light", "light", "intermediate", "tan", "brown", "dark")


@dataclass(frozen=True)
class Field:
    """One field of the description: its attributes and what they may say. A pair of numbers is a range of integers."""

    name: str
    attributes: dict[str, tuple]


def _field(name: str, **attributes) -> Field:
    return Field(name, attributes)


# A field with the one attribute "value" is written as a plain string.
DESCRIPTION_FIELDS = (
    _field("gender", value=("female", "male")),
    _field("age_group", value=("child", "teenager", "young adult", "adult", "senior")),
    _field("ethnicity", value=("african", "asian", "caucasian", "hispanic", "middle eastern", "south asian", "mixed")),
    _field("clothing", colour=(*COLOURS, "not visible"), second_colour=(*COLOURS, "none")),
    _field("hair", colour=(*HAIR_COLOURS, "none"), length=("none", "short", "medium", "long")),
    _field(
        "facial_features",
        skin_tone=SKIN_TONES,
        eye_colour=("dark brown", "brown", "green", "blue", "grey"),
        beard=("none", "light", "full"),
        glasses=("no", "yes"),
    ),
    _field(
        "mouth_action",
        talking=("silent", "a little", "moderate", "lively"),
        opening=("small", "medium", "wide"),
        smile=("none", "slight", "broad"),
    ),
    _field(
        "head_motion",
        amount=("still", "slight", "moderate", "strong"),
        facing=("camera", "left", "right"),
        tilt=("level", "up", "down"),
    ),
    _field("gaze", direction=("camera", "left", "right"), blinks=(0, 99)),
    _field(
        "lighting",
        brightness=("dark", "dim", "medium", "bright"),
        direction=("even", "left", "right", "above", "below"),
    ),
    _field("background", colour=COLOURS, texture=("plain", "structured", "busy")),
    _field(
        "scene",
        framing=("close-up", "head and shoulders", "upper body"),
        camera=("static", "moving"),
        setting=("indoors", "outdoors", "studio"),
    ),
    _field("voice", pitch=("low", "medium", "high"), pitch_hz=(50, 500), rate=("slow", "medium", "fast")),
)


def description_form() -> list[tuple[str, ...]]:
    """Returns every text that ``describe`` can write, as a sequence of choices of which none begins another."""
    slots: list[tuple] = []
    values: dict = {}
    for field in DESCRIPTION_FIELDS:
        marks = {}
        for name, allowed in field.attributes.items():
            is_range = isinstance(allowed[0], int)
            slots.append((*(range(allowed[0], allowed[1] + 1) if is_range else allowed), UNKNOWN))
            marks[name] = "?"
        values[field.name] = marks.get("value", marks)
    first, *between = compact_json(values).split('"?"')
    form: list[tuple[str, ...]] = [(first,)]
    for choices, literal in zip(slots, between, strict=True):
        # A number may begin another one; with the mark that follows it, it does not.
        form.append(tuple(compact_json(choice) + literal[0] for choice in choices))
        if literal[1:]:
            form.append((literal[1:],))
    return form


def description_json_schema() -> dict:
    """Returns DESCRIPTION_FIELDS as the schema that a captioner is held to, in OpenAPI's words as Gemini reads them.

    Every field is required, in this order; every attribute may say "unknown".
    """

    def attribute(allowed: tuple) -> dict:
        if isinstance(allowed[0], int):
            number = {"type": "INTEGER", "minimum": allowed[0], "maximum": allowed[1]}
            return {"anyOf": [number, {"type": "STRING", "enum": [UNKNOWN]}]}
        return {"type": "STRING", "enum": [*allowed, UNKNOWN]}

    def mapping(properties: dict) -> dict:
        names = list(properties)
        return {"type": "OBJECT", "properties": properties, "required": names, "propertyOrdering": names}

    fields = {}
    for field in DESCRIPTION_FIELDS:
        attributes = {name: attribute(allowed) for name, allowed in field.attributes.items()}
        fields[field.name] = attributes.get("value") or mapping(attributes)
    return mapping(fields)


def normal_description(text: str) -> str:
    """Returns a description as it is stored: checked, its fields in their order, no spaces.

    Raises:
        InputError: as validate_description.
    """
    values = validate_description(text)
    ordered = {}
    for field in DESCRIPTION_FIELDS:
        value = values[field.name]
        ordered[field.name] = {name: value[name] for name in field.attributes} if isinstance(value, dict) else value
    return compact_json(ordered)


def compact_json(value) -> str:
    """Returns JSON without spaces, as descriptions are stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def validate_description(text: str) -> dict:
    """Checks a description against DESCRIPTION_FIELDS and returns it parsed.

    Raises:
        InputError: not JSON, a missing or unknown field, or a value that the field does not allow.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"description: not JSON ({error})") from error
    names = [field.name for field in DESCRIPTION_FIELDS]
    if not isinstance(values, dict) or set(values) != set(names):
        raise InputError(f"description: expected the fields {', '.join(names)}")
    for field in DESCRIPTION_FIELDS:
        value = values[field.name]
        attributes = {"value": value} if "value" in field.attributes else value
        if not isinstance(attributes, dict) or set(attributes) != set(field.attributes):
            raise InputError(f"description: field {field.name}: expected attributes {', '.join(field.attributes)}")
        for name, allowed in field.attributes.items():
            given = attributes[name]
            if given == UNKNOWN or given in allowed and isinstance(given, str):
                continue
            is_range = isinstance(allowed[0], int)
            if is_range and isinstance(given, int) and allowed[0] <= given <= allowed[1]:
                continue
            expected = f"an integer in {allowed[0]}..{allowed[1]}" if is_range else f"one of {', '.join(allowed)}"
            raise InputError(f"description: {field.name}.{name}: {given!r} is not {expected} or {UNKNOWN}")
    return values
