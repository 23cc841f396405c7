"""Prices from a Flask application: one backbone for the process, shared by all of its request threads.

    python -m pip install . flask
    flask --app examples/12_flask.py run

Started as a script it asks itself one question and ends.
"""

from typing import Any

from flask import Flask

from upbit_backbone import MarketDataBackbone, UpbitBackboneError

application = app = Flask(__name__)
market = MarketDataBackbone(timeout_seconds=2)  # starts nothing before the first question, so workers may be forked


@app.get("/ticker/<symbol>")
def ticker(symbol: str) -> Any:
    return market.get_ticker(symbol).to_dict()  # asked often, it is answered from the stream


@app.errorhandler(UpbitBackboneError)
def failed(error: UpbitBackboneError) -> Any:
    return {"error": str(error)}, 503 if error.retryable else 400


if __name__ == "__main__":
    with market:
        client = app.test_client()
        print(client.get("/ticker/KRW-BTC").json)
        print(client.get("/ticker/KRW-NOPE").json)
