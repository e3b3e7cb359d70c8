"""``python -m tests.benchmarks.scores``: what each group of curation's scores costs, milliseconds per second of clip.

On a rendered head, or on VIDEO: its first kept clip is measured over and over. Shot changes are a by-product of the
shot detector; the figure is the whole detector's.
"""

import argparse
import time

import numpy as np

from models.signals import AUDIO_RATE, VIDEO_FPS


def milliseconds(function, *arguments, times: int = 3) -> float:
    """The shortest of a few runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        function(*arguments)
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)


def main() -> None:
    from pipelines.stages import (
        compression_scores,
        crop,
        fingerprints,
        head_scores,
        landmarks,
        picture_scores,
        shots,
        sound_scores,
        video,
    )
    from pipelines.stages import faces as finder
    from tests.pipelines.media import talking_head

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", help="default: a rendered head")
    parser.add_argument("--seconds", type=float, default=4.0, help="of its start (default %(default)s)")
    args = parser.parse_args()
    info = video.probe(args.video or str(talking_head()))
    count = round(args.seconds * VIDEO_FPS)
    width, height = video.scaled_size(info, finder.SHORT_SIDE)
    small = [frame for frame, _ in zip(video.decode_frames(info, width, height), range(count), strict=False)]
    count = len(small)
    found = [finder.detect_faces(frame) for frame in small[:: finder.STRIDE]]
    box = next(faces[0].box for faces in found if faces)
    marks = landmarks.find_landmarks(small, np.repeat(box[None], count, axis=0)).astype(float)
    square = crop.clip_box(list(marks[:: finder.STRIDE]), width, height, finder.STRIDE)
    pictures = np.stack([crop.cut_crop(frame, square) for frame in small])
    inside = crop.to_crop(marks, square)
    sound = video.cut_audio(video.decode_audio(info), 0, count)
    heads = np.repeat(box[None], count // finder.STRIDE, axis=0)

    def detect_shots():
        detector = shots.ShotDetector()
        for frame in small:
            detector.add(frame)
        detector.changes()

    groups = {
        "shot detector with shot_cut": (detect_shots,),
        "head: size and angles": (head_scores.angle_scores, marks),
        "head: movement and speed": (head_scores.movement_scores, marks),
        "head: box": (head_scores.box_scores, heads, square, width, height),
        "picture": (picture_scores.picture_scores, pictures, inside, info.fps),
        "source text": (picture_scores.text_share, small[::15]),
        "compression": (compression_scores.compression_scores, info, 0, count),
        "sound": (sound_scores.sound_scores, sound, np.ones(len(sound), bool)),
        "lip sync": (sound_scores.sync_scores, inside, sound),
        "fingerprints": (fingerprints.fingerprints, pictures, sound),
    }
    seconds = len(sound) / AUDIO_RATE
    print(f"{seconds:.1f} s of {info.width}x{info.height} {info.codec}; ms per second of clip")
    for name, (function, *arguments) in groups.items():
        print(f"{name:30} {milliseconds(function, *arguments) / seconds:8.2f}", flush=True)


if __name__ == "__main__":
    main()
