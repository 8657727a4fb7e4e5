"""Shopify: webhooks of a shop, an app or the Flow trigger, whose kinds are topics such as ``orders/create``."""

from __future__ import annotations

from harn.connectors.receivers import Example, SignedProvider, header
from harn.connectors.signatures import Encoding, HmacScheme

SIGNATURE = HmacScheme(name="shopify", header="X-Shopify-Hmac-Sha256", encoding=Encoding.BASE64)
"""No time is signed: a captured request stays valid. Source: Shopify, "Deliver webhooks through HTTPS"."""

SHOPIFY = SignedProvider(
    provider="shopify",
    home=__name__,
    scheme=SIGNATURE,
    kind=header("X-Shopify-Topic"),
    # Two subscriptions to one change share X-Shopify-Event-Id; the attempts of one delivery share this.
    identity=header("X-Shopify-Webhook-Id"),
    occurred_at=header("X-Shopify-Triggered-At"),
    headers={
        "shop_domain": "x-shopify-shop-domain",
        "api_version": "x-shopify-api-version",
        "webhook_id": "x-shopify-webhook-id",
        "event_id": "x-shopify-event-id",
    },
    example=Example(
        body=b'{"id": 820982911946154508, "email": "jon@example.com", "total_price": "403.00", "currency": "USD"}',
        headers={
            "Content-Type": "application/json",
            "X-Shopify-Topic": "orders/create",
            "X-Shopify-Shop-Domain": "example.myshopify.com",
            "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        },
    ),
)
