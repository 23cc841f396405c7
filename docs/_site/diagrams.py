"""The site's pictures, drawn from a few boxes and arrows in the page's own colours (light and dark). Pure.

Labels are pairs (English, Korean), so that both languages show one picture.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

Label = tuple[str, str]
WIDTH = 720


class Picture:
    """An SVG that grows by boxes, arrows and words."""

    def __init__(self, height: int, caption: Label, language: str) -> None:
        self._height = height
        self._place = 1 if language == "ko" else 0
        self.caption = caption[self._place]
        self._parts: list[str] = []

    def words(self, x: float, y: float, label: Label, kind: str = "", anchor: str = "middle") -> None:
        style = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}"{style}>{escape(label[self._place])}</text>')

    def box(self, x: float, y: float, w: float, h: float, *lines: Label, strong: bool = False) -> None:
        kind = "strong" if strong else "box"
        self._parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="8"/>')
        top = y + h / 2 + 5 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            self.words(x + w / 2, top + 18 * number, line, "small" if number else "")

    def line(self, *points: tuple[float, float], kind: str = "line", dashed: bool = False) -> None:
        path = " ".join(f"{x},{y}" for x, y in points)
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<polyline class="{kind}" points="{path}"{dashes}/>')

    def arrow(self, *points: tuple[float, float], label: Label | None = None) -> None:
        """Along straight pieces; the label stands over the first of them."""
        self.line(*points)
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        wings = [(x - 8 * dx - 4 * dy, y - 8 * dy - 4 * dx), (x - 8 * dx + 4 * dy, y - 8 * dy + 4 * dx)]
        tip = " ".join(f"{a},{b}" for a, b in ((x, y), *wings))
        self._parts.append(f'<polygon class="tip" points="{tip}"/>')
        if label:
            (ax, ay), (bx, by) = points[:2]
            if ay == by:
                self.words((ax + bx) / 2, ay - 7, label, "small")
            else:
                self.words(ax + 8, (ay + by) / 2 + 4, label, "small", "start")

    def dots(self, xs: list[float], y: float, colour: str = "good") -> None:
        self._parts += [f'<circle class="{colour}" cx="{x}" cy="{y}" r="4"/>' for x in xs]

    def __str__(self) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{escape(self.caption)}</title>{''.join(self._parts)}</svg>"
        )


def answer(language: str) -> Picture:
    it = Picture(300, ("How an answer is chosen: memory if proven current, then the cache, then REST; the stream for next time",
                       "답을 고르는 순서: 현재 값임이 증명된 메모리, 캐시, REST, 그리고 다음을 위한 스트림"), language)  # fmt: skip
    it.box(20, 20, 150, 50, ("get_ticker()", "get_ticker()"), strong=True)
    it.box(250, 20, 190, 50, ("streamed and current?", "스트림이 현재 값인가?"))
    it.box(250, 110, 190, 50, ("young REST answer?", "방금 받은 REST 응답?"))
    it.box(250, 200, 190, 60, ("ask REST", "REST에 묻기"), ("merged, within the limits", "묶어서, 제한 안에서"))
    it.box(540, 20, 160, 50, ("answer: ~1 µs", "답: 약 1 µs"), ("source: websocket", "source: websocket"), strong=True)
    it.box(540, 110, 160, 50, ("answer: no request", "답: 요청 없음"), ("source: rest", "source: rest"), strong=True)
    it.box(540, 205, 160, 50, ("answer: 1 round trip", "답: 왕복 한 번"), ("source: rest", "source: rest"), strong=True)
    it.arrow((170, 45), (250, 45))
    it.arrow((440, 45), (540, 45), label=("yes", "예"))
    it.arrow((345, 70), (345, 110), label=("no", "아니요"))
    it.arrow((440, 135), (540, 135), label=("yes", "예"))
    it.arrow((345, 160), (345, 200), label=("no", "아니요"))
    it.arrow((440, 230), (540, 230))
    it.box(
        20,
        200,
        170,
        60,
        ("asked 3 times in 10 s?", "10초에 세 번 물었나?"),
        ("then it is streamed", "그러면 스트림을 연다"),
    )
    it.arrow((250, 230), (190, 230))
    it.arrow((95, 200), (95, 100), (215, 100), (215, 60), (250, 60))
    it.words(20, 290, ("REST fails? The other way answers, marked degraded, or an error carries the last known value.",
                       "REST가 실패하면 다른 길이 degraded 표시를 달고 답하거나, 마지막 값을 담은 오류가 납니다."), "small", "start")  # fmt: skip
    return it


def current(language: str) -> Picture:
    it = Picture(250, ("What current means: heard within ten seconds, first picture there, no stall, at most two seconds late",
                       "현재 값의 조건: 10초 안에 소식, 첫 데이터 수신, 멈춤 없음, 지연 2초 이내"), language)  # fmt: skip
    rows = (
        (("quiet market, line answers pings", "조용한 마켓, 연결은 ping에 응답"), [260, 300], [330, 400, 470, 540],
         ("current", "현재 값"), "good"),
        (("busy market, nothing heard", "활발한 마켓, 소식 끊김"), [250, 275, 300], [],
         ("not current after 10 s", "10초 뒤부터 현재 값 아님"), "bad"),
        (("data comes three seconds late", "데이터가 3초씩 늦게 도착"), [260, 300, 340, 380, 420, 460, 500, 540], [],
         ("not current: too late", "늦어서 현재 값 아님"), "bad"),
    )  # fmt: skip
    for number, (name, data, pongs, verdict, kind) in enumerate(rows):
        y = 45 + 70 * number
        it.words(20, y + 5, name, "", "start")
        it.line((245, y), (560, y))
        it.dots([float(x) for x in data], y)
        for x in pongs:
            it.line((x, y - 7), (x, y + 7))
        it.line((560, y - 12), (560, y + 12), kind=kind)
        it.words(570, y + 5, verdict, "small", "start")
    it.dots([250.0], 228)
    it.words(262, 233, ("data", "데이터"), "small", "start")
    it.line((330, 221), (330, 235))
    it.words(340, 233, ("pong", "pong"), "small", "start")
    it.line((430, 216), (430, 238), kind="bad")
    it.words(440, 233, ("you ask here", "여기서 물어봄"), "small", "start")
    return it


def limits(language: str) -> Picture:
    it = Picture(230, ("Limits: ten requests in any sliding second for each group, urgent ones first",
                       "요청 제한: 그룹마다 어느 1초를 잘라도 10건, 급한 것부터"), language)  # fmt: skip
    it.box(20, 20, 150, 44, ("HIGH", "HIGH"), ("first", "먼저"))
    it.box(20, 78, 150, 44, ("NORMAL", "NORMAL"))
    it.box(20, 136, 150, 44, ("LOW", "LOW"), ("last", "나중에"))
    for y in (42, 100, 158):
        it.arrow((170, y), (215, y), (215, 100), (250, 100)) if y != 100 else it.arrow((170, y), (250, y))
    it.box(
        250,
        70,
        170,
        60,
        ("limiter of the group", "그룹별 제한기"),
        ("10 in any second", "어느 1초든 10건"),
        strong=True,
    )
    it.arrow((420, 100), (480, 100))
    it.line((480, 100), (700, 100))
    it.dots([490 + 16 * n for n in range(10)], 100)
    it.line((484, 78), (640, 78), kind="good")
    it.words(562, 68, ("one second", "1초"), "small")
    it.words(480, 150, ("429: this group pauses", "429: 이 그룹이 쉽니다"), "small", "start")
    it.words(
        480,
        172,
        ("418: everything waits until the ban ends", "418: 차단이 끝날 때까지 모두 기다립니다"),
        "small",
        "start",
    )
    it.words(20, 215, ("Groups: market, candle, trade, ticker, orderbook. All threads and objects of the process count together.",
                       "그룹: market, candle, trade, ticker, orderbook. 프로세스의 모든 스레드와 객체를 함께 셉니다."), "small", "start")  # fmt: skip
    return it


def line_break(language: str) -> Picture:
    it = Picture(260, ("When the line breaks: reconnect, resubscribe, fetch what was missed, deliver it in order, report",
                       "연결이 끊기면: 재연결, 재구독, 빠진 체결 조회, 순서대로 전달, 결과 보고"), language)  # fmt: skip
    it.words(20, 45, ("at Upbit", "업비트"), "", "start")
    it.line((120, 40), (700, 40))
    it.dots([140 + 34 * n for n in range(17)], 40)
    it.words(20, 115, ("line", "연결"), "", "start")
    it.line((120, 110), (270, 110), kind="good")
    it.line((270, 98), (270, 122), kind="bad")
    it.line((270, 110), (420, 110), kind="bad", dashed=True)
    it.line((420, 110), (700, 110), kind="good")
    it.words(345, 100, ("interrupted", "끊김"), "small")
    it.words(560, 100, ("connected and subscribed again", "다시 연결하고 구독함"), "small")
    it.box(300, 140, 240, 40, ("REST: trades of the gap", "REST: 빠진 구간의 체결"), strong=True)
    it.arrow((420, 122), (420, 140))
    it.words(20, 225, ("you get", "받는 쪽"), "", "start")
    it.line((120, 220), (700, 220))
    it.dots([140 + 34 * n for n in range(4)], 220)
    it.arrow((480, 180), (480, 212))
    it.dots([480 + 9 * n for n in range(5)], 220, "bad")
    it.words(440, 250, ("is_backfilled", "is_backfilled"), "small")
    it.line((530, 208), (530, 232))
    it.words(536, 250, ("GapEvent", "GapEvent"), "small")
    it.dots([555 + 34 * n for n in range(5)], 220)
    return it


def threads(language: str) -> Picture:
    it = Picture(270, ("Threads: the session's thread reads, a mailbox lies between it and your code",
                       "스레드: 연결 스레드가 읽고, 그 사이에 대기열이 있고, 여러분의 코드는 다른 스레드에서 돕니다"), language)  # fmt: skip
    it.words(120, 22, ("our threads", "라이브러리 스레드"), "small")
    it.words(605, 22, ("your code", "여러분의 코드"), "small")
    it.line((360, 10), (360, 260), dashed=True)
    it.box(20, 40, 200, 60, ("upbit-session-1", "upbit-session-1"), ("reads the socket only", "소켓 읽기만 함"))
    it.box(270, 40, 180, 60, ("mailbox", "대기열"), ("bounded, with a policy", "크기와 정책이 정해짐"), strong=True)
    it.box(
        510,
        40,
        190,
        60,
        ("for trade in trades:", "for trade in trades:"),
        ("the thread that loops", "반복문을 도는 스레드"),
    )
    it.arrow((220, 70), (270, 70))
    it.arrow((450, 70), (510, 70))
    it.box(270, 125, 180, 60, ("mailbox", "대기열"), ("one per subscription", "구독마다 하나"), strong=True)
    it.box(510, 125, 190, 60, ("callback(item)", "callback(item)"), ("a thread of its own", "구독 전용 스레드"))
    it.arrow((120, 100), (120, 155), (270, 155))
    it.arrow((450, 155), (510, 155))
    it.box(20, 205, 200, 50, ("REST, cache, live values", "REST, 캐시, 실시간 값"))
    it.box(510, 205, 190, 50, ("market.get_ticker()", "market.get_ticker()"), ("the thread that asks", "묻는 스레드"))
    it.arrow((510, 230), (220, 230), label=("runs on your own thread", "여러분의 스레드에서 실행"))
    return it


def day(language: str) -> Picture:
    it = Picture(190, ("The trading day: 00:00 UTC is 09:00 in Seoul", "거래일: UTC 0시는 한국 시각 9시"), language)
    for y, name, hours in (
        (50, ("UTC", "UTC"), ("15:00", "00:00", "15:00", "00:00")),
        (130, ("Seoul (KST)", "서울 (KST)"), ("00:00", "09:00", "00:00", "09:00")),
    ):
        it.words(20, y + 5, name, "", "start")
        it.line((120, y), (700, y))
        for x, hour in zip((150, 330, 510, 690), hours, strict=True):
            it.line((x, y - 8), (x, y + 8))
            it.words(x, y - 14, (hour, hour), "small")
    it.box(330, 72, 360, 36, ("one day candle", "일봉 하나"), strong=True)
    it.words(120, 178, ("timestamp is the start in UTC; timestamp_kst is the same moment on a Korean clock.",
                        "timestamp는 시작 시각(UTC), timestamp_kst는 같은 순간의 한국 시각입니다."), "small", "start")  # fmt: skip
    return it


PICTURES: dict[str, Callable[[str], Picture]] = {
    "answer": answer,
    "current": current,
    "limits": limits,
    "break": line_break,
    "threads": threads,
    "day": day,
}


def svg(name: str, language: str) -> tuple[str, str]:
    """The picture as SVG, and its caption."""
    picture = PICTURES[name](language)
    return str(picture), picture.caption
