"""Several processes on one file, killed anywhere: python -m tests.support.two_writers KIND SEED ROUNDS

Each round has one file (csv, parquet or recording) and some writers, each a process of its own that starts while
others write: it goes on (`auto`, as the command line does without a word; `resume`) or starts over (`force`), ends
well, leaves off, or is killed (SIGKILL). What each of them sees goes to a log that all append to, so its order is the
order of what happened, and a kill takes nothing from it. At the end a clean writer finishes the file, and `Judge` reads
the log.

Run in a process of its own, because it forks and must have no thread.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from upbit_backbone.errors import FileInUseError, InvalidRequestError
from upbit_backbone.export.files import CsvFile, Download, ParquetFile, write_csv, write_parquet
from upbit_backbone.models.enums import DataSource
from upbit_backbone.models.market import CandleData
from upbit_backbone.recorder import Recorder, Recording
from upbit_backbone.recorder.format import Record, RecordKind, encode_records
from upbit_backbone.recorder.recording import RecordingWriter

START = datetime(2026, 3, 1, tzinfo=UTC)
SYMBOLS = ("KRW-BTC", "KRW-BTC", "KRW-BTC", "KRW-ETH")
MODES = ("auto", "auto", "resume", "force")


def candle(symbol: str, index: int) -> CandleData:
    price = Decimal("0.00000012") + index
    return CandleData(
        symbol, "1m", price, price, price, price, Decimal(1000), START + timedelta(minutes=index), DataSource.REST
    )


class Log:
    """Lines of all processes, in the order of what happened; each line also wakes the parent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.wake, self._waking = os.pipe()
        os.set_blocking(self._waking, False)

    def say(self, what: str, **more: object) -> None:
        os.write(self._file, json.dumps({"pid": os.getpid(), "what": what, **more}).encode() + b"\n")
        with contextlib.suppress(BlockingIOError):
            os.write(self._waking, b".")

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def close(self) -> None:
        for each in (self._file, self.wake, self._waking):
            os.close(each)


class Exports:
    """CSV or Parquet downloads."""

    def __init__(self, folder: Path, log: Log, kind: str, rng: random.Random) -> None:
        self.kind = kind
        self.path = folder / f"day.{kind}"
        self.total = rng.randrange(5, 60)
        self.log = log
        self.make = CsvFile if kind == "csv" else ParquetFile

    def write(self, rng: random.Random) -> None:
        symbol, mode = rng.choice(SYMBOLS), rng.choice(MODES)
        self.log.say("tries", mode=mode, symbol=symbol)
        resume = {"auto": None, "resume": True, "force": False}[mode]
        with self.make(self.path, resume=resume, download=Download(symbol, "1m", START)) as file:
            self.log.say("opens", rows=file.rows, symbol=symbol, mode=mode)
            for index in range(file.rows, rng.choice([self.total, rng.randrange(self.total + 1)])):
                file.write([candle(symbol, index)])
                if rng.random() < 0.3:
                    file.flush()
                    self.log.say("safe", rows=file.rows)
            if file.rows < self.total or rng.random() < 0.3:
                file.flush()
                self.log.say("safe", rows=file.rows)
                self.log.say("leaves")
                file.close()
            else:
                self.log.say("commits", rows=file.rows)
        self.log.say("ends")

    def finish(self) -> list[str]:
        """Go on with whatever is there; what is wrong with the result."""
        for symbol in ("KRW-BTC", "KRW-ETH"):
            try:
                with self.make(self.path, resume=True, download=Download(symbol, "1m", START)) as file:
                    self.log.say("opens", rows=file.rows, symbol=symbol, mode="resume")
                    file.write([candle(symbol, index) for index in range(file.rows, self.total)])
                    self.log.say("commits", rows=file.rows)
            except InvalidRequestError as error:
                self.log.say("other", words=str(error), symbol=symbol)
                continue
            whole = self.path.with_name(f"whole.{self.kind}")
            write = write_csv if self.kind == "csv" else write_parquet
            write([candle(symbol, index) for index in range(self.total)], whole)
            return [] if whole.read_bytes() == self.path.read_bytes() else ["the finished file is not the whole answer"]
        return ["nobody can finish the file"]


