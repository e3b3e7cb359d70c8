"""Lip-sync confidence and offset by SyncNet, for whoever has its weights.

Chung and Zisserman, "Out of time: automated lip sync in the wild" (2016): a network for five pictures of a face and one
for the fifth of a second of sound beside them, trained so that the two embeddings are close where picture and sound
belong together. Layers, names and scores are those of the published model (``syncnet_v2.model``: a PyTorch state dict
of ``netcnnaud``, ``netfcaud``, ``netcnnlip``, ``netfclip``), so its weights fit and its thresholds (confidence of 3,
offset within 6 frames) mean the same. Measured on the clip as it is stored, at 25 frames a second and 16 kHz, which the
model requires.

The face is cut out around the landmarks, where the published tool uses its own detector's box: figures are near the
published tool's and not equal to them.
"""

import functools

import numpy as np

from models.errors import InputError
from models.loading import load_once
from models.signals import AUDIO_RATE, VIDEO_FPS
from pipelines import storage

FPS = 25
WINDOW = 5  # pictures an embedding sees
SIDE = 224
REACH = 15  # offsets are tried up to so many frames either way
MFCC = 13
MFCC_RATE = 100
_WINDOW_MFCC = WINDOW * MFCC_RATE // FPS
_BATCH = 32  # windows that go through the network at once
EMBEDDING = 1024
HINTS = {"min_ram": "6GB", "accelerator": "type:nvidia-l4;count:1;install-nvidia-driver"}  # a GPU pays; none is needed


# --- The network ---


def build_network():
    """Returns the untrained torch module: ``sound(x)`` and ``lips(x)`` give embeddings."""
    from torch import nn

    def flat(*convolutions):
        """(in, out, kernel, padding) or a pooling layer -> Conv2d, BatchNorm2d, ReLU ..."""
        layers = []
        for item in convolutions:
            if isinstance(item, nn.Module):
                layers.append(item)
                continue
            inside, outside, kernel, padding = item
            layers += [nn.Conv2d(inside, outside, kernel, padding=padding), nn.BatchNorm2d(outside), nn.ReLU()]
        return nn.Sequential(*layers)

    def deep(*convolutions):
        """(in, out, kernel, stride, padding) or a pooling layer -> Conv3d, BatchNorm3d, ReLU ..."""
        layers = []
        for item in convolutions:
            if isinstance(item, nn.Module):
                layers.append(item)
                continue
            inside, outside, kernel, stride, padding = item
            layers += [nn.Conv3d(inside, outside, kernel, (1, stride, stride), (0, padding, padding))]
            layers += [nn.BatchNorm3d(outside), nn.ReLU()]
        return nn.Sequential(*layers)

    def head():
        return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING))

    def pool(padding: int):
        return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))

    class SyncNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.netcnnaud = flat(
                (1, 64, 3, 1),
                nn.MaxPool2d(1, 1),
                (64, 192, 3, 1),
                nn.MaxPool2d(3, (1, 2)),
                (192, 384, 3, 1),
                (384, 256, 3, 1),
                (256, 256, 3, 1),
                nn.MaxPool2d(3, 2),
                (256, 512, (5, 4), 0),
            )
            self.netfcaud = head()
            self.netcnnlip = deep(
                (3, 96, (WINDOW, 7, 7), 2, 0),
                pool(0),
                (96, 256, (1, 5, 5), 2, 1),
                pool(1),
                (256, 256, (1, 3, 3), 1, 1),
                (256, 256, (1, 3, 3), 1, 1),
                (256, 256, (1, 3, 3), 1, 1),
                pool(0),
                (256, 512, (1, 6, 6), 1, 0),
            )
            self.netfclip = head()

        def sound(self, mfcc):
            """(N, 1, 13, 20) -> (N, 1024)."""
            return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

        def lips(self, pictures):
            """(1, 3, N + 4, 224, 224), 0 to 255, blue first -> (N, 1024): one embedding for every five in a row.

            Only the first layer looks across time, so windows that overlap share all its work.
            """
            maps = self.netcnnlip(pictures)  # (1, 512, N, 1, 1)
            return self.netfclip(maps[0, :, :, 0, 0].T)

    return SyncNet().eval()


