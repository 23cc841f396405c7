"""Which pairs exist: the well-known coins with their real names and plausible prices, then invented ones."""

from __future__ import annotations

import random
from dataclasses import dataclass

KRW_COUNT, BTC_COUNT, USDT_COUNT = 289, 328, 238
KRW_PER_BTC = 131_000_000.0
KRW_PER_USDT = 1_450.0

_KNOWN = """BTC|비트코인|Bitcoin|131000000;ETH|이더리움|Ethereum|5100000;XRP|엑스알피(리플)|XRP|3400;SOL|솔라나|Solana|230000
DOGE|도지코인|Dogecoin|260;USDT|테더|Tether|1450;ADA|에이다|Ada|850;TRX|트론|TRON|420;LINK|체인링크|Chainlink|23000
AVAX|아발란체|Avalanche|31000;SUI|수이|Sui|3900;XLM|스텔라루멘|Stellar Lumen|420;BCH|비트코인캐시|Bitcoin Cash|780000
HBAR|헤데라|Hedera|270;DOT|폴카닷|Polkadot|4300;SHIB|시바이누|Shiba Inu|0.0138;UNI|유니스왑|Uniswap|10800;NEAR|니어프로토콜|NEAR Protocol|3400
AAVE|에이브|Aave|310000;PEPE|페페|PEPE|0.0112;APT|앱토스|Aptos|5200;ETC|이더리움클래식|Ethereum Classic|24500;ONDO|온도파이낸스|Ondo Finance|1120
POL|폴리곤에코시스템토큰|POL|300;TRUMP|오피셜트럼프|Official Trump|9800;ENA|에테나|Ethena|620;USDC|유에스디코인|USDC|1450
VET|비체인|VeChain|28.5;ALGO|알고랜드|Algorand|268;ARB|아비트럼|Arbitrum|480;ATOM|코스모스|Cosmos|5100;RENDER|렌더토큰|Render Token|4100
SEI|세이|Sei|330;BONK|봉크|Bonk|0.0249;FIL|파일코인|Filecoin|2600;IMX|이뮤터블엑스|Immutable|820;STX|스택스|Stacks|740
INJ|인젝티브|Injective|14800;OP|옵티미즘|Optimism|790;GRT|더그래프|The Graph|112;FLOW|플로우|Flow|480;SAND|샌드박스|The Sandbox|340
MANA|디센트럴랜드|Decentraland|390;XTZ|테조스|Tezos|880;THETA|쎄타토큰|Theta Token|920;GALA|갈라|Gala|18.9;PYTH|피스네트워크|Pyth Network|178
AXS|엑시인피니티|Axie Infinity|2600;A|볼타|Vaulta|520;NEO|네오|NEO|7600;CHZ|칠리즈|Chiliz|52;EGLD|멀티버스엑스|MultiversX|16500
MINA|미나|Mina|196;ZRO|레이어제로|LayerZero|2400;BLUR|블러|Blur|88;ID|스페이스아이디|SPACE ID|210;QTUM|퀀텀|Qtum|3100
BTT|비트토렌트|BitTorrent|0.00085;IOTA|아이오타|IOTA|240;CRO|크로노스|Cronos|240;W|웜홀|Wormhole|108;BEAM|빔|Beam|9.1
ICX|아이콘|ICON|156;ZIL|질리카|Zilliqa|14.2;ANKR|앵커|Ankr|17.8;WAVES|웨이브|Waves|1420;GLM|골렘|Golem|305;KAVA|카바|Kava|430
SNT|스테이터스네트워크토큰|Status Network Token|33.4;MOCA|모카네트워크|Moca Network|92;STORJ|스토리지|Storj|300;SXP|솔라|Solar|210
BAT|베이직어텐션토큰|Basic Attention Token|215;ONT|온톨로지|Ontology|178;JST|저스트|JUST|50.2;CELO|셀로|Celo|420;ELF|엘프|aelf|280
STEEM|스팀|Steem|176;POWR|파워렛저|Power Ledger|208;HIVE|하이브|Hive|272;AERGO|아르고|Aergo|112;LSK|리스크|Lisk|480;ARK|아크|Ark|560
STRAX|스트라티스|Stratis|44.1;MTL|메탈|Metal|920;ARDR|아더|Ardor|103;MBL|무비블록|MovieBloc|3.02;CBK|코박토큰|Cobak Token|620
TFUEL|쎄타퓨엘|Theta Fuel|41.7;IQ|아이큐|IQ.wiki|4.11;MED|메디블록|MediBloc|7.33;ORBS|오브스|Orbs|25.1;SC|시아코인|Siacoin|4.02
AWE|에이더블유이|AWE Network|71.5;META|메타디움|Metadium|24.6;HUNT|헌트|HUNT|255;AQT|알파쿼크토큰|Alpha Quark Token|1310
XEC|이캐시|eCash|0.0272;CTC|크레딧코인|Creditcoin|980;KAITO|카이토|Kaito|1530;LPT|라이브피어|Livepeer|8900;PENDLE|펜들|Pendle|6700
DRIFT|드리프트|Drift|860;JUP|주피터|Jupiter|640;VANA|바나|Vana|5900;BERA|베라체인|Berachain|3100;RAY|레이디움|Raydium|3900"""
_SYLLABLES = "KA RO MI ZE LU NO VI TA XO PE DU RI SA GO NE BY".split()
_HANGUL = "카 로 미 제 루 노 비 타 소 페 두 리 사 고 네 바".split()