class Recordings:
    """What is recorded is numbered by writer; nothing that was safe may be missing, twice, or between others'."""

    def __init__(self, folder: Path, log: Log, kind: str, rng: random.Random) -> None:
        self.path = folder / "day.rec"
        self.log = log

    def write(self, rng: random.Random) -> None:
        self.log.say("tries", mode="resume", symbol="")
        (self._record if rng.random() < 0.3 else self._append)(rng)
        self.log.say("ends")

    def _append(self, rng: random.Random) -> None:
        writer = RecordingWriter(self.path)
        self.log.say("opens")
        for number in range(rng.randrange(1, 12)):
            frame = json.dumps([os.getpid(), number]).encode()
            record = Record(RecordKind.FRAMES, float(number), START, "s", 1, blobs=(frame,))
            begin = Record(RecordKind.BEGIN, float(number), START, details={"format": 2})
            writer.append(encode_records([begin, record] if not writer.size else [record]))
            self.log.say("saved", number=number)
        self.log.say("leaves")
        writer.close()

    def _record(self, rng: random.Random) -> None:
        recorder = Recorder(self.path)
        self.log.say("opens")
        wanted = rng.randrange(1, 30)
        for number in range(wanted):
            recorder.frames("s", 1, [json.dumps([os.getpid(), number]).encode()], float(number), START)
        self.log.say("leaves")
        recorder.close()
        stats = recorder.stats
        if stats.lost or stats.error or stats.records != wanted + 1:
            self.log.say("wrong", words=repr(stats))
        for number in range(wanted):
            self.log.say("saved", number=number)

    def finish(self) -> list[str]:
        recording = Recording(self.path) if self.path.exists() else None
        frames = [] if recording is None else [
            tuple(json.loads(bytes(blob))) for record in recording if record.kind is RecordKind.FRAMES
            for blob in record.blobs
        ]  # fmt: skip
        lines = self.log.lines()
        saved = {(line["pid"], line["number"]) for line in lines if line["what"] == "saved"}
        wrong = [f"lost {each}" for each in sorted(saved - set(frames))]
        wrong += [f"twice {each}" for each, times in collections.Counter(frames).items() if times > 1]
        turns = [pid for at, (pid, _) in enumerate(frames) if not at or frames[at - 1][0] != pid]
        opened = [line["pid"] for line in lines if line["what"] == "opens"]
        if turns != [pid for pid in opened if pid in turns]:
            wrong.append(f"mixed: {turns} were opened as {opened}")
        for pid in turns:
            numbers = [number for writer, number in frames if writer == pid]
            if numbers != list(range(len(numbers))):
                wrong.append(f"of {pid} came {numbers}")
        if recording is not None and recording.damage and "killed" not in {line["what"] for line in lines}:
            wrong.append(f"damaged by nobody: {recording.damage}")
        return wrong