def check_weights(path: str) -> str:
    """Returns the SHA-256 of a weights file (a path or gs:// URI) that fits the network.

    Raises:
        InputError: no such file, no state dict, or a layer that is missing, unknown or of another shape.
    """
    try:
        with storage.local_copy(path) as local:
            digest = storage.sha256_file(local)
    except OSError as error:
        raise InputError(f"--syncnet-weights {path}: {error.strerror or 'no such file'}") from error
    load_network(path)
    return digest


@load_once()
def load_network(path: str):
    """Returns (network with the file's weights, "cuda" or "cpu"). Loaded once a process.

    Raises:
        InputError: as check_weights.
    """
    import pickle

    import torch

    flag = f"--syncnet-weights {path}"
    try:
        with storage.local_copy(path) as local:
            # Only tensors are unpickled: nothing in the file is run. The published file has the layout before zip.
            state = torch.load(local, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{flag}: no such file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{flag}: expected a PyTorch state dict of SyncNet ({reason[:160]})") from error
    if not isinstance(state, dict):
        raise InputError(f"{flag}: expected a state dict (name to tensor), got {type(state).__name__}")
    network = build_network()
    for name, wanted in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # a counter that older files lack
            state.setdefault(name, wanted)
            continue
        if not isinstance(state.get(name), torch.Tensor):
            raise InputError(f"{flag}: {name}: missing; expected a tensor of shape {tuple(wanted.shape)}")
        if state[name].shape != wanted.shape:
            got = tuple(state[name].shape)
            raise InputError(f"{flag}: {name}: expected shape {tuple(wanted.shape)}, got {got}")
    unknown = sorted(set(state) - set(network.state_dict()))
    if unknown:
        raise InputError(f"{flag}: {unknown[0]}: not a layer of SyncNet (one of {len(unknown)} such)")
    network.load_state_dict(state)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"syncnet: on {device}", flush=True)
    return network.to(device), device


# --- What it sees and hears ---


def frame_index(count: int) -> np.ndarray:
    """The 30 fps frame that is nearest to each 25 fps moment of a clip of ``count`` frames; int (M,)."""
    moments = int((count - 1) * FPS / VIDEO_FPS) + 1
    return np.floor(np.arange(moments) * VIDEO_FPS / FPS + 0.5).astype(int)


def face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """float (T, 68, 2) -> float (T, 3): left, top and side of the square that the network is shown.

    The face is taken from a third of its height above the brows to the chin, made square by its longer side s; the cut
    reaches 0.4 s beyond it on the left, the right and below, as the model was trained; steadied over half a second.
    """
    from scipy.ndimage import median_filter

    brows, chin = landmarks[:, 17:27, 1].min(axis=1), landmarks[:, 6:11, 1].max(axis=1)
    left, right = landmarks[..., 0].min(axis=1), landmarks[..., 0].max(axis=1)
    top = brows - (chin - brows) / 3
    half = np.maximum(right - left, chin - top) / 2
    figures = np.stack([(left + right) / 2, (top + chin) / 2, half], axis=1)
    x, y, half = median_filter(figures, size=(13, 1), mode="nearest").T
    return np.stack([x - 1.4 * half, y - half, 2.8 * half], axis=1)


