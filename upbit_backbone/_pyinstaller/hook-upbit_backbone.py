"""PyInstaller's hook: the names of the package root load late, so its modules must be named.

Left out is what only an extra needs, and where it is big: a program that wants it imports it itself, and then it comes.
"""

from PyInstaller.utils.hooks import collect_submodules, copy_metadata

EDGES = tuple(f"upbit_backbone.{name}" for name in ("cli", "qt", "compat", "_pyinstaller"))

hiddenimports = collect_submodules("upbit_backbone", filter=lambda name: not name.startswith(EDGES))
datas = copy_metadata("upbit-backbone")
excludedimports = [
    *("pandas", "pyarrow", "numpy", "rich", "typer", "qtpy", "PySide6", "PyQt6", "pytest"),
    *("duckdb", "polars", "psycopg", "pyqtgraph", "redis"),  # the first brings pandas, which brings Qt
]
