"""Grow a class beside its explanation; fastcore's `@patch` without the dependency at run time."""


def patch(f):
    "Make `f` a method of the class that its first parameter is annotated with."
    cls = next(iter(f.__annotations__.values()))
    f.__qualname__ = f"{cls.__name__}.{f.__name__}"
    setattr(cls, f.__name__, f)
    return f
