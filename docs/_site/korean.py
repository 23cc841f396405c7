"""Korean words as the search sees them: without the particle at their end. Pure.

Python makes the index and JavaScript reads the question, so both cut by the same table.
"""

from __future__ import annotations

import json

PARTICLES = sorted(
    "에서는 에서도 으로는 으로도 으로써 으로서 까지는 부터는 이라는 이라도 에게서 에게는 입니다 합니다 됩니다 "
    "부터 까지 에서 에게 으로 처럼 보다 마다 조차 이나 이란 라는 라도 에는 에도 와는 과는 로는 로도 하고 하는 하면 하며 "
    "되는 되면 들은 들이 들을 들의 이며 이고 "
    "은 는 이 가 을 를 의 에 로 와 과 도 만 나".split(),
    key=lambda particle: (-len(particle), particle),
)
# Words that end like a particle and have none.
WHOLE = frozenset("현재가 목표가 체결가 최고가 최저가 매수가 매도가 재시도 정밀도 정확도 난이도".split())
LEAST = 2  # syllables left of a Korean word; of a foreign one ("REST는") a letter will do


def stem(word: str) -> str:
    """`가격을` → `가격`, `REST로` → `rest`; words too short to tell stay whole."""
    lower = word.lower()
    if lower in WHOLE:
        return lower
    for particle in PARTICLES:
        root = lower.removesuffix(particle)
        if root == lower:
            continue
        is_foreign = bool(root) and root[-1].isascii()
        if root and (is_foreign or len(root) >= LEAST):
            return root
    return lower


JAVASCRIPT = f"""
var Stemmer = function () {{
  const particles = {json.dumps(PARTICLES, ensure_ascii=False)};
  const whole = new Set({json.dumps(sorted(WHOLE), ensure_ascii=False)});
  this.stemWord = function (word) {{
    const lower = word.toLowerCase();
    if (whole.has(lower)) return lower;
    for (const particle of particles) {{
      if (!lower.endsWith(particle)) continue;
      const root = lower.slice(0, -particle.length);
      if (root && (/[\\x00-\\x7f]$/.test(root) || root.length >= {LEAST})) return root;
    }}
    return lower;
  }};
}};
"""