@dataclass(slots=True)
class Listing:
    """One pair as `/v1/market/all` knows it, and what the market model needs to bring it to life."""

    code: str
    korean_name: str
    english_name: str
    price: float
    trades_per_minute: float
    warning: bool = False
    cautions: int = 0


def listings(seed: int, wanted: int | list[str] | None) -> list[Listing]:
    """The pairs of one simulated venue, in a stable order with KRW-BTC first."""
    coins = _coins(seed)
    everything = [*_quote("KRW", coins, KRW_COUNT, 1.0), *_quote("BTC", coins, BTC_COUNT, KRW_PER_BTC),
                  *_quote("USDT", coins, USDT_COUNT, KRW_PER_USDT)]  # fmt: skip
    chosen = _choose(everything, coins, wanted)
    rng = random.Random(f"{seed}/alerts")
    for listing in chosen:
        listing.warning = rng.random() < 0.02
        listing.cautions = (1 << rng.randrange(5)) if rng.random() < 0.27 else 0
    return chosen


def _choose(everything: list[Listing], coins: list[tuple[str, str, str, float]], wanted: int | list[str] | None
            ) -> list[Listing]:  # fmt: skip
    if wanted is None:
        return everything
    if isinstance(wanted, int):
        shares = {"KRW": 0, "BTC": 0, "USDT": 0}
        for index in range(wanted):
            shares["KRW" if index % 3 == 0 and index < 3 * KRW_COUNT else "BTC" if index % 3 == 1 else "USDT"] += 1
        counts = {"KRW": KRW_COUNT, "BTC": BTC_COUNT, "USDT": USDT_COUNT}
        if wanted > sum(counts.values()):
            raise ValueError(f"there are {sum(counts.values())} pairs at most; name them to have others")
        spare = sum(max(0, shares[quote] - counts[quote]) for quote in shares)
        shares = {quote: min(shares[quote], counts[quote]) for quote in shares}
        for quote in shares:
            more = min(spare, counts[quote] - shares[quote])
            shares[quote] += more
            spare -= more
        return [one for quote, share in shares.items()
                for one in [row for row in everything if row.code.startswith(quote + "-")][:share]]  # fmt: skip
    by_code = {row.code: row for row in everything}
    return [by_code.get(code) or _invent(code, coins) for code in wanted]


def _invent(code: str, coins: list[tuple[str, str, str, float]]) -> Listing:
    quote, _, base = code.partition("-")
    if not quote or not base or code != code.upper():
        raise ValueError(f"{code!r} is not a pair like KRW-BTC")
    for symbol, korean, english, price in coins:
        if symbol == base:
            break
    else:
        korean, english, price = base, base.title(), 10.0 * (1 + sum(map(ord, base)) % 900)
    per = {"KRW": 1.0, "BTC": KRW_PER_BTC, "USDT": KRW_PER_USDT}.get(quote, KRW_PER_USDT)
    return Listing(code, korean, english, max(price / per, 4e-8), 0.3)


def _quote(quote: str, coins: list[tuple[str, str, str, float]], count: int, krw_per_quote: float) -> list[Listing]:
    rows = [coin for coin in coins if coin[0] != quote and not (quote == "BTC" and coin[0] == "USDT")]
    return [Listing(f"{quote}-{symbol}", korean, english, max(price / krw_per_quote, 4e-8), _activity(quote, rank))
            for rank, (symbol, korean, english, price) in enumerate(rows[:count])]  # fmt: skip


def _activity(quote: str, rank: int) -> float:
    """Trades per minute of history: a few busy pairs, many quiet ones, as on the real venue."""
    if quote == "KRW":
        return 3.0 if rank < 6 else 1.2 if rank < 30 else 0.3 if rank < 120 else 0.08
    return 0.15 if rank < 10 else 0.03 if rank < 60 else 0.006


def _coins(seed: int) -> list[tuple[str, str, str, float]]:
    coins = []
    for row in _KNOWN.replace("\n", ";").split(";"):
        symbol, korean, english, price = row.split("|")
        coins.append((symbol, korean, english, float(price)))
    known = {coin[0] for coin in coins}
    rng = random.Random(f"{seed}/coins")
    while len(coins) < BTC_COUNT + 2:
        picks = [rng.randrange(len(_SYLLABLES)) for _ in range(rng.choice((2, 2, 3)))]
        symbol = "".join(_SYLLABLES[pick] for pick in picks)
        if symbol in known:
            continue
        known.add(symbol)
        price = float(f"{10 ** rng.uniform(-3.0, 4.3):.3g}")
        coins.append((symbol, "".join(_HANGUL[pick] for pick in picks), symbol.title(), price))
    return coins
