"""Packaging of ruas_mm: what `pyproject.toml` leaves dynamic, and the files of the wheel.

Needs nothing but setuptools: no torch, no network, no running code of the package.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Plain pip installs every extra. What they leave out is in docs/installation.md: mmcv with its operators, which is
# compiled against the torch that is installed, and mmagic, which declares much that nothing here needs.
# `import ruas_mm` asserts no version; an extra names what is known to work together.
# What is imported without asking whether it is there; mmengine brings the second line anyway.
REQUIRED = [
    *('mmengine>=0.10', 'numpy>=1.23', 'pillow>=11', 'torch>=2.1'),
    *('matplotlib>=3.6', 'opencv-python>=4.5', 'rich>=12.3', 'scipy>=1.8'),
]
TRAINING = ['tensorboard>=2.12']
HOST = ['numpy<2', 'setuptools<81', *TRAINING]  # numpy 2 breaks mmcv 2.1; mmengine 0.10.7 needs pkg_resources
ENHANCEMENT = ['mmcv-lite>=2.0', 'scikit-image>=0.19', *TRAINING]  # not in `all`: it would overwrite mmcv
METRICS = ['lpips>=0.1.4', 'scikit-image>=0.19']  # lpips brings torchvision
DETECTION = ['mmdet>=3.0', *HOST]
SEGMENTATION = ['ftfy', 'mmsegmentation>=1.0', 'regex', *HOST]  # mmseg imports ftfy and regex without saying so
ONNX = ['onnx>=1.14', 'onnxruntime>=1.16', 'onnxscript>=0.5']
VIDEO = ['av>=14']

setup(
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'ruas_mm/version.py').read_text())[1],
    packages=find_packages(include=['ruas_mm', 'ruas_mm.*']),
    # `.mim` holds symbolic links to configs, tools and model-index.yml, so that a checkout works as it is; sdist and
    # wheel get the files behind them.
    package_data={
        'ruas_mm': [
            'weights/*.pth',
            '.mim/*.yml',
            *('.mim/configs/**/*.py', '.mim/configs/**/*.yml'),
            *('.mim/tools/**/*.py', '.mim/tools/*.sh'),
        ],
        'ruas_mm.search': ['genotypes/*.json'],
    },
    zip_safe=False,
    entry_points={'console_scripts': ['ruas = ruas_mm.cli.main:main']},
    install_requires=REQUIRED,
    extras_require={
        'detection': DETECTION,
        'segmentation': SEGMENTATION,
        'enhancement': ENHANCEMENT,
        'metrics': METRICS,
        'onnx': ONNX,
        'video': VIDEO,
        'all': sorted({*DETECTION, *SEGMENTATION, *METRICS, *ONNX, *VIDEO}),
    },
)
