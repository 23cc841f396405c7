"""Well-known coins, most traded first, with their names on Upbit and a plausible price; the rest is invented."""

from __future__ import annotations

import random
from typing import NamedTuple


class Coin(NamedTuple):
    """An asset; the price is in KRW."""

    symbol: str
    korean_name: str
    english_name: str
    price: float


KNOWN = (
    Coin("BTC", "비트코인", "Bitcoin", 131000000.0),
    Coin("ETH", "이더리움", "Ethereum", 5100000.0),
    Coin("XRP", "엑스알피(리플)", "XRP", 3400.0),
    Coin("SOL", "솔라나", "Solana", 230000.0),
    Coin("DOGE", "도지코인", "Dogecoin", 260.0),
    Coin("USDT", "테더", "Tether", 1450.0),
    Coin("ADA", "에이다", "Ada", 850.0),
    Coin("TRX", "트론", "TRON", 420.0),
    Coin("LINK", "체인링크", "Chainlink", 23000.0),
    Coin("AVAX", "아발란체", "Avalanche", 31000.0),
    Coin("SUI", "수이", "Sui", 3900.0),
    Coin("XLM", "스텔라루멘", "Stellar Lumen", 420.0),
    Coin("BCH", "비트코인캐시", "Bitcoin Cash", 780000.0),
    Coin("HBAR", "헤데라", "Hedera", 270.0),
    Coin("DOT", "폴카닷", "Polkadot", 4300.0),
    Coin("SHIB", "시바이누", "Shiba Inu", 0.0138),
    Coin("UNI", "유니스왑", "Uniswap", 10800.0),
    Coin("NEAR", "니어프로토콜", "NEAR Protocol", 3400.0),
    Coin("AAVE", "에이브", "Aave", 310000.0),
    Coin("PEPE", "페페", "PEPE", 0.0112),
    Coin("APT", "앱토스", "Aptos", 5200.0),
    Coin("ETC", "이더리움클래식", "Ethereum Classic", 24500.0),
    Coin("ONDO", "온도파이낸스", "Ondo Finance", 1120.0),
    Coin("POL", "폴리곤에코시스템토큰", "POL", 300.0),
    Coin("TRUMP", "오피셜트럼프", "Official Trump", 9800.0),
    Coin("ENA", "에테나", "Ethena", 620.0),
    Coin("USDC", "유에스디코인", "USDC", 1450.0),
    Coin("VET", "비체인", "VeChain", 28.5),
    Coin("ALGO", "알고랜드", "Algorand", 268.0),
    Coin("ARB", "아비트럼", "Arbitrum", 480.0),
    Coin("ATOM", "코스모스", "Cosmos", 5100.0),
    Coin("RENDER", "렌더토큰", "Render Token", 4100.0),
    Coin("SEI", "세이", "Sei", 330.0),
    Coin("BONK", "봉크", "Bonk", 0.0249),
    Coin("FIL", "파일코인", "Filecoin", 2600.0),
    Coin("IMX", "이뮤터블엑스", "Immutable", 820.0),
    Coin("STX", "스택스", "Stacks", 740.0),
    Coin("INJ", "인젝티브", "Injective", 14800.0),
    Coin("OP", "옵티미즘", "Optimism", 790.0),
    Coin("GRT", "더그래프", "The Graph", 112.0),
    Coin("FLOW", "플로우", "Flow", 480.0),
    Coin("SAND", "샌드박스", "The Sandbox", 340.0),
    Coin("MANA", "디센트럴랜드", "Decentraland", 390.0),
    Coin("XTZ", "테조스", "Tezos", 880.0),
    Coin("THETA", "쎄타토큰", "Theta Token", 920.0),
    Coin("GALA", "갈라", "Gala", 18.9),
    Coin("PYTH", "피스네트워크", "Pyth Network", 178.0),
    Coin("AXS", "엑시인피니티", "Axie Infinity", 2600.0),
    Coin("A", "볼타", "Vaulta", 520.0),
    Coin("NEO", "네오", "NEO", 7600.0),
    Coin("CHZ", "칠리즈", "Chiliz", 52.0),
    Coin("EGLD", "멀티버스엑스", "MultiversX", 16500.0),
    Coin("MINA", "미나", "Mina", 196.0),
    Coin("ZRO", "레이어제로", "LayerZero", 2400.0),
    Coin("BLUR", "블러", "Blur", 88.0),
    Coin("ID", "스페이스아이디", "SPACE ID", 210.0),
    Coin("QTUM", "퀀텀", "Qtum", 3100.0),
    Coin("BTT", "비트토렌트", "BitTorrent", 0.00085),
    Coin("IOTA", "아이오타", "IOTA", 240.0),
    Coin("CRO", "크로노스", "Cronos", 240.0),
    Coin("W", "웜홀", "Wormhole", 108.0),
    Coin("BEAM", "빔", "Beam", 9.1),
    Coin("ICX", "아이콘", "ICON", 156.0),
    Coin("ZIL", "질리카", "Zilliqa", 14.2),
    Coin("ANKR", "앵커", "Ankr", 17.8),
    Coin("WAVES", "웨이브", "Waves", 1420.0),
    Coin("GLM", "골렘", "Golem", 305.0),
    Coin("KAVA", "카바", "Kava", 430.0),
    Coin("SNT", "스테이터스네트워크토큰", "Status Network Token", 33.4),
    Coin("MOCA", "모카네트워크", "Moca Network", 92.0),
    Coin("STORJ", "스토리지", "Storj", 300.0),
    Coin("SXP", "솔라", "Solar", 210.0),
    Coin("BAT", "베이직어텐션토큰", "Basic Attention Token", 215.0),
    Coin("ONT", "온톨로지", "Ontology", 178.0),
    Coin("JST", "저스트", "JUST", 50.2),
    Coin("CELO", "셀로", "Celo", 420.0),
    Coin("ELF", "엘프", "aelf", 280.0),
    Coin("STEEM", "스팀", "Steem", 176.0),
    Coin("POWR", "파워렛저", "Power Ledger", 208.0),
    Coin("HIVE", "하이브", "Hive", 272.0),
    Coin("AERGO", "아르고", "Aergo", 112.0),
    Coin("LSK", "리스크", "Lisk", 480.0),
    Coin("ARK", "아크", "Ark", 560.0),
    Coin("STRAX", "스트라티스", "Stratis", 44.1),
    Coin("MTL", "메탈", "Metal", 920.0),
    Coin("ARDR", "아더", "Ardor", 103.0),
    Coin("MBL", "무비블록", "MovieBloc", 3.02),
    Coin("CBK", "코박토큰", "Cobak Token", 620.0),
    Coin("TFUEL", "쎄타퓨엘", "Theta Fuel", 41.7),
    Coin("IQ", "아이큐", "IQ.wiki", 4.11),
    Coin("MED", "메디블록", "MediBloc", 7.33),
    Coin("ORBS", "오브스", "Orbs", 25.1),
    Coin("SC", "시아코인", "Siacoin", 4.02),
    Coin("AWE", "에이더블유이", "AWE Network", 71.5),
    Coin("META", "메타디움", "Metadium", 24.6),
    Coin("HUNT", "헌트", "HUNT", 255.0),
    Coin("AQT", "알파쿼크토큰", "Alpha Quark Token", 1310.0),
    Coin("XEC", "이캐시", "eCash", 0.0272),
    Coin("CTC", "크레딧코인", "Creditcoin", 980.0),
    Coin("KAITO", "카이토", "Kaito", 1530.0),
    Coin("LPT", "라이브피어", "Livepeer", 8900.0),
    Coin("PENDLE", "펜들", "Pendle", 6700.0),
    Coin("DRIFT", "드리프트", "Drift", 860.0),
    Coin("JUP", "주피터", "Jupiter", 640.0),
    Coin("VANA", "바나", "Vana", 5900.0),
    Coin("BERA", "베라체인", "Berachain", 3100.0),
    Coin("RAY", "레이디움", "Raydium", 3900.0),
)
_SYLLABLES = ("KA", "RO", "MI", "ZE", "LU", "NO", "VI", "TA", "XO", "PE", "DU", "RI", "SA", "GO", "NE", "BY")
_HANGUL = "카로미제루노비타소페두리사고네바"


def coins(seed: int, count: int) -> list[Coin]:
    """The known coins, then invented ones until there are `count`."""
    found = list(KNOWN)
    taken = {coin.symbol for coin in found}
    rng = random.Random(f"{seed}/coins")
    while len(found) < count:
        picks = [rng.randrange(len(_SYLLABLES)) for _ in range(rng.choice((2, 2, 3)))]
        symbol = "".join(_SYLLABLES[pick] for pick in picks)
        if symbol not in taken:
            taken.add(symbol)
            price = float(f"{10 ** rng.uniform(-3.0, 4.3):.3g}")
            found.append(Coin(symbol, "".join(_HANGUL[pick] for pick in picks), symbol.title(), price))
    return found
