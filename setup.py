"""Packaging: the repository's root is the package `headwater`."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    "demo": ["espeakng-loader>=0.2"],  # the synthesiser of the demo corpora; GPL, called at run time only
    "decode": ["ctc-beam-decoder>=0.2,<0.3"],  # beam search of asr; brings KenLM as a shared library (LGPL)
    "mtl": ["torchjd>=0.18,<0.19"],  # PCGrad, MGDA, IMTL-G …; its API changes with every minor version
    # UPGrad, CAGrad, Nash-MTL; their solvers quadprog and ecos are GPL
    "mtl-solvers": ["torchjd[quadprog-projector,cagrad,nash-mtl]>=0.18,<0.19"],
    "peft": ["peft>=0.18,<0.22"],  # LoRA, DoRA, IA3; one pure wheel of 0.8 MB, which needs what the core has, and psutil
    "eight-bit": ["torchao>=0.14,<0.19"],  # optimizer.bits=8; one wheel of 3.4 MB, BSD, which needs nothing but torch
    "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],  # `headwater export --onnx`; 40 MB of wheels
    "track": ["mlflow-skinny>=3.0", "wandb>=0.19"],  # `-o track=…`; Apache-2.0 and MIT, as large as all else that is optional
    # `headwater serve`; pure wheels of 0.4 MB, which need pydantic and anyio of the hub client
    "serve": ["fastapi>=0.115", "uvicorn>=0.30", "python-multipart>=0.0.18"],
    "cluster": ["submitit>=1.5,<2"],  # `--launch slurm`; one pure wheel, which needs cloudpickle alone
    "app": ["gradio>=6.20", "fastapi>=0.115", "uvicorn>=0.30"],  # `headwater app`; 110 MB, and pillow below 13
    "docs": ["sphinx>=8.1", "myst-parser>=4.0", "furo>=2024.8"],  # `make docs`; docutils: GPL in its Emacs mode alone
    "notebooks": ["pandas>=2.2", "nbclient>=0.10", "ipykernel>=6.29"],  # tables in Python; `make notebooks`; BSD
    "s3prl": ["s3prl>=0.4.17"],  # install it with --no-deps: its requirements break a modern torchaudio
}
RUNNERS = [
    "librosa>=0.10.2",
    "markdown-it-py>=3",  # the commands of the documentation are found in it
    "pyannote.metrics>=4.0",  # diarization error rates are compared with its own
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.8",
    "ruff>=0.9",
    "mypy>=1.14",
    "types-PyYAML",
    "build>=1.2",
    "setuptools>=70.1",
]
EXTRAS["test"] = [
    *EXTRAS["demo"],
    *EXTRAS["decode"],
    *EXTRAS["mtl"],
    *EXTRAS["peft"],
    *EXTRAS["cluster"],
    *EXTRAS["onnx"],
    *EXTRAS["serve"],
    *RUNNERS,
]

folders = find_packages(".", exclude=["tests*", "benchmarks*", "docs*", "build*", "dist*"])

setup(
    name="headwater",
    version="0.1.0",
    description="How well does a speech model solve my tasks, and which of its layers matter?",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The Headwater authors",
    keywords="speech self-supervised-learning probing benchmark emotion-recognition superb s3prl",
    python_requires=">=3.11",
    package_dir={"headwater": "."},
    packages=["headwater"] + ["headwater." + folder for folder in folders],
    package_data={
        "headwater": [
            "py.typed",
            "recipes/*.yaml",
            "recipes/*/*.yaml",
            "downstream/*/*.md",
            "downstream/*/*.yaml",
            "recipes/*/*.csv",
            "inference/*/*.yaml",
            "upstream/weights/*/*",
            "analysis/*/*.css",
            "inference/*/*.html",
            "inference/export/page/*.*",
            "examples/*.py",
            "examples/*/*",
        ]
    },
    install_requires=[
        "torch>=2.4",
        "transformers>=5.0",
        "safetensors>=0.4.5",
        "accelerate>=1.2",
        "soundfile>=0.12.1",
        "soxr>=0.4",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "jiwer>=3.0",
        "pyyaml>=6.0",
        "tqdm>=4.66",
        "tensorboard>=2.16",
        "matplotlib>=3.8",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["headwater = headwater.__main__:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
