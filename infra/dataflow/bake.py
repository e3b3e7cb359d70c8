"""Part of building a worker's image: weights into the image, each checked, and a look at those that wheels bring.

python -m infra.dataflow.bake --from DIR --to DIR FILE:SHA256 ...
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from models.errors import InputError
from pipelines import storage

# Package -> a file in it without which a default backend cannot run.
IN_WHEELS = {
    "face_recognition_models": "models/shape_predictor_68_face_landmarks.dat",
    "silero_vad": "data/silero_vad.onnx",
    "pocketsphinx": "model/en-us/en-us.lm.bin",
    "models": "embedded/segmenter/model.json",
}


def bake(source: Path, target: Path, wanted: Sequence[str]) -> list[Path]:
    """Copies the named files (FILE:SHA256; empty ones are none) and returns where they are.

    InputError if one is missing, has another content, or names a file outside the folder.
    """
    out = []
    for item in filter(None, wanted):
        name, separator, digest = item.rpartition(":")
        if not separator or len(digest) != 64:
            raise InputError(f"{item}: expected FILE:SHA256")
        if Path(name).name != name:
            raise InputError(f"{item}: expected the name of a file in the weights context")
        path = source / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; give its folder with --build-context weights=DIR")
        there = storage.sha256_file(path)
        if there != digest.lower():
            raise InputError(f"{path}: SHA-256 is {there}, expected {digest}")
        target.mkdir(parents=True, exist_ok=True)
        out.append(Path(shutil.copyfile(path, target / name)))
    return out


def missing_in_wheels() -> list[str]:
    """The files of IN_WHEELS that are not installed. Packages are looked up, not imported."""
    missing = []
    for package, name in IN_WHEELS.items():
        spec = find_spec(package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not any(Path(folder, name).is_file() for folder in folders):
            missing.append(f"{package}/{name}")
    return missing


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bake")
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("files", nargs="*")
    args = parser.parse_args(argv)
    try:
        if missing := missing_in_wheels():
            raise InputError(f"not installed: {', '.join(missing)}")
        for path in bake(args.source, args.to, args.files):
            print(path)
    except InputError as error:
        print(f"bake: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
