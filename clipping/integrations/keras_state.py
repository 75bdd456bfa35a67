"""The state of a clipper in the files that Keras writes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from typing import Any, Final

import h5py  # type: ignore[import-untyped] # it ships no types
import keras  # type: ignore[import-untyped] # it ships no types
import numpy as np

from clipping.clipper import Clipper

ATTRIBUTE: Final = "clipper_state"
_ENTRY: Final = "state"


def saved_state(path: str | PathLike[str]) -> dict[str, Any]:
    """The clipper's state in a file that Keras wrote, for ``clipper.load_state_dict``.

    ``keras.saving.load_model`` makes a plain optimizer, which has no place for it. (What loads
    weights into a model during ``fit``, as ``BackupAndRestore`` does, restores it by itself, and
    so does ``model.load_weights`` after a ``fit`` with a ``ClipCallback`` or after
    ``ClipCallback(clipper).set_model(model)``.)

    Args:
        path: A ``.keras`` or ``.weights.h5`` file.

    Returns:
        What ``clipper.state_dict()`` was when the file was written.

    Raises:
        ValueError: It is another kind of file, or there is no such state in it.
        OSError: It cannot be read.

    Example:
        >>> import clipping, keras, numpy as np, warnings
        >>> from clipping.integrations.keras import ClipCallback, saved_state
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> history = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=2, verbose=0,
        ...                     callbacks=[ClipCallback()])
        >>> with warnings.catch_warnings(action="ignore"):  # of Keras about NumPy 2
        ...     model.save("model.keras")
        >>> model, clipper = keras.saving.load_model("model.keras"), clipping.AutoClip()
        >>> clipper.load_state_dict(saved_state("model.keras"))
        >>> clipper.state_dict()["steps"]
        4
    """
    name = fspath(path)
    if not name.endswith((".keras", ".weights.h5")):
        raise ValueError(f"path must end with '.keras' or '.weights.h5', got {name!r}.")
    file: Any = name
    if name.endswith(".keras"):
        with zipfile.ZipFile(name) as archive:
            file = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(file, "r") as weights:
        entry = weights.get(f"optimizer/{ATTRIBUTE}/vars/{_ENTRY}")
        if entry is None:
            raise ValueError(
                f"There is no clipper's state in {name!r}. Allowed: a file of a model that was "
                "fitted with a ClipCallback and saved with its optimizer."
            )
        return _decoded(entry)


class Carrier(keras.losses.Loss):  # type: ignore[misc] # keras has no types
    """The place of a clipper's state in an optimizer's checkpoint.

    A Loss only because Keras saves objects of its own classes, of which that is the lightest. A
    plain optimizer that loads the checkpoint does not look there.

    Attributes:
        clipper: Whose state it is.
        sync: Brings the clipper up to date before it is saved; None where nothing is to be done.
    """

    def __init__(self, clipper: Clipper) -> None:
        super().__init__(name="clipper")
        self.clipper = clipper
        self.sync: Callable[[], None] | None = None

    def save_own_variables(self, store: Any) -> None:
        """Write the state, unless there is none yet."""
        if self.sync is not None:
            self.sync()
        state = self.clipper.state_dict()
        if state["steps"]:
            store[_ENTRY] = np.frombuffer(json.dumps(state).encode(), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Let the clipper continue from a state that was saved."""
        if _ENTRY in store.keys():  # noqa: SIM118 -- it is no mapping
            self.clipper.load_state_dict(_decoded(store[_ENTRY]))


def hiding(
    method: Callable[[Any], None], owner: Any, hidden: Callable[[], Sequence[Any]]
) -> Callable[[Any], None]:
    """A method that saves or loads an optimizer, without some of its variables.

    So that a plain optimizer can load what is saved, and the other way round.

    Args:
        method: The bound method.
        owner: The optimizer that has the variables.
        hidden: Which variables it is to leave out.
    """
    attributes = vars(owner)

    def plain(store: Any) -> None:
        everything, ours = attributes["_variables"], set(map(id, hidden()))
        attributes["_variables"] = [v for v in everything if id(v) not in ours]
        try:
            method(store)
        finally:
            attributes["_variables"] = everything

    return plain


def _decoded(entry: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(np.asarray(entry).tobytes())
    return state
