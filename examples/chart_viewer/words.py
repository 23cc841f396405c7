"""What the window says, in English and Korean; and how it looks."""

from __future__ import annotations

from qtpy.QtGui import QColor, QPalette

WORDS = {
    "title": ("Chart viewer", "차트 뷰어"),
    "search": ("Search: BTC, bitcoin, ㅂㅌㅋㅇ", "검색: BTC, 비트코인, ㅂㅌㅋㅇ"),
    "language": ("한국어", "English"),
    "dark": ("Dark", "어둡게"),
    "colours": ("Red is up", "빨강 상승"),
    "alert": ("Alert at", "알림 가격"),
    "alert_set": ("alert: {} at {}", "알림 설정: {} {}"),
    "alert_hit": ("ALERT: {} has reached {}", "알림: {} {} 도달"),
    "no_match": ("No market matches “{}”", "“{}”에 맞는 마켓이 없습니다"),
    "connecting": ("connecting", "연결 중"),
    "live": ("live", "실시간"),
    "stale": ("NOT CURRENT", "현재 시세 아님"),
    "disconnected": ("DISCONNECTED", "연결 끊김"),
    "age": ("{} s ago", "{}초 전"),
    "history": ("beginning of history", "과거 데이터의 시작"),
    "loading": ("loading older candles …", "과거 캔들 불러오는 중 …"),
    "opening": ("loading {} {} …", "{} {} 불러오는 중 …"),
    "gap": ("gap in {}: {} recovered{}", "{} 누락 구간: {}건 복구{}"),
    "incomplete": (", not all", " (일부 누락)"),
    "delisted": ("{} is no longer listed", "{} 거래지원 종료"),
    "closed": ("The backbone is closed: start the program anew", "백본이 닫혔습니다: 프로그램을 다시 시작하세요"),
}


class Words:
    """The words of one language: `words("title")`, `words("age", 3)`."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, key: str, *values: object) -> str:
        return WORDS[key][self.language == "ko"].format(*values)


# Each role of a palette, on a light and on a dark background.
ROLES = {
    "Window AlternateBase": ("#f2f3f5", "#1b1e24"),
    "Base ToolTipBase": ("#ffffff", "#15171c"),
    "Button": ("#fbfbfc", "#343a45"),
    "Text WindowText ButtonText ToolTipText HighlightedText": ("#202328", "#d8dbe0"),
    "Highlight": ("#cfe0fa", "#3a5a8c"),
    "PlaceholderText": ("#8a8f98", "#8a8f98"),
}


def palette(is_dark: bool) -> QPalette:
    chosen = QPalette()
    for roles, colours in ROLES.items():
        for role in roles.split():
            chosen.setColor(getattr(QPalette.ColorRole, role), QColor(colours[is_dark]))
    return chosen
