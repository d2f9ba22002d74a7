"""What an object says beyond the type that it is read as."""


def lost(given, kept, path):
    """What was given and is not kept: unknown to the type."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(kept, dict) or key not in kept:
                yield f"{path}.{key}: no such field"
            else:
                yield from lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list):
        for at, value in enumerate(given):
            yield from lost(value, kept[at], f"{path}[{at}]")
    elif given != kept:
        yield f"{path}: {given!r} is read as {kept!r}"
