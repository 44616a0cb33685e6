"""The name server's key-value configuration: namespace -> key -> text, and its file form.

The namespace ORDER_TOPIC_CONFIG lists ordered topics with the queues of each broker (`broker-a:4;broker-b:4`).
Source: `KVConfigManager`, `KVConfigSerializeWrapper`; the file `kvConfig.json` is `{"configTable":{namespace:{key:value}}}`.
"""

from __future__ import annotations

import attrs
import msgspec

from trmq.errors import ConfigError, RemoteProtocolError
from trmq.wire import fastjson

ORDER_TOPICS = "ORDER_TOPIC_CONFIG"


@attrs.define
class KeyValues:
    _table: dict[str, dict[str, str]] = attrs.field(factory=dict)

    def get(self, namespace: str, key: str) -> str | None:
        return self._table.get(namespace, {}).get(key)

    def namespace(self, namespace: str) -> dict[str, str] | None:
        """A copy of one namespace; None if nothing was ever put there."""
        found = self._table.get(namespace)
        return None if found is None else dict(found)

    def put(self, namespace: str, key: str, value: str) -> None:
        self._table.setdefault(namespace, {})[key] = value

    def delete(self, namespace: str, key: str) -> None:
        self._table.get(namespace, {}).pop(key, None)

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode({"configTable": self._table}, order="sorted"), indent=2)

    @classmethod
    def from_json(cls, data: bytes, file: str) -> KeyValues:
        """Raises `ConfigError` naming the file when it is not what `to_json` or Apache writes."""
        try:
            found = msgspec.convert(fastjson.loads(data), _File)
        except (ValueError, TypeError, RemoteProtocolError) as error:
            raise ConfigError(f"{file} is damaged: {error}; repair it, or remove it to start without KV configuration") from None
        return cls(found.table)


class _File(msgspec.Struct):
    table: dict[str, dict[str, str]] = msgspec.field(default_factory=dict, name="configTable")
