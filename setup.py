"""Package metadata. Tool settings live in pyproject.toml, test environments in tox.ini."""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent

EXTRAS = {
    "cli": ["typer>=0.16", "rich>=13.7"],
    "pandas": ["pandas>=2.1"],
    "parquet": ["pandas>=2.1", "pyarrow>=14"],
    # As old as the programs that are to run unchanged: frames and the stand-in are tried with pandas 1.5, 2.2 and 3.
    "pyupbit": ["pandas>=1.5", "numpy"],
    "duckdb": ["duckdb>=1.0", "pyarrow>=14"],
    "postgres": ["psycopg[binary]>=3.2"],
    "prometheus": ["prometheus-client>=0.20"],
    "redis": ["redis>=5.2.1"],  # older ones leave a socket open where a connection fails
    # 6.12.0 loses a reference to True or False with each signal and aborts the process after some hundred of them.
    "qt": ["qtpy>=2.4", "PySide6-Essentials>=6.6,!=6.12.0"],
    # What draws candles for the windows of [qt].
    "chart": ["qtpy>=2.4", "PySide6-Essentials>=6.6,!=6.12.0", "pyqtgraph>=0.14", "numpy"],
    # Only for TLS: the simulator itself needs nothing but the standard library.
    "simulator": ["trustme>=1.1"],
}
EXTRAS["all"] = sorted({package for packages in EXTRAS.values() for package in packages})

# Frames read by compiled code, for who asks for it. Without it one wheel of pure Python fits every machine.
COMPILED = [Extension("upbit_backbone.unify._scanner", ["upbit_backbone/unify/_scanner.c"])]

setup(
    name="upbit-backbone",
    version="0.1.0",
    description="One blocking, thread-safe door to Upbit market data: REST and WebSocket behind one object.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["upbit_backbone", "upbit_backbone.*"]),
    package_data={"upbit_backbone": ["py.typed"]},
    ext_modules=COMPILED if os.environ.get("UPBIT_BACKBONE_COMPILE") == "1" else [],
    install_requires=[
        "requests>=2.32.3,<3",
        # What requests speaks HTTP by. Version 1 takes a body that ends a byte too soon for a whole one.
        "urllib3>=2.0.7,<3",
        "websocket-client>=1.9.2,<2",
        "dataclasses-json>=0.6.7,<0.7",
        "pybreaker>=1.3,<2",
        "cachetools>=5.5,<9",
        # The stream's decoder: text on the wire -> Decimal in C, typed and validated.
        "msgspec>=0.19,<1",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "upbit-backbone = upbit_backbone.cli:main",
            "upbit-backbone-simulator = upbit_backbone.simulator.__main__:main",
        ],
        "pyinstaller40": ["hook-dirs = upbit_backbone._pyinstaller:get_hook_dirs"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Financial and Insurance Industry",
        "Natural Language :: English",
        "Natural Language :: Korean",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Office/Business :: Financial",
        "Typing :: Typed",
    ],
)