class Judge:
    """What the log may say."""

    def __init__(self, lines: list[dict]) -> None:
        self.lines = lines
        self.wrong: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter(line["what"] for line in lines)
        self._answered = {line["pid"] for line in lines if line["what"] in ("opens", "in use", "other")}

    def judge(self) -> list[str]:
        holder, rows = None, 0  # rows: as many are there for certain
        symbols: set[str] = set()  # of one of these the rows are; empty where that is not known
        is_finished, committed, has_committed, finished = False, 0, 0, set()
        dead: set[int] = set()
        tried_when_dead: dict[int, set[int]] = {}
        for line in self.lines:
            what, pid = line["what"], line["pid"]
            starts_over_unheard = line.get("mode") == "force" and pid not in self._answered
            if what == "killed" or what == "reaped":
                dead.add(line["who"])
            elif what == "tries":
                tried_when_dead[pid] = set(dead)
            elif what == "in use":
                named = re.search(r"by process (\d+) on ", line["words"])
                if named is None or int(named[1]) in tried_when_dead[pid]:
                    self.wrong.append(f"{pid} was refused in the name of nobody alive: {line['words']}")
            elif what == "other":
                if symbols == {line["symbol"]} and not (is_finished and self._may_have_begun_anew(line)):
                    self.wrong.append(f"{pid} was told of another's rows in its own file: {line['words']}")
            elif what == "opens":
                if holder is not None and any(later["pid"] == holder for later in self._after(line)):
                    self.wrong.append(f"{pid} opened while {holder} was writing")
                if line.get("mode") == "force" or (line.get("mode") == "auto" and not line["rows"] and is_finished):
                    rows = 0  # without a word nobody goes on with a finished file
                elif line.get("rows", 0) < rows and not (is_finished and self._may_have_begun_anew(line)):
                    self.wrong.append(f"{pid} found {line['rows']} rows where {rows} were safe")
                holder, rows, symbols = pid, line.get("rows", 0), {line.get("symbol")}
            elif what == "safe":
                rows = line["rows"]
            elif what == "commits":
                is_finished, committed, has_committed, finished = True, line["rows"], pid, symbols
            elif what in ("leaves", "ends") and holder == pid:
                # Who began anew beside a finished file and wrote no row leaves the finished one, once he has tidied up.
                symbols = symbols if rows else symbols | finished
                # Without a word nobody looks at a finished file any more, and another's rows may have taken its place.
                holder, rows = None, committed if what == "ends" and has_committed == pid else rows
            elif what == "wrong":
                self.wrong.append(f"{pid}: {line['words']}")
            # Killed before it could say so, it may have emptied the file at any time in between.
            if (what == "tries" and starts_over_unheard) or (what == "killed" and self._started_over(line["who"])):
                rows, symbols = 0, set()
        return self.wrong

    def _after(self, line: dict) -> list[dict]:
        at = next(index for index, each in enumerate(self.lines) if each is line)
        return [each for each in self.lines[at + 1 :] if each["what"] not in ("leaves", "ends")]

    def _may_have_begun_anew(self, line: dict) -> bool:
        """Whether somebody came before `line`, without a word, and was killed before he could say what he found.

        Beside a finished file he begins a new one, and who resumes goes on with that."""
        before = self.lines[: next(index for index, each in enumerate(self.lines) if each is line)]
        return any(
            each["what"] == "tries" and each["mode"] == "auto" and each["pid"] not in self._answered for each in before
        )

    def _started_over(self, pid: int) -> bool:
        tried = [line for line in self.lines if line["pid"] == pid and line["what"] == "tries"]
        return bool(tried) and tried[0]["mode"] == "force" and pid not in self._answered


def begin(scene: Exports | Recordings, log: Log, seed: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        scene.write(random.Random(seed))
    except FileInUseError as error:
        log.say("in use", words=str(error))
    except InvalidRequestError as error:
        log.say("other", words=str(error), symbol=random.Random(seed).choice(SYMBOLS))
    except BaseException:
        log.say("wrong", words=traceback.format_exc())
    finally:
        os._exit(0)


def play(kind: str, seed: int) -> tuple[list[str], collections.Counter[str]]:
    """One round: what was wrong, and how often what happened."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="two-writers-"))
    log = Log(folder / "log")
    (folder / "files").mkdir()
    scene = (Recordings if kind == "recording" else Exports)(folder / "files", log, kind, rng)
    running: list[int] = []
    try:
        for number in range(rng.randrange(3, 9)):
            running.append(begin(scene, log, seed * 100 + number))
            # Some words later, while at least one is writing, another comes or one of them is killed.
            os.read(log.wake, rng.randrange(1, 12))
            while len(running) >= 2 or (running and rng.random() < 0.3):
                victim = running.pop(rng.randrange(len(running)))
                if rng.random() < 0.6:
                    os.kill(victim, signal.SIGKILL)
                _, status = os.waitpid(victim, 0)
                log.say("killed" if os.WIFSIGNALED(status) else "reaped", who=victim)
        for pid in running:
            os.waitpid(pid, 0)
        wrong = scene.finish()
        judge = Judge(log.lines())
        return [*wrong, *judge.judge()], judge.counts
    finally:
        log.close()
        shutil.rmtree(folder)


def main(kind: str, first: int, rounds: int) -> int:
    logging.disable(logging.CRITICAL)
    counts: collections.Counter[str] = collections.Counter()
    bad = 0
    for seed in range(first, first + rounds):
        wrong, happened = play(kind, seed)
        counts += happened
        bad += bool(wrong)
        for each in wrong:
            print(f"seed {seed}: {each}")  # noqa: T201 - what a program is for
    print(f"{rounds} rounds of {kind}, {bad} bad; {dict(counts)}")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
