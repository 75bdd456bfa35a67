"""Options that take several values after one flag: ``--metrics train.loss val.loss``."""

from __future__ import annotations

from typing import Any

import click


class ManyValues(click.Option):
    """An option whose flag can be followed by several values.

    They end at the next option, or at ``--``; values that the option's type refuses, such as a
    path after numbers, are not its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "multiple": True})

    def takes(self, value: str) -> bool:
        """Whether a word can be one of its values."""
        if value.startswith("-"):
            return False
        try:
            self.type.convert(value, self, None)
        except click.UsageError:
            return False
        return True


class ManyValuesCommand(click.Command):
    """A command with such options.

    click lets a flag take as many values as it says, or one; so the flag is put before each value
    before click reads the line.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flags, and let click do the rest."""
        flags = {
            flag: option
            for option in self.params
            if isinstance(option, ManyValues)
            for flag in option.opts
        }
        others = {name for option in self.get_params(ctx) for name in option.opts}
        repeated: list[str] = []
        current = ""
        first = False
        for number, argument in enumerate(args):
            if argument == "--":
                repeated += args[number:]
                break
            if argument in flags:
                current, first = argument, True
                repeated.append(argument)
            elif first and (argument.startswith("--") or argument in others):
                raise click.BadOptionUsage(
                    current, f"Option {current!r} requires an argument.", ctx
                )
            elif "=" in argument and argument.partition("=")[0] in flags:
                current, first = argument.partition("=")[0], False
                repeated.append(argument)
            elif current and (first or flags[current].takes(argument)):
                repeated += [argument] if first else [current, argument]
                first = False
            else:
                current = ""
                repeated.append(argument)
        if first and ctx.resilient_parsing:  # the value is being completed
            repeated.pop()
        return super().parse_args(ctx, repeated)
