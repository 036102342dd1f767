"""Parse a teacher for `train` and `distill`: a server's address or a model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapters.evaluation.endpoint import ModelEndpoint
from server.config.environment import expand_home, process_environment
from server.config.values import SettingsError
from server.jobs.requests import teacher_named

if TYPE_CHECKING:
    from server.jobs.requests import TrainRequest


def teacher_of(asked: TrainRequest) -> str | None:
    """The teacher of a training: `http://HOST:PORT#MODEL`, or the folder of a model; None if there is none.

    Raises `SettingsError` that names the option as it was written.
    """
    named = teacher_named(asked)
    if named is None:
        return None
    option, given = named
    if "://" not in given:
        refuse_server_options(given, model=asked.teacher_model, key_env=asked.teacher_key_env)
        return str(model_folder(option, given))
    url, _, model = given.partition("#")
    try:
        ModelEndpoint.at(url)
    except ValueError as error:
        raise SettingsError(option, str(error)) from None
    model = asked.teacher_model or model
    return f"{url}#{model}" if model else url


def refuse_server_options(
    folder: str, *, model: str | None, key_env: str | None, role: str = "teacher"
) -> None:
    """Raise `SettingsError` if an option that needs a server is combined with a folder."""
    for name, value in ((f"{role}_model", model), (f"{role}_key_env", key_env)):
        if value is not None:
            raise SettingsError(
                name, f"works only if the {role} is a server, but {folder} is a folder; remove the option"
            )


def key_of(role: str, variable: str | None) -> str | None:
    """The API key of a server, read from the environment so that a process list does not show it."""
    if variable is None:
        return None
    if not (key := process_environment().get(variable)):
        raise SettingsError(
            f"{role}_key_env", f"{variable} is not set; export that variable with the key as its value"
        )
    return key


def model_folder(option: str, given: str) -> Path:
    """The folder of a model in Hugging Face layout: the path `given`, or models/`given`.

    Raises `SettingsError` if neither holds a config.json.
    """
    path = expand_home(given)
    places = [path] if path.is_absolute() else [path, Path("models") / path]
    for place in places:
        if (place / "config.json").is_file():
            return place
    also = f", and neither does {places[1]}" if len(places) > 1 else ""
    raise SettingsError(
        option,
        f"the folder {given} has no config.json{also}; "
        "use the folder of a model, its name in models/, or http://HOST:PORT/v1",
    )
