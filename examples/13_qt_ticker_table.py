"""A window with every KRW market, live: sorted by a click, searched by name or initial consonants (ㅂㅌㅋㅇ).

python -m pip install ".[qt]"
"""

from qtpy.QtWidgets import QApplication, QLineEdit, QTableView, QVBoxLayout, QWidget

from upbit_backbone import MarketDataBackbone
from upbit_backbone.qt import MarketBridge, TickerTableModel

application = QApplication([])
with MarketDataBackbone() as market:
    window, view, search = QWidget(), QTableView(sortingEnabled=True), QLineEdit()
    layout = QVBoxLayout(window)
    layout.addWidget(search)
    layout.addWidget(view)
    table = TickerTableModel(parent=window)
    table.follow(MarketBridge(market, parent=window), quote="KRW")  # returns at once; what is not current is grey
    view.setModel(table)
    search.textChanged.connect(table.set_filter)
    window.resize(620, 700)
    window.show()
    application.exec()