def face_pictures(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """uint8 (T, H, W, 3) RGB and float (T, 68, 2) -> uint8 (M, 224, 224, 3), blue first, at 25 frames a second."""
    import cv2

    index, boxes = frame_index(len(frames)), face_boxes(landmarks)
    out = np.empty((len(index), SIDE, SIDE, 3), np.uint8)
    for k, at in enumerate(index):
        left, top, side = boxes[at]
        scale = SIDE / max(side, 1.0)
        matrix = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
        picture = cv2.warpAffine(frames[at], matrix, (SIDE, SIDE), borderValue=(110, 110, 110))
        out[k] = picture[..., ::-1]
    return out


def mfcc(audio: np.ndarray) -> np.ndarray:
    """int16 (samples,) 16 kHz -> float64 (frames, 13), 100 a second: mel-frequency cepstra as the model was trained on.

    Windows of 25 ms without taper, pre-emphasis 0.97, 512-point power spectrum, 26 mel triangles up to 8 kHz, cosine
    transform, sine lifter of 22; the first figure is the logarithm of the window's energy.
    """
    from scipy.fft import dct

    length, step, size, count = 400, 160, 512, 26
    signal = audio.astype(np.float64)
    signal = np.append(signal[:1], signal[1:] - 0.97 * signal[:-1])
    windows = 1 + max(0, -(-(len(signal) - length) // step))
    signal = np.pad(signal, (0, max(0, (windows - 1) * step + length - len(signal))))
    framed = np.lib.stride_tricks.sliding_window_view(signal, length)[::step][:windows]
    power = np.abs(np.fft.rfft(framed, size)) ** 2 / size
    tiny = np.finfo(float).eps
    energy = power.sum(axis=1)
    bands = np.log(np.where((mel := power @ _mel_triangles(size, count).T) == 0, tiny, mel))
    out = dct(bands, type=2, axis=1, norm="ortho")[:, :MFCC] * (1 + 11 * np.sin(np.pi * np.arange(MFCC) / 22))
    out[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return out


@functools.lru_cache(maxsize=1)
def _mel_triangles(size: int, count: int) -> np.ndarray:
    """float (count, size / 2 + 1): triangles between whole bins, evenly spaced in mel from 0 to 8 kHz."""
    top = 2595 * np.log10(1 + AUDIO_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, count + 2) / 2595) - 1)
    edges = np.floor((size + 1) * hertz / AUDIO_RATE)
    bins = np.arange(size // 2 + 1)[None]
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / np.maximum(middle - low, 1), (high - bins) / np.maximum(high - middle, 1)
    return np.where((bins >= low) & (bins < middle), rising, 0) + np.where((bins >= middle) & (bins < high), falling, 0)


# --- Scores ---


def sync_of_embeddings(lips: np.ndarray, sound: np.ndarray) -> tuple[float, int]:
    """float (N, D) each, 25 a second -> (confidence, offset).

    The distance of every picture's embedding to the sound's at each offset within REACH frames, averaged over the clip:
    the offset is where the mean is least, the confidence how far that lies below the median over offsets. A positive
    offset of k: the sound is k frames late (the published tool counts the other way). Beyond the clip's ends the sound
    counts as zeros, as published.
    """
    count = len(lips)
    padded = np.pad(sound, ((REACH, REACH), (0, 0)))
    # The published distance adds 1e-6 to every difference.
    means = np.array([np.linalg.norm(lips - padded[k : k + count] + 1e-6, axis=1).mean() for k in range(2 * REACH + 1)])
    best = int(means.argmin())
    return float(np.median(means) - means[best]), best - REACH


def sync_scores(frames: np.ndarray, landmarks: np.ndarray, audio: np.ndarray, weights: str) -> dict[str, float]:
    """Scores of a stored clip: ``sync_confidence`` and ``sync_offset`` (frames of 1/25 s; positive: sound late).

    Args:
        frames: uint8 (T, 256, 256, 3), RGB, 30 fps, decoded from the stored crop.
        landmarks: float (T, 68, 2), crop pixels.
        audio: int16 (samples,), 16 kHz.
        weights: the weights file, a path or gs:// URI.
    """
    lips, sound = embeddings(frames, landmarks, audio, weights)
    if len(lips) == 0:
        return {"sync_confidence": float("nan"), "sync_offset": float("nan")}
    confidence, offset = sync_of_embeddings(lips, sound)
    return {"sync_confidence": confidence, "sync_offset": float(offset)}


def embeddings(
    frames: np.ndarray, landmarks: np.ndarray, audio: np.ndarray, weights: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pictures' and the sound's embeddings, float32 (N, 1024) each; N = 25 fps frames less the window."""
    import torch

    network, device = load_network(weights)
    pictures, cepstra = face_pictures(frames, landmarks), mfcc(audio).T.astype(np.float32)
    count = min(len(pictures), len(audio) * FPS // AUDIO_RATE) - WINDOW
    count = min(count, (cepstra.shape[1] - _WINDOW_MFCC) * FPS // MFCC_RATE + 1)
    if count <= 0:
        empty = np.zeros((0, EMBEDDING), np.float32)
        return empty, empty
    lips, sound = [], []
    with torch.inference_mode():
        for first in range(0, count, _BATCH):
            size = min(_BATCH, count - first)
            stack = torch.from_numpy(pictures[first : first + size + WINDOW - 1]).to(device)
            lips.append(network.lips(stack.permute(3, 0, 1, 2)[None].float()).cpu().numpy())
            begin = [(first + k) * MFCC_RATE // FPS for k in range(size)]
            heard = np.stack([cepstra[:, at : at + _WINDOW_MFCC] for at in begin])[:, None]
            sound.append(network.sound(torch.from_numpy(heard).to(device)).cpu().numpy())
    return np.concatenate(lips), np.concatenate(sound)
