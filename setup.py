"""Packaging of ruas_mm. Needs nothing but setuptools: no torch, no network, no running code of the package."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Lower bounds only: which host works is found out by importing it, see ruas_mm/registry.py.
DETECTION = ['mmcv>=2.0', 'mmdet>=3.0']
SEGMENTATION = ['mmcv>=2.0', 'mmsegmentation>=1.0']
ENHANCEMENT = ['lpips>=0.1.4', 'mmcv>=2.0', 'scikit-image>=0.19']  # to train and measure; to enhance none is needed
ONNX = ['onnx>=1.14', 'onnxruntime>=1.16', 'onnxscript>=0.5']
MMAGIC = ['mmagic>=1.0', 'mmcv>=2.0']  # not in `all`: it declares much that nothing here needs, such as mediapipe

setup(
    name='ruas_mm',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'ruas_mm/version.py').read_text())[1],
    description='RUAS for the OpenMMLab toolboxes: detection, segmentation and enhancement in the dark',
    license='Apache-2.0',
    python_requires='>=3.10',
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
    install_requires=['mmengine>=0.10', 'numpy>=1.23', 'torch>=2.1'],
    extras_require={
        'detection': DETECTION,
        'segmentation': SEGMENTATION,
        'enhancement': ENHANCEMENT,
        'onnx': ONNX,
        'mmagic': MMAGIC,
        'all': sorted({*DETECTION, *SEGMENTATION, *ENHANCEMENT, *ONNX}),
    },
)
