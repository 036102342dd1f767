"""Parse the teacher of `oneseek train` and `distill`: the address of a server, or the folder of a model."""

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
    """Return the teacher of a training: `http://HOST:PORT#MODEL`, or the folder of a model. None if there is
    no teacher.

    Raises `SettingsError` that names the option that the user wrote.
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
    """Raise `SettingsError` if an option that is only for a server, such as its model, is given with a
    folder.
    """
    for name, value in ((f"{role}_model", model), (f"{role}_key_env", key_env)):
        if value is not None:
            raise SettingsError(
                name, f"this option is for a server, but {folder} is a folder; remove the option"
            )


def key_of(role: str, variable: str | None) -> str | None:
    """Return a server's API key from the environment variable `variable`. A flag would show it in the process
    list.
    """
    if variable is None:
        return None
    if not (key := process_environment().get(variable)):
        raise SettingsError(
            f"{role}_key_env",
            f"the environment variable {variable} is not set; set it to the server's API key",
        )
    return key


def model_folder(option: str, given: str) -> Path:
    """Return the folder of a model in Hugging Face layout: the path `given`, or models/`given`.

    Raises `SettingsError` if neither folder holds a config.json.
    """
    path = expand_home(given)
    places = [path] if path.is_absolute() else [path, Path("models") / path]
    for place in places:
        if (place / "config.json").is_file():
            return place
    also = f", and neither does {places[1]}" if len(places) > 1 else ""
    remedy = "use the folder of a model, its name in models/, or http://HOST:PORT/v1"
    raise SettingsError(option, f"{given} has no config.json{also}; {remedy}")
