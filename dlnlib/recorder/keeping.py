"""A recorder's state as one file: arrays and one text of JSON in an .npz, nothing pickled."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from dlnlib.book.publish import write_whole
from dlnlib.errors import BadData
from dlnlib.recorder.finding import Found, Pair
from dlnlib.recorder.layers import Layer, unlinked

__all__ = ["FORMAT", "save", "fill", "plain"]

FORMAT = 1  # of the file
ARRAYS = ("start", "predictors", "moves", "inputs")


def plain(record: dict[str, float]) -> dict:
    """A record for JSON: what is not finite becomes None."""
    return {k: v if math.isfinite(v) else None for k, v in record.items()}


# --- out ------------------------------------------------------------------------------------------


def save(recorder, path: Path) -> None:
    """Write to a file beside it, then rename; raises BadOutput in one line."""
    arrays = {"meta": np.array(json.dumps(_meta(recorder), allow_nan=False))}
    arrays |= {f"start/{k}": G.numpy() for k, G in enumerate(recorder.start.values())}
    arrays |= {f"predictors/{t}": w.numpy() for t, w in recorder.predictors.items()}
    for t, pair in recorder.moves.items():
        arrays[f"moves/{t}"] = torch.stack(pair).cpu().numpy()
    if recorder.inputs is not None:
        inputs = recorder.inputs.detach().cpu()
        arrays["inputs/0"] = (inputs.double() if inputs.is_floating_point() else inputs).numpy()

    def write(draft: Path) -> None:
        with open(draft, "wb") as stream:  # by its name np.savez would add .npz to it
            np.savez(stream, **arrays)

    write_whole(path, write)


def _meta(recorder) -> dict:
    found = recorder.found
    return {
        "format": FORMAT,
        "steps": recorder.steps,
        "spent": recorder.spent,
        "elapsed": recorder._time(),
        "records": [plain(record) for record in recorder.records],
        "events": recorder.events,
        "start": list(recorder.start),
        "layers": [asdict(layer) for layer in found.layers] if found else None,
        "pairs": [asdict(pair) for pair in found.pairs] if found else None,
        "runs": found.runs if found else None,
        "apart": found.apart if found else None,
        "ends": found.ends if found else None,
        "whole": found.whole if found else None,
    }


# --- in -------------------------------------------------------------------------------------------


def fill(recorder, path: Path) -> None:
    """State from the file into a new recorder; raises BadData for a file that is not one, or of
    another model."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            arrays = {k: torch.from_numpy(file[k]) for k in file.files if k != "meta"}
        if meta["format"] != FORMAT:
            raise BadData(f"{path} has format {meta['format']}, needed {FORMAT}: save it anew")
        found = _found(meta)
        _fill(recorder, meta, arrays)
    except OSError as err:
        raise BadData(f"{path} cannot be read ({err.strerror or err}): give a saved file") from err
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as err:
        raise BadData(f"{path} is no file that a recorder saved: give one") from err
    _must_be(found, recorder.model)
    recorder.found = found


def _found(meta: dict) -> Found:
    layers = tuple(_layer(entry) for entry in meta["layers"])
    pairs = tuple(Pair(**entry) for entry in meta["pairs"])
    runs = tuple(tuple(run) for run in meta["runs"])
    apart, ends = tuple(meta["apart"]), tuple(meta["ends"])
    return Found(layers, pairs, runs, apart, ends, bool(meta["whole"]))


def _layer(entry: dict) -> Layer:
    head = entry["head"] and tuple(entry["head"])
    changed = {"shape": tuple(entry["shape"]), "notes": tuple(entry["notes"]), "head": head}
    return Layer(**(entry | changed))


def _fill(recorder, meta: dict, arrays: dict) -> None:
    recorder.steps = int(meta["steps"])
    recorder.spent, recorder.elapsed = float(meta["spent"]), float(meta["elapsed"])
    for record in meta["records"]:
        values = {str(k): math.nan if v is None else float(v) for k, v in record.items()}
        recorder.records.append(values | {"step": int(record["step"])})
    if not recorder.records:
        raise ValueError("no records")
    recorder.events = [(int(step), str(text)) for step, text in meta["events"]]
    for k, name in enumerate(meta["start"]):
        recorder.start[str(name)] = arrays[f"start/{k}"].double()
    parts = {key: key.split("/") for key in arrays}
    for key, (kind, step) in parts.items():
        if kind not in ARRAYS:
            raise ValueError(key)
        if kind == "predictors":
            recorder.predictors[int(step)] = arrays[key].double()
        elif kind == "moves":
            recorder.moves[int(step)] = tuple(arrays[key].double().unbind())
        elif kind == "inputs":
            recorder.inputs = arrays[key]


def _must_be(found: Found, model) -> None:
    """The layers of the file are those of the model."""
    then = {layer.name: layer.shape for layer in found.layers}
    now = {layer.name: layer.shape for layer in unlinked(model)}
    for name in [*then, *now]:
        if then.get(name) != now.get(name):
            raise BadData(
                f"layer {name} has shape {then.get(name)} in the file and {now.get(name)} in the "
                "model, needed the same: give the model that was recorded"
            )
