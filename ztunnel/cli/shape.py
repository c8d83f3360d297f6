"""Reading a dump that anybody may have written: whatever is not of the expected shape is empty, nothing raises.

Pure. Dumps of other versions and of other proxies differ in what they leave out; a table shows what there is.
"""

__all__ = ["MAX_CELL", "Json", "at", "clean", "entries", "listed", "mapping", "word"]

Json = dict[str, object]

MAX_CELL = 256
"""Characters of a table's cell."""


def clean(text: str) -> str:
    """``text`` without characters that a terminal obeys or hides."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def mapping(value: object) -> Json:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def entries(value: object) -> list[Json]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def listed(value: object) -> list[str]:
    """The strings of a list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def word(item: Json, key: str) -> str:
    """A string, number or truth value as text to compare; "" for anything else."""
    value = item.get(key)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[: 16 * MAX_CELL] if isinstance(value, str | int | float) and _printable_number(value) else ""


def _printable_number(value: object) -> bool:
    return not isinstance(value, int) or abs(value) < 10**40


def at(item: Json, *keys: str) -> Json:
    """The object below ``keys``."""
    for key in keys:
        item = mapping(item.get(key))
    return item
