"""Metadata and extras of Archon. Tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

# What every role needs: arrays, records, storage.
CORE = [
    "numpy>=2.0",
    "pyarrow>=25.0",
    "array_record==0.8.6",
    "protobuf>=5.26",
    "pillow>=11",
    "google-cloud-storage>=3.17",
]
# The face model, the fit and every tokenizer run on JAX, so a pipeline worker has it too; it has no optimizer stack.
JAX = ["jax>=0.10.2,<0.11", "flax==0.12.8"]
EXTRAS = {
    # A Beam worker: decoding, detection, landmarks, fits, speech. torch comes with face-alignment; install
    # torch==2.13.0 first for its CPU build.
    "pipelines": [
        *JAX,
        "apache-beam==2.77.0",
        "ffmpeg-python==0.2.0",
        "imageio-ffmpeg>=0.6",
        "av>=14",
        "scenedetect>=0.6.7",
        "opencv-contrib-python>=4.10",
        "dlib-bin>=20.0",
        "face_recognition_models>=0.3",
        "face-alignment==1.5.0",
        "mediapipe>=0.10.21",
        "silero-vad>=6.0",
        "onnxruntime>=1.20",
        "pocketsphinx>=5.0",
        "espeakng-loader>=0.2",
        # Captions by Gemini, scripts by Whisper, the language of a text: by flag.
        "google-genai>=3.6",
        "transformers>=5.20",
        "py3langid>=0.4",
        "sentencepiece>=0.2",
        "numba>=0.61",
        "scipy>=1.14",
        "matplotlib>=3.9",
        "psutil>=6",
    ],
    # Who submits jobs to Dataflow (the workers do not need it).
    "dataflow": ["google-cloud-dataflow-client>=0.8"],
    # A training host: no Beam, no torch.
    "train": [
        *JAX,
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "grain==0.2.18",
        "sentencepiece>=0.2",
        "matplotlib>=3.9",
        "scipy>=1.14",
        "numba>=0.61",
        # The segmenter's pictures are decoded, warped and augmented while it trains.
        "opencv-contrib-python>=4.10",
        "av>=14",
    ],
    # TPUs, and `archon compile`, which needs none: libtpu is their compiler.
    "tpu": ["jax[tpu]>=0.10.2,<0.11"],
    # TensorFlow: reads our records as tf.train.Example; only the tests need it.
    "tensorflow": ["tensorflow>=2.20"],
    "dev": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.14",
        "pre-commit>=4",
        "gcp-storage-emulator>=2024.8",
        "webdataset>=1.0",
    ],
}
EXTRAS["all"] = sorted(
    {name for role in ("pipelines", "dataflow", "train", "tpu", "tensorflow", "dev") for name in EXTRAS[role]}
)

setup(
    name="archon",
    version="0.1.0",
    description="An open implementation of Archon: a unified multimodal model for holistic digital human generation",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    if Path(__file__).with_name("README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    package_data={
        "infra.dataflow": ["metadata.json"],
        "infra.plan": ["measured.json", "prices.toml"],
        "pipelines": ["*.json"],
        "models.embedded.landmark_refiner": ["*"],
        "models.embedded.segmenter": ["*"],
    },
    packages=find_namespace_packages(include=["pipelines*", "models*", "tasks*", "infra*"]),
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["archon=infra.cli:main"]},
)
